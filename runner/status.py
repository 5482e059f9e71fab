"""``python -m runner.status RUNS_DIR``: the state of a sweep, from any terminal or machine.

It only reads files. So it is safe at any time, also long after the sweep, and in a folder that others can write.
Exit codes: 0, or 2 if RUNS_DIR is no sweep.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from experiments.errors import InputError
from experiments.foreign import clean_lines
from runner.ledger.driver import read_driver
from runner.ledger.plan_file import PlanFile, read_plan
from runner.ledger.reader import read_status
from runner.ledger.signs import Process, Sign, signs_of_life
from runner.terminal import complain, run_command
from runner.watching.display import Row, Terminal, jobs_table, summary_line
from runner.watching.estimate import Left

USAGE = "usage: python -m runner.status RUNS_DIR"


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Print the state of the sweep in a folder. Returns the exit code."""
    console = console or Terminal()
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise InputError(USAGE)
        runs_dir = Path(arguments[0])
        plan = read_plan(runs_dir)
    except InputError as error:
        complain(error)
        return 2
    driver = read_driver(runs_dir)
    sign = driver_sign(runs_dir, driver)
    rows = job_rows(runs_dir, plan, driver, is_watched=sign is not None and sign.alive)
    for line in describe_driver(runs_dir, driver, sign):
        console.print(Text(clean_lines(line)))
    console.print(jobs_table(rows, console.width))
    seconds = (driver or {}).get("seconds_left") if sign and sign.alive else None
    left = None if seconds is None else Left(float(seconds), at_least=False)
    console.print(Text(summary_line(rows, left)))
    return 0


def driver_sign(runs_dir: Path, driver: Mapping[str, Any] | None) -> Sign | None:
    """Whether the sweep's driver lives. None if it has ended in order, or was never seen."""
    if driver is None or driver.get("state") != "running":
        return None
    return signs_of_life([Process(partial(read_driver, runs_dir), runs_dir / "sweep.lock")])[0]


def describe_driver(runs_dir: Path, driver: Mapping[str, Any] | None, sign: Sign | None) -> list[str]:
    """Who runs the sweep, or how its last run ended."""
    if driver is None:
        return [f"{runs_dir}: no driver.json that can be read, so nobody runs it"]
    command = driver.get("command")
    if sign is None:
        code, when = driver.get("exit_code"), driver.get("updated")
        lines = [f"{runs_dir}: its last run ended at {when} with exit code {code}"]
        return lines if code == 0 else [*lines, f"resume: {command}"]
    if sign.alive:
        return [f"{runs_dir}: running on {driver.get('where')} ({sign.how})"]
    return [f"{runs_dir}: its driver died ({sign.how})", f"resume: {command}"]


def job_rows(runs_dir: Path, plan: PlanFile, driver: Mapping[str, Any] | None, is_watched: bool) -> list[Row]:
    """Every job of the plan, as its own files and the driver's file describe it.

    Args:
        runs_dir: the sweep's folder.
        plan: its plan.json.
        driver: its driver.json.
        is_watched: whether the driver lives, so that what it says of running jobs is true now.
    """
    told: Mapping[str, Any] = (driver or {}).get("jobs", {})
    folders = working_folders(runs_dir, plan, driver)
    signs = job_signs(running_jobs(folders))
    return [_row(label, folders[label], told.get(label, {}), signs.get(label), is_watched) for label in folders]


def working_folders(runs_dir: Path, plan: PlanFile, driver: Mapping[str, Any] | None) -> dict[str, Path]:
    """Where each job works or has left its record. A shared artifact is made in the cache."""
    told: Mapping[str, Any] = (driver or {}).get("jobs", {})
    folders = {}
    for job in plan.jobs:
        elsewhere = told.get(job.label, {}).get("folder") if job.folder.startswith("shared/") else None
        folders[job.label] = Path(elsewhere) if elsewhere else runs_dir / job.folder
    return folders


def running_jobs(folders: Mapping[str, Path]) -> dict[str, Path]:
    """The jobs whose status says that they run, whether or not their processes live."""
    states = {label: (read_status(folder) or {}).get("state") for label, folder in folders.items()}
    return {label: folder for label, folder in folders.items() if states[label] == "running"}


def job_signs(folders: Mapping[str, Path]) -> dict[str, Sign]:
    """Whether the processes that work in these folders live, by label."""
    processes = [Process(partial(read_status, folder), folder / "job.lock") for folder in folders.values()]
    return dict(zip(folders, signs_of_life(processes), strict=True))


def _row(label: str, folder: Path, told: Mapping[str, Any], sign: Sign | None, is_watched: bool) -> Row:
    status = read_status(folder) or {}
    state = str(status.get("state", "waiting"))
    if state == "running":
        row = Row.of_status(label, status)
        if sign is None or sign.alive:  # None: it has only just begun
            return row
        return replace(row, state="died", left=None, text=f"{sign.how}; it was at {row.text}")
    if is_watched and told.get("state") == "running":
        return Row(label, "running", "starting, or in a queue")
    if not status:
        return Row(label, str(told.get("state", "waiting")), str(told.get("reason", "")), told.get("seconds"))
    return Row(label, state, str(status.get("error") or ""), status.get("seconds"))


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__))
