"""Run the plan: start what is ready, skip what is finished, continue when an arm fails, and sum up."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.errors import InputError
from runner.driving.memory import learn, needed_bytes
from runner.driving.reasons import failure_reason, full_disk
from runner.driving.retention import Retention
from runner.driving.retry import DIVISOR, read_retry, retry_smaller
from runner.driving.sharing import mend_specification, share
from runner.engines import Engine, Outcome, Task
from runner.ledger.driver import DriverFile
from runner.ledger.reader import damaged_files, has_ended_well, is_finished, read_status, removed_points
from runner.ledger.requests import ask_job, driver_requests, forget_driver_requests, forget_job_request, is_asked_to_end
from runner.ledger.writer import record_end
from runner.planning.graph import Job, with_needs
from runner.planning.plan import Plan
from runner.planning.specifications import COMPARING
from runner.terminal import BAD_INPUT, FAILED, INTERRUPTED, OK, STOPPED, raise_interrupt
from runner.watching.display import Display, Row
from runner.watching.watch import ProgressMonitor, records

POLL_SECONDS = 0.2
LISTEN_SECONDS = 1.0  # between two looks for requests
LOCK_SECONDS = 1.0  # `runner.status` tries the lock for an instant
# Kind -> kind of the job that follows in the same process.
FOLLOWED_BY = {"measure": "ranking_data", "fresh_pairs": "arm", "arm": "evaluation"}
GOOD = {"finished", "reused"}
SMALLER = f"passes that are {DIVISOR} times smaller"
JOB_COMMAND = (sys.executable, "-m", "runner.job")


def execute(
    plan: Plan, engine: Engine, display: Display, command: Sequence[str] = JOB_COMMAND, again: str = "python -m runner"
) -> int:
    """Run a plan to its end.

    Args:
        plan: what to do.
        engine: what starts the jobs.
        display: what a person sees.
        command: what starts a job; the job's folders are appended.
        again: what a person types to resume this sweep.

    Returns:
        The exit code: 0 if everything finished, 1 if a job failed, 3 if none failed but some were stopped by
        `runner.stop`, 130 after Ctrl-C or a signal to end.

    Raises:
        InputError: another process works on this sweep, or its folder cannot be written.
    """
    lock = FileLock(plan.folder / "sweep.lock")
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise InputError(f"another `python -m runner` works in {plan.folder}; name=… chooses another folder") from None
    except OSError as error:
        raise _unwritable(plan, error) from None
    try:
        with _requests_to_end_as_ctrl_c():
            return _execute(plan, engine, display, command, again)
    finally:
        lock.release()


def _execute(plan: Plan, engine: Engine, display: Display, command: Sequence[str], again: str) -> int:
    try:
        plan.write()
        forget_driver_requests(plan.folder)
        driver = DriverFile(plan.folder, again, engine.describe())
    except OSError as error:
        raise _unwritable(plan, error) from None
    scheduler, code = Scheduler(plan, engine, display, driver, command), FAILED
    try:
        display.say(f"sweep {plan.name} in {plan.folder}: {engine.describe()}")
        engine.open()
        with display.watching():
            scheduler.run()
        code = exit_code(scheduler.results.values())
    except InputError:
        code = BAD_INPUT
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        display.say(f"\ninterrupted; ending the jobs. The same command resumes: {again}")
    except BrokenPipeError:  # the output went to a process that has ended
        code = INTERRUPTED
        raise
    finally:
        engine.stop()
        driver.end(records({}, scheduler.results), code)
    if code != INTERRUPTED:
        display.summary(plan, scheduler.results, again)
    return code


def _unwritable(plan: Plan, error: OSError) -> InputError:
    return InputError(f"{plan.folder} cannot be written ({error.strerror}); runs_dir=… chooses another place")


def exit_code(results: Iterable[Row]) -> int:
    """What the whole sweep's process ends with."""
    states = {result.state for result in results}
    if "failed" in states:
        return FAILED
    return STOPPED if "stopped" in states else OK


@contextlib.contextmanager
def _requests_to_end_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a closed terminal, end the jobs in the same way as Ctrl-C does."""
    handlers = {number: signal.signal(number, raise_interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Scheduler:
    """Decides when each job of a plan starts. ``results`` fills up until every job has one."""

    def __init__(
        self, plan: Plan, engine: Engine, display: Display, driver: DriverFile, command: Sequence[str]
    ) -> None:
        self.results: dict[str, Row] = {}
        self._jobs = {job.label: job for job in plan.jobs}
        self._one_process = plan.engine.artifacts_in_one_process
        minutes = plan.engine.time_limit_minutes
        self._time_limit = None if minutes is None else 60 * minutes
        self._engine = engine
        self._display = display
        self._retention = Retention(plan.jobs, plan.runs[0].keep_adapters)
        self._command = tuple(command)
        self._running: dict[str, tuple[Job, ...]] = {}
        self._watch = ProgressMonitor(display, driver)
        self._folder, self._attempt = plan.folder, driver.attempt
        self._obeyed: set[str | None] = set()
        self._stopping: set[str] = set()
        self._listened = float("-inf")
        self._awaiting_status: dict[str, tuple[Outcome, float]] = {}  # ended; deadline for their status files

    def run(self) -> None:
        """Until every job has a result."""
        self._reuse()
        while len(self.results) < len(self._jobs):
            self._skip()
            self._start()
            self._settle_finished()
            for outcome in self._ended():
                self._settle(outcome)
            self._obey()
            self._watch.look(self._jobs, self.results, self._working())
            time.sleep(POLL_SECONDS if self._running else 0)

    # ---------------------------------------------------------------------------------------------- what need not start
    def _reuse(self) -> None:
        """Take over what an earlier run has finished."""
        for job in self._jobs.values():
            if job.kind == "report" and not self.results.keys() >= set(job.needs.values()):
                continue  # what it is made from may change until its turn comes
            if is_finished(job.folder, job.identity) and not self._must_be_repeated(job):
                self._take("reused", job)
            elif has_ended_well(job.folder, job.identity) and (damage := damaged_files(job.folder)):
                what = "is made again" if job.kind == "report" else "is damaged and done again"
                self._display.event(job.label, f"had finished, but {what}: {'; '.join(damage)}")
        if self.results:
            self._display.say(f"finished before, and taken as it is: {', '.join(self.results)}")
        self._say_what_is_gone()
        self._prune()

    def _must_be_repeated(self, job: Job) -> bool:
        """Whether a finished job is of no use: an arm that can no longer be evaluated."""
        if job.kind == "arm" and self._retention.lacks_adapters(job):
            why = "its evaluation has to be made again, and keep_adapters=final has removed adapters that it reads"
            record_end(job.folder, job.identity, "interrupted", why)
            self._display.event(job.label, f"had finished, but is trained again: {why}")
            return True
        return False

    def _say_what_is_gone(self) -> None:
        """Tell a person who asks for all adapters which of them are gone."""
        arms = [job for job in self._jobs.values() if job.kind == "arm" and job.label in self.results]
        gone = {job.label: sorted(removed_points(job.folder)) for job in arms} if self._retention.keep == "all" else {}
        lines = [f"{label} (points {', '.join(map(str, points))})" for label, points in gone.items() if points]
        if lines:
            self._display.say(
                "keep_adapters=all, but an earlier keep_adapters=final has removed adapters, and nothing is trained "
                f"again for them: {'; '.join(lines)}"
            )

    def _prune(self, touching: Job | None = None) -> None:
        """Remove the adapters that nobody needs now. If the disk refuses, only room is lost."""
        good = {label for label, result in self.results.items() if result.state in GOOD}
        try:
            for label, points in self._retention.prune(good, touching).items():
                self._display.event(label, f"keeps no adapters of the points {', '.join(map(str, points))} any more")
        except OSError as error:
            self._display.event(touching.label if touching else "sweep", f"adapters could not be removed: {error}")

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
            main, gpu = (needed_bytes(group, device) for device in ("cpu", "gpu"))
            task = Task(ready.label, command, log, self._is_wide(group), self._time_limit, main, gpu)
            if not self._engine.can_take(task):
                return
            try:
                for job in group:
                    job.file.write(job.folder)
                    forget_job_request(job.folder)  # an old one must not excuse a new failure
                self._engine.start(task)
            except OSError as error:
                self._give_up(ready, "failed", f"could not be started: {error}")
                continue
            followers = ", ".join(job.label for job in group[1:])
            self._display.event(
                ready.label, f"started, followed in one process by {followers}" if followers else "started"
            )
            self._running[task.name] = group

    def _next(self) -> Job | None:
        """The first job that has neither started nor a result, and whose needs are all settled."""
        busy = {job.label for group in self._running.values() for job in group}
        for job in self._jobs.values():
            if job.label not in busy | set(self.results) and all(label in self.results for label in job.needs.values()):
                return self._with_finished_needs(job)
        return None

    def _with_finished_needs(self, job: Job) -> Job:
        """A comparison takes what has finished. Every other job has all its needs by now."""
        if job.kind in COMPARING:
            there = {label: self._jobs[label] for label, result in self.results.items() if result.state in GOOD}
            self._jobs[job.label] = job = with_needs(job, there)
        return job

    def _group(self, first: Job) -> tuple[Job, ...]:
        """The jobs of one process, which loads libraries and takes its memory once for all of them.

        These are a job and those that follow it (`FOLLOWED_BY`), or all the shared artifacts if they are tiny.
        """
        unfinished = [job for job in self._jobs.values() if job.label not in self.results]
        if self._one_process and first.shared:
            return tuple(job for job in unfinished if job.shared)
        group = [first]
        for job in unfinished:  # needs come first in a plan
            follows = job.kind == FOLLOWED_BY.get(group[-1].kind) and group[-1].label in job.needs.values()
            if follows and {*self.results, *(member.label for member in group)}.issuperset(job.needs.values()):
                group.append(job)
        return tuple(group)

    def _is_wide(self, group: tuple[Job, ...]) -> bool:
        """Fixed by the settings and not by what is left to do, since thread counts must not depend on the past."""
        return any(job.wide or (self._one_process and job.shared) for job in group)

    def _working(self) -> list[Job]:
        """Of each process the job that it works on now. Those that follow wait."""
        left = [[job for job in group if job.label not in self.results] for group in self._running.values()]
        return [jobs[0] for jobs in left if jobs]

    # -------------------------------------------------------------------------------------------------------- what ends
    def _settle_finished(self) -> None:
        """Note what has finished in a process that works on another job now, so that others need not wait for it."""
        for group in self._running.values():
            for job in group[:-1]:
                if job.label not in self.results and is_finished(job.folder, job.identity):
                    self._finish(job)

    def _ended(self) -> list[Outcome]:
        """The processes that have ended and whose status files are there, or can no longer be expected."""
        now = time.monotonic()
        for outcome in self._engine.poll():
            self._awaiting_status[outcome.name] = outcome, now + self._engine.late_seconds
        waiting = self._awaiting_status.values()
        ended = [outcome for outcome, deadline in waiting if now >= deadline or self._is_explained(outcome)]
        for outcome in ended:
            del self._awaiting_status[outcome.name]
        return ended

    def _is_explained(self, outcome: Outcome) -> bool:
        """Whether its jobs' files explain the end. Files of another machine may show up late."""
        if outcome.cause in {"cancelled", "not_started"}:
            return True
        left = [job for job in self._running[outcome.name] if job.label not in self.results]
        left = [job for job in left if not is_finished(job.folder, job.identity)]
        said = (read_status(left[0].folder) or {}).get("state", "running") if left else "finished"
        return not left or (outcome.exit_code != OK and said != "running")

    def _settle(self, outcome: Outcome) -> None:
        """Read from each folder of an ended process how its job ended.

        The first job that did not finish ended the process. Those after it never began, and are started or skipped.
        """
        group = self._running.pop(outcome.name)
        for job in group:
            if job.label not in self.results and is_finished(job.folder, job.identity):
                self._finish(job)
        left = [job for job in group if job.label not in self.results]
        stopped = [job for job in left if job.label in self._stopping or _was_asked(job)]
        for job in stopped:
            self._give_up(job, "stopped", "on request")
        if left and not stopped:
            if lack := retry_smaller(left[0], outcome):
                self._display.event(left[0].label, f"{lack}; it starts once more, with {SMALLER}")
            else:
                reason = failure_reason(outcome, read_status(left[0].folder) or {})
                self._give_up(left[0], "failed", f"{reason}{full_disk(left[0].folder)}")

    def _finish(self, job: Job) -> None:
        note = f"with {SMALLER}, after it had run out of memory" if read_retry(job.folder, job.identity) else ""
        if self._take("finished", job, note):
            self._display.event(job.label, f"finished {note}".strip())
            with contextlib.suppress(OSError):  # the disk is full: the next of its kind starts without knowing
                learn(job)
            self._prune(job)

    def _take(self, state: str, job: Job, note: str = "") -> bool:
        """Take a finished job as a result, and keep its record in the sweep's folder. Returns whether that worked."""
        try:
            mend_specification(job)
            share(job)
        except OSError as error:
            self._give_up(job, "failed", f"finished, but its record cannot be kept in {job.ledger}: {error.strerror}")
            return False
        self.results[job.label] = Row(job.label, state, note, _seconds(job.folder))
        return True

    def _give_up(self, job: Job, state: str, reason: str) -> None:
        """Keep why a job has no result, also in its folder, because a killed job could not say so itself."""
        seconds = None if state == "skipped" else _seconds(job.folder)
        self.results[job.label] = Row(job.label, state, reason, seconds)
        self._display.event(job.label, f"{state}: {reason}")
        # An artifact's folder in the cache may be in use by another sweep; what has finished stays so.
        if not job.shared and not is_finished(job.folder, job.identity):
            with contextlib.suppress(OSError):
                record_end(job.folder, job.identity, state, reason)

    # ------------------------------------------------------------------------------------------------ what is asked for
    def _obey(self) -> None:
        """Stop what `runner.stop` asks to stop."""
        if time.monotonic() - self._listened < LISTEN_SECONDS:
            return
        self._listened = time.monotonic()
        for arm in driver_requests(self._folder, self._attempt):
            if arm not in self._obeyed:
                self._obeyed.add(arm)
                self._display.event(arm or "sweep", "is stopped on request")
                for job in self._asked(arm):
                    self._stop(job)

    def _asked(self, arm: str | None) -> list[Job]:
        """The jobs to stop: all that have no result or, of an arm, those that wait for no other of its jobs."""
        left = {label: job for label, job in self._jobs.items() if label not in self.results}
        if arm is None:
            return list(left.values())
        own = {label: job for label, job in left.items() if belongs(label, arm)}
        return [job for job in own.values() if not own.keys() & set(job.needs.values())]

    def _stop(self, job: Job) -> None:
        """End a job that runs; one that waits never starts."""
        task = next((name for name, group in self._running.items() if job in group), None)
        if task is None:
            self._give_up(job, "stopped", "on request")
            return
        self._stopping.add(job.label)
        status = read_status(job.folder) or {}
        if status.get("state") == "running":
            ask_job(job.folder, str(status.get("attempt")))  # so that it knows why, and on any engine
        self._engine.cancel(task)


def belongs(label: str, arm: str) -> bool:
    """Whether a job is one of an arm's, or of one of its seeds."""
    return label == arm or label.startswith(f"{arm}/")


def _was_asked(job: Job) -> bool:
    """Whether the job itself was asked to end, in the attempt that it wrote of last."""
    return is_asked_to_end(job.folder, str((read_status(job.folder) or {}).get("attempt")))


def _seconds(folder: Path) -> float | None:
    """How long a job has worked, by its own record, which a change of the clock does not touch."""
    seconds = (read_status(folder) or {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None
