"""Walk the plan: start what is ready, skip what is finished, keep going when an arm fails, and sum up."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from experiments.errors import InputError
from runner.display import Display, Result
from runner.engines import Cause, Engine, Outcome, Task
from runner.ledger.reader import is_finished, read_status
from runner.ledger.writer import record_end
from runner.plan import COMPARING, SHARED, Job, Plan, with_needs

POLL_SECONDS = 0.2
FOLLOWED_BY = {"gold": "ranking_data", "arm": "evaluation"}  # by kind: what goes on in the same process
GOOD = {"finished", "reused"}
CAUSES: dict[Cause, str] = {
    "time_limit": "ended, because it took longer than engine.time_limit_minutes",
    "cancelled": "cancelled",
    "node_lost": "its node was lost",
    "preempted": "preempted by the cluster",
}
JOB_COMMAND = (sys.executable, "-m", "runner.job")


def execute(
    plan: Plan, engine: Engine, display: Display, command: Sequence[str] = JOB_COMMAND, again: str = "python -m runner"
) -> int:
    """Run a plan to its end.

    Args:
        plan: what to do.
        engine: where.
        display: what a person sees.
        command: what starts a job; the job's folders are appended.
        again: what a person types to go on with this sweep.

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
            return _execute(plan, engine, display, command, again)
    finally:
        lock.release()


def _execute(plan: Plan, engine: Engine, display: Display, command: Sequence[str], again: str) -> int:
    walk = Walk(plan, engine, display, command)
    try:
        plan.write()
        display.say(f"sweep {plan.name} in {plan.folder}: {engine.describe()}")
        engine.open()
        walk.run()
    except KeyboardInterrupt:
        display.say(f"\ninterrupted; ending the jobs. The same command goes on from here: {again}")
        return 130
    finally:
        engine.stop()
    display.summary(plan, walk.results, again)
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
            self._settle_finished()
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
                self._give_up(job, "skipped", reason)

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
            task = Task(ready.label, command, log, self._is_wide(group), self._time_limit)
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
        """The jobs of one process, which so loads libraries and touches its memory once.

        A job and the one that goes on from it (`FOLLOWED_BY`), or tiny shared artifacts all together.
        """
        unfinished = [job for job in self._jobs.values() if job.label not in self.results]
        if self._one_process and first.kind in SHARED:
            return tuple(job for job in unfinished if job.kind in SHARED)
        settled = {*self.results, first.label}
        followers = (
            job
            for job in unfinished
            if job.kind == FOLLOWED_BY.get(first.kind)
            and first.label in job.needs.values()
            and settled.issuperset(job.needs.values())
        )
        return (first, *followers)

    def _is_wide(self, group: tuple[Job, ...]) -> bool:
        """Fixed by the settings, not by what is left to do: thread counts must not depend on the past."""
        return any(job.wide or (self._one_process and job.kind in SHARED) for job in group)

    # -------------------------------------------------------------------------------------------------------- what ends
    def _settle_finished(self) -> None:
        """Note what has finished in a process that goes on with another job: what needs it need not wait for that."""
        for group in self._running.values():
            for job in group[:-1]:
                if job.label not in self.results and is_finished(job.folder, job.identity):
                    self._finish(job)

    def _settle(self, outcome: Outcome) -> None:
        """Read from each folder of an ended process what became of its job."""
        for job in self._running.pop(outcome.name):
            if job.label in self.results:
                continue
            if is_finished(job.folder, job.identity):
                self._finish(job)
                continue
            self._give_up(job, "failed", failure_reason(outcome, read_status(job.folder) or {}))
            break  # the rest of the group never started: it is started again, or skipped for what it needs

    def _finish(self, job: Job) -> None:
        share(job)
        self.results[job.label] = Result("finished", seconds=_seconds(job.folder))
        self._display.event(job.label, "finished")

    def _give_up(self, job: Job, state: str, reason: str) -> None:
        """Keep why a job has no result, also in the sweep's own folders: a killed job could not say so itself."""
        seconds = _seconds(job.folder) if state == "failed" else None
        self.results[job.label] = Result(state, reason, seconds)
        self._display.event(job.label, f"{state}: {reason}")
        if job.folder == job.ledger:  # an artifact's folder in the cache may be in use by another sweep
            record_end(job.folder, job.identity, state, reason)

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
    """How long a job has worked, by its own record, which a change of the clock does not touch."""
    seconds = (read_status(folder) or {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
