"""What a person sees of a plan, while a sweep runs, and at its end. Without a terminal it is plain lines."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.foreign import clean, clean_lines, open_plain
from runner.ledger.command import as_typed
from runner.ledger.reader import is_finished, newest_report, read_json
from runner.planning.graph import Job
from runner.planning.plan import Plan
from runner.watching.estimate import Left, own_time_left

PROGRESS_SECONDS = 10.0  # between two lines of one stage
SUMMARY_SECONDS = 60.0  # between two lines about the sweep
NARROW = 70  # columns; below, a table keeps to what matters most
LIVE_LINES = 5  # of the terminal that the live table leaves alone
STATES = ("running", "died", "failed", "stopped", "interrupted", "skipped", "waiting", "finished", "reused")
LOG_LINES, LOG_BYTES = 8, 20_000


@dataclass(frozen=True)
class Row:
    """A job in a table."""

    label: str
    state: str  # one of STATES
    text: str = ""  # how far it is, or why it has no result
    seconds: float | None = None  # worked
    left: float | None = None
    status: Mapping[str, Any] = field(default_factory=dict)  # of one that runs

    @classmethod
    def of_status(cls, label: str, status: Mapping[str, Any], state: str = "running") -> Row:
        """One that has written a status and not its end."""
        return cls(label, state, progress_text(status), status.get("seconds"), own_time_left(status), status)


@dataclass
class _Seen:
    """The last progress line of a job."""

    stage: str
    printed: float
    done: int


class Terminal(Console):
    """A console that prints texts as they are. A pipe that nobody reads any more is an error, as in `print`."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Rich would end the process with the exit code of a failed job."""
        self.quiet = True
        raise BrokenPipeError


class Display:
    """Lines on a console and, while `watching` on a terminal, a live table below them."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Terminal()
        self._seen: dict[str, _Seen] = {}
        self._summed_up = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside it, `show` keeps a live table below the lines, if the terminal supports that."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            try:
                yield
            finally:
                self._live = None

    def show(self, rows: Sequence[Row], summary: str) -> None:
        """Show all jobs as they are now: in the live table, or now and then in a line for each and one for all."""
        if self._live:
            width, height = self._console.size
            self._live.update(live_table(rows, summary, width, height), refresh=True)
            return
        for row in rows:
            if row.status:
                self.progress(row.label, row.status)
        if time.monotonic() - self._summed_up >= SUMMARY_SECONDS:
            self._summed_up = time.monotonic()
            self.event("sweep", summary)

    def say(self, text: str) -> None:
        """Print lines as they are, without what would move the cursor, since they may quote what others wrote."""
        self._console.print(Text(clean_lines(text)))

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
        if seen and seen.stage == stage and (done == seen.done or moment - seen.printed < PROGRESS_SECONDS):
            return
        self._seen[label] = _Seen(stage, moment, done)
        left = own_time_left(status)
        self.event(label, progress_text(status) + (f", {duration(left)} left" if left else ""))

    def summary(self, plan: Plan, results: Mapping[str, Row], again: str) -> None:
        """The table of all jobs, what went wrong and how to repeat it, and the report.

        Args:
            plan: the sweep.
            results: of every job, by label.
            again: what a person types to resume this sweep.
        """
        self._console.print()
        rows = [results[job.label] for job in plan.jobs]
        self._console.print(jobs_table(rows, self._console.width))
        failed = [job for job in plan.jobs if results[job.label].state == "failed"]
        for job in failed:
            self._failure(job, results[job.label])
        if any(result.state not in {"finished", "reused"} for result in results.values()):
            self.say(f"\nall that is missing: {again}")
        self._offline_runs(plan)
        if results["report"].state in {"finished", "reused"}:
            self._report(newest_report(plan.folder))

    def _failure(self, job: Job, result: Row) -> None:
        self.say(f"\n{clean(job.label)} {result.state}: {clean(result.text)}")
        for line in log_tail(job.folder / "log.txt"):
            self.say(f"    {line}")
        self.say(f"  once more, alone: {as_typed(['python', '-m', 'runner.job', str(job.folder)])}")

    def _offline_runs(self, plan: Plan) -> None:
        folders = as_typed(find_offline_runs(plan))
        if folders:
            command = f"find {folders} -name 'offline-run-*' -exec wandb sync {{}} +"
            self.say(f"\nW&B was offline; to upload, samples included: {command}")

    def _report(self, folder: Path) -> None:
        self.say(f"\nreport: {folder / 'report.html'}")
        try:
            self.say(clean(str(read_json(folder / "report.json")["headline"]), limit=2000))
        except (OSError, ValueError, KeyError) as error:
            self.say(f"the report has no headline: {clean(str(error))}")


def jobs_table(rows: Sequence[Row], width: int) -> Table:
    """One row for every job: its state, how long it has worked, how far it is or why it has no result, and time left.

    Args:
        rows: the jobs.
        width: columns of the terminal. If it is narrow, only job, state and text are shown.
    """
    columns = ["state", "", "left"] if width < NARROW else ["state", "time", "", "left"]
    columns = columns if any(row.left for row in rows) else columns[:-1]
    table = _table(*columns, narrow=width < NARROW)
    for row in rows:
        cells = {"state": row.state, "time": duration(row.seconds), "": row.text, "left": duration(row.left)}
        table.add_row(Text(clean(row.label)), *(Text(clean(cells[column])) for column in columns))
    return table


def live_table(rows: Sequence[Row], summary: str, width: int, height: int) -> Group:
    """The jobs that work or went wrong, as many as there is room for, one a line, and a line for the sweep."""
    busy = [row for row in rows if row.state not in {"waiting", "finished", "reused", "skipped"}]
    busy.sort(key=lambda row: STATES.index(row.state))
    room = max(1, height - LIVE_LINES)
    table = jobs_table(busy[:room], width)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    more = [Text(f"… and {len(busy) - room} more")] if len(busy) > room else []
    return Group(table, *more, Text(summary, no_wrap=True, overflow="ellipsis"))


def summary_line(rows: Iterable[Row], left: Left | None) -> str:
    """A sweep in one line: how many jobs are in which state, and the time left."""
    count = Counter(row.state for row in rows)
    done = count.pop("finished", 0) + count.pop("reused", 0)
    parts = [f"{done} of {done + count.total()} finished"]
    parts += [f"{count[state]} {state}" for state in STATES if count[state]]
    time_left = f"{'at least' if left.at_least else 'about'} {duration(left.seconds)} left; " if left else ""
    return time_left + ", ".join(parts)  # what matters most comes first: a narrow terminal cuts the end


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


def progress_text(status: Mapping[str, Any]) -> str:
    """Stage, progress, speed and the latest numbers of a job.

    Args:
        status: content of ``status.json``; empty if the job has not written any.
    """
    total, unit = int(status.get("total") or 0), status.get("unit", "")
    stage = status.get("stage", "starting")
    parts = [f"{stage} {status.get('done')}/{total} {unit}" if total else f"{stage}"]
    if rate := _rate(status):
        parts.append(f"{rate:.1f} {unit}/s" if rate >= 1 else f"{60 * rate:.1f} {unit}/min")
    parts += [f"{name} {value:.3g}" for name, value in status.get("latest", {}).items() if value is not None]
    parts += [f"FLAG {name.replace('_', ' ')} ({rows}x)" for name, rows in status.get("flags", {}).items()]
    return ", ".join(parts)


def _rate(status: Mapping[str, Any]) -> float:
    """Units a second since the count began. 0 if it is unknown."""
    began = status.get("counted_from") or {}
    done = int(status.get("done") or 0) - int(began.get("done") or 0)
    seconds = float(status.get("counted_to") or 0) - float(began.get("seconds") or 0)
    return done / seconds if done > 0 and seconds > 0 else 0.0


def duration(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def log_tail(path: Path) -> list[str]:
    """The last lines of a log that are not empty, cleaned."""
    try:
        with open_plain(path) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = stream.read(LOG_BYTES).decode("utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    return [clean(line) for line in lines if line.strip()][-LOG_LINES:]


def find_offline_runs(plan: Plan) -> list[str]:
    """Folders of this sweep that hold W&B runs which were never uploaded."""
    folders = dict.fromkeys([plan.folder, *(job.folder for job in plan.jobs if job.shared)])
    runs = {folder: [run for run in folder.glob("**/wandb/offline-run-*") if run.is_dir()] for folder in folders}
    unsent = [folder for folder, found in runs.items() if any(not list(run.glob("*.synced")) for run in found)]
    return [str(folder) for folder in unsent]


def _table(*columns: str, narrow: bool = False) -> Table:
    """A borderless table whose first column is the job. It is not wrapped if there is room for it."""
    table = Table(box=None, pad_edge=False)
    table.add_column("job", no_wrap=not narrow, overflow="fold")
    for column in columns:
        table.add_column(column)
    return table


def _short(labels: Iterable[str]) -> str:
    """Needs in one cell; the many evaluations that a report needs are counted."""
    names: Sequence[str] = list(labels)
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} evaluations"
