"""Walk the plan: start what is ready, skip what is finished, keep going when an arm fails, and sum up."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from experiments.errors import InputError
from runner.display import Display, Result
from runner.engines import Cause, Engine, Outcome, Task
from runner.ledger.reader import is_finished, read_status
from runner.memory import learn, needed_bytes
from runner.plan import COMPARING, SHARED, Job, Plan, with_needs
from runner.retry import DIVISOR, read_retry, retry_smaller

POLL_SECONDS = 0.2
GOOD = {"finished", "reused"}
CAUSES: dict[Cause, str] = {
    "time_limit": "ended, because it took longer than engine.time_limit_minutes",
    "cancelled": "cancelled",
    "node_lost": "its node was lost",
    "preempted": "preempted by the cluster",
    "out_of_memory": "killed by the system for want of memory",
}
SMALLER = f"passes that are {DIVISOR} times smaller"
JOB_COMMAND = (sys.executable, "-m", "runner.job")


def execute(plan: Plan, engine: Engine, display: Display, command: Sequence[str] = JOB_COMMAND) -> int:
    """Run a plan to its end.

    Args:
        plan: what to do.
        engine: where.
        display: what a person sees.
        command: what starts a job; the job's folders are appended.

    Returns:
        The exit code: 0 if everything finished, 1 if a job failed, 130 after Ctrl-C or a request to end.

    Raises:
        InputError: another process works on this sweep.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(plan.folder / "sweep.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"another `python -m runner` works in {plan.folder}; name=… chooses another folder") from None
    try:
        with _requests_to_end_as_ctrl_c():
            return _execute(plan, engine, display, command)
    finally:
        lock.release()


def _execute(plan: Plan, engine: Engine, display: Display, command: Sequence[str]) -> int:
    walk = Walk(plan, engine, display, command)
    try:
        plan.write()
        display.say(f"sweep {plan.name} in {plan.folder}: {engine.describe()}")
        engine.open()
        walk.run()
    except KeyboardInterrupt:
        display.say("\ninterrupted; ending the jobs. The same command goes on from here.")
        return 130
    finally:
        engine.stop()
    display.summary(plan, walk.results)
    return 0 if all(result.state in GOOD for result in walk.results.values()) else 1


@contextmanager
def _requests_to_end_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a closed terminal, end the jobs in the same way as Ctrl-C does."""
    handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Walk:
    """One walk over a plan. ``results`` fills up until every job has one."""

    def __init__(self, plan: Plan, engine: Engine, display: Display, command: Sequence[str]) -> None:
        self.results: dict[str, Result] = {}
        self._jobs = {job.label: job for job in plan.jobs}
        self._one_process = plan.engine.artifacts_in_one_process
        minutes = plan.engine.time_limit_minutes
        self._time_limit = None if minutes is None else 60 * minutes
        self._engine = engine
        self._display = display
        self._command = tuple(command)
        self._running: dict[str, tuple[Job, ...]] = {}

    def run(self) -> None:
        """Until every job has a result."""
        self._reuse()
        while len(self.results) < len(self._jobs):
            self._skip()
            self._start()
            for outcome in self._engine.poll():
                self._settle(outcome)
            self._show_progress()
            time.sleep(POLL_SECONDS if self._running else 0)

    # ---------------------------------------------------------------------------------------------- what need not start
    def _reuse(self) -> None:
        """Recognise what an earlier run has finished."""
        for job in self._jobs.values():
            if is_finished(job.folder, job.identity):
                share(job)
                self.results[job.label] = Result("reused", seconds=_seconds(job.folder))
        if self.results:
            self._display.say(f"finished before, and taken as it is: {', '.join(self.results)}")

    def _skip(self) -> None:
        """Give up jobs whose needs failed. The plan lists needs first, so one pass finds all of them."""
        for job in list(self._jobs.values()):
            if job.label not in self.results and (reason := self._hopeless(job)):
                self.results[job.label] = Result("skipped", reason)
                self._display.event(job.label, f"skipped: {reason}")

    def _hopeless(self, job: Job) -> str:
        """Why a job can never start, or nothing."""
        lost = [
            label for label in job.needs.values() if label in self.results and self.results[label].state not in GOOD
        ]
        if job.kind in COMPARING:
            arms = {label for label in job.needs.values() if self._jobs[label].kind == "evaluation"}
            return "nothing to compare" if "base_evaluation" in lost or arms <= set(lost) else ""
        return f"{', '.join(lost)} did not finish" if lost else ""

    # ------------------------------------------------------------------------------------------------------ what starts
    def _start(self) -> None:
        """Start what is ready, in the plan's order, until the next in line finds no room."""
        while ready := self._next():
            group = self._group(ready)
            command = (*self._command, *(str(job.folder) for job in group))
            log = ready.folder / "log.txt"
            main, gpu = (needed_bytes(group, device) for device in ("cpu", "gpu"))
            task = Task(ready.label, command, log, self._is_wide(group), self._time_limit, main, gpu)
            if not self._engine.can_take(task):
                return
            for job in group:
                job.file.write(job.folder)
            followers = ", ".join(job.label for job in group[1:])
            self._display.event(
                ready.label, f"started, followed in one process by {followers}" if followers else "started"
            )
            self._running[task.name] = group
            self._engine.start(task)

    def _next(self) -> Job | None:
        """The first job that has neither started nor a result, and whose needs are all settled."""
        busy = {job.label for group in self._running.values() for job in group}
        for job in self._jobs.values():
            if job.label not in busy | set(self.results) and all(label in self.results for label in job.needs.values()):
                return self._with_finished_needs(job)
        return None

    def _with_finished_needs(self, job: Job) -> Job:
        """A comparison takes what there is; every other job has all its needs by now."""
        if job.kind in COMPARING:
            there = {label: self._jobs[label] for label, result in self.results.items() if result.state in GOOD}
            self._jobs[job.label] = job = with_needs(job, there)
        return job

    def _group(self, first: Job) -> tuple[Job, ...]:
        """The jobs of one process: usually one; tiny shared artifacts all together, to load the libraries once."""
        if not (self._one_process and first.kind in SHARED):
            return (first,)
        return tuple(job for job in self._jobs.values() if job.kind in SHARED and job.label not in self.results)

    def _is_wide(self, group: tuple[Job, ...]) -> bool:
        """Fixed by the settings, not by what is left to do: thread counts must not depend on the past."""
        return any(job.wide or (self._one_process and job.kind in SHARED) for job in group)

    # -------------------------------------------------------------------------------------------------------- what ends
    def _settle(self, outcome: Outcome) -> None:
        """Read from each folder of an ended process what became of its job."""
        group = self._running.pop(outcome.name)
        for job in group:
            if is_finished(job.folder, job.identity):
                self._finish(job, alone=len(group) == 1)
                continue
            if lack := retry_smaller(job, outcome):
                self._display.event(job.label, f"{lack}; it starts once more, with {SMALLER}")
                break
            reason = failure_reason(outcome, read_status(job.folder) or {})
            self.results[job.label] = Result("failed", reason, _seconds(job.folder))
            self._display.event(job.label, f"failed: {reason}")
            break  # the rest of the group never started: it is started again, or skipped for what it needs

    def _finish(self, job: Job, alone: bool) -> None:
        share(job)
        if alone:  # the memory of a process is that of the largest of its jobs
            learn(job)
        note = f"with {SMALLER}, after it had run out of memory" if read_retry(job.folder, job.identity) else ""
        self.results[job.label] = Result("finished", note, _seconds(job.folder))
        self._display.event(job.label, f"finished {note}".strip())

    def _show_progress(self) -> None:
        for group in self._running.values():
            for job in group:
                status = read_status(job.folder)
                if status and status.get("state") == "running" and status.get("identity") == job.identity:
                    self._display.progress(job.label, status)


def share(job: Job) -> None:
    """Copy a shared artifact's record, without weights, into the sweep's folder, which so explains itself."""
    if job.folder == job.ledger or is_finished(job.ledger, job.identity):
        return
    unfinished = job.ledger.with_name(f".{job.ledger.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for path in job.folder.iterdir():
        if path.suffix in {".json", ".jsonl", ".txt"}:
            shutil.copy2(path, unfinished)
    if (job.folder / "samples").is_dir():
        shutil.copytree(job.folder / "samples", unfinished / "samples")
    shutil.rmtree(job.ledger, ignore_errors=True)
    unfinished.rename(job.ledger)


def failure_reason(outcome: Outcome, status: dict[str, Any]) -> str:
    """Why a job did not finish, in one line: what the engine did or saw, and what the job itself said last."""
    code = outcome.exit_code
    if outcome.cause != "exited":
        return f"{CAUSES[outcome.cause]}: {outcome.detail}" if outcome.detail else CAUSES[outcome.cause]
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (often by the system, for want of memory)" if name == "SIGKILL" else "")
    if code == 1 and status.get("error"):
        return str(status["error"])
    return "interrupted" if code == 130 else f"exit code {code}; its log says more"


def _seconds(folder: Path) -> float | None:
    """How long a job has worked, by its own record."""
    status = read_status(folder) or {}
    try:
        began, ended = (datetime.fromisoformat(status[key]) for key in ("started", "updated"))
    except (KeyError, ValueError, TypeError):
        return None
    return (ended - began).total_seconds()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
