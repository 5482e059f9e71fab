"""What a person sees: one line per event while a sweep runs, a table at its end, and the plan for ``--plan``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.ledger.reader import is_finished, newest_report, read_json
from runner.plan import Job, Plan

PROGRESS_SECONDS = 10.0  # between two lines of one stage
LOG_LINES = 8
MAX_LINE = 300


@dataclass(frozen=True)
class Result:
    """What became of a job."""

    state: str  # "finished", "reused", "failed", "stopped" or "skipped"
    reason: str = ""
    seconds: float | None = None


@dataclass
class _Seen:
    """The last progress line of a job and where its stage began."""

    stage: str
    began: float
    done_at_start: int
    printed: float
    done: int


class Display:
    """Plain lines on a console."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._seen: dict[str, _Seen] = {}

    def say(self, text: str) -> None:
        """One line as it is."""
        self._console.print(Text(text))

    def table(self, table: Table) -> None:
        """A table."""
        self._console.print(table)

    def event(self, label: str, text: str) -> None:
        """One line about a job, with the time."""
        self.say(f"{datetime.now():%H:%M:%S}  {clean(label):<28}  {clean(text)}")

    def progress(self, label: str, status: Mapping[str, Any]) -> None:
        """A line for a new stage, and one every few seconds while it advances."""
        stage, done = str(status.get("stage", "")), int(status.get("done") or 0)
        seen, moment = self._seen.get(label), time.monotonic()
        if seen is None or seen.stage != stage:
            seen = self._seen[label] = _Seen(stage, moment, done, moment, done)
        elif done == seen.done or moment - seen.printed < PROGRESS_SECONDS:
            return
        seen.printed, seen.done = moment, done
        self.event(label, progress_text(status, done - seen.done_at_start, moment - seen.began))

    def summary(self, plan: Plan, results: Mapping[str, Result], again: str) -> None:
        """The table of all jobs, what went wrong and how to repeat it, and the report.

        Args:
            plan: the sweep.
            results: of every job, by label.
            again: what a person types to go on with this sweep.
        """
        self._console.print()
        self._console.print(results_table(plan, results))
        failed = [job for job in plan.jobs if results[job.label].state == "failed"]
        for job in failed:
            self._failure(job, results[job.label])
        if any(result.state not in {"finished", "reused"} for result in results.values()):
            self.say(f"\nall that is missing: {again}")
        self._offline_runs(plan)
        if results["report"].state in {"finished", "reused"}:
            self._report(newest_report(plan.folder))

    def _failure(self, job: Job, result: Result) -> None:
        self.say(f"\n{clean(job.label)} {result.state}: {clean(result.reason)}")
        for line in log_tail(job.folder / "log.txt"):
            self.say(f"    {line}")
        self.say(f"  once more, alone: {shlex.join(['python', '-m', 'runner.job', str(job.folder)])}")

    def _offline_runs(self, plan: Plan) -> None:
        folders = " ".join(shlex.quote(folder) for folder in find_offline_runs(plan))
        if folders:
            command = f"find {folders} -name 'offline-run-*' -exec wandb sync {{}} +"
            self.say(f"\nW&B was offline; to upload, samples included: {command}")

    def _report(self, folder: Path) -> None:
        self.say(f"\nreport: {folder / 'report.html'}")
        try:
            self.say(clean(str(read_json(folder / "report.json")["headline"]), limit=2000))
        except (OSError, ValueError, KeyError) as error:
            self.say(f"the report has no headline: {clean(str(error))}")


def results_table(plan: Plan, results: Mapping[str, Result]) -> Table:
    """One row for every job: what became of it, how long it worked, and why it has no result."""
    table = _table("state", "time", "why")
    for job in plan.jobs:
        result = results[job.label]
        table.add_row(*map(Text, (job.label, result.state, duration(result.seconds), clean(result.reason))))
    return table


def show_plan(plan: Plan, where: str, display: Display) -> None:
    """What ``--plan`` prints: jobs, what they need, their work and state; the shared budget; the fairness checks."""
    display.say(f"sweep {plan.name} in {plan.folder}, {where}\n")
    table = _table("needs", "samples", "trains on", "state")
    for job in plan.jobs:
        state = "finished" if is_finished(job.folder, job.identity) else "to do"
        work = [f"{count:,}" if count else "" for count in (job.work.sampled, job.work.trained)]
        table.add_row(*map(Text, [job.label, _short(job.needs.values()), *work, state]))
    display.table(table)
    display.say("samples, trains on: response tokens at most, all epochs counted, prompts not.\n")
    display.say("shared budget")
    for key, value in plan.runs[0].budget.model_dump().items():
        display.say(f"  {key}: {value}")
    display.say("\nfairness: equal for all arms")
    for check in plan.fairness:
        display.say(f"  {'ok ' if check.ok else 'NO '} {check.check}: {check.value}")


def progress_text(status: Mapping[str, Any], done: int, seconds: float) -> str:
    """Stage, progress, speed, the latest numbers and the time left.

    Args:
        status: content of ``status.json``.
        done: units done since the stage began.
        seconds: since then; the speed comes from both.
    """
    total, unit = int(status.get("total") or 0), status.get("unit", "")
    parts = [f"{status.get('stage')} {status.get('done')}/{total} {unit}" if total else f"{status.get('stage')}"]
    rate = done / seconds if done > 0 and seconds > 0 else 0.0
    if rate:
        parts.append(f"{rate:.1f} {unit}/s" if rate >= 1 else f"{60 * rate:.1f} {unit}/min")
    parts += [f"{name} {value:.3g}" for name, value in status.get("latest", {}).items() if value is not None]
    parts += [f"FLAG {name.replace('_', ' ')} ({rows}x)" for name, rows in status.get("flags", {}).items()]
    left = total - int(status.get("done") or 0)
    if rate and left > 0:
        parts.append(f"{duration(left / rate)} left")
    return ", ".join(parts)


def duration(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def clean(text: str, limit: int = MAX_LINE) -> str:
    """One line that cannot move the cursor or colour the terminal: texts of models and libraries end up here."""
    return "".join(char if char.isprintable() else " " for char in text)[:limit]


def log_tail(path: Path) -> list[str]:
    """The last lines of a log that are not empty, cleaned."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 20_000))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [clean(line) for line in lines if line.strip()][-LOG_LINES:]


def find_offline_runs(plan: Plan) -> list[str]:
    """Folders of this sweep that hold W&B runs which were never uploaded."""
    folders = dict.fromkeys([plan.folder, *(job.folder for job in plan.jobs if job.folder != job.ledger)])
    runs = {folder: [run for run in folder.glob("**/wandb/offline-run-*") if run.is_dir()] for folder in folders}
    unsent = [folder for folder, found in runs.items() if any(not list(run.glob("*.synced")) for run in found)]
    return [str(folder) for folder in unsent]


def _table(*columns: str) -> Table:
    """A borderless table whose first column is the job, never cut."""
    table = Table(box=None, pad_edge=False)
    table.add_column("job", no_wrap=True)
    for column in columns:
        table.add_column(column)
    return table


def _short(labels: Iterable[str]) -> str:
    """Needs in one cell; the many evaluations that a report needs are counted."""
    names: Sequence[str] = list(labels)
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} evaluations"
