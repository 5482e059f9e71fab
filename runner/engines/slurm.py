"""Job arrays of Slurm, submitted through submitit; what became of them is read from our own files and from the queue.

A Slurm job starts the same command as every other engine and writes down how it ended (`slurm_job`). So neither the
accounting service nor submitit's pickled results are asked: without accounting, submitit never hears of a killed job.
Before an allocation ends, and after preemption or the loss of a node, the job is requeued under its number and goes on
from its last checkpoint. Jobs outlive a killed runner; the next one takes over what it finds in the queue.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from experiments import spec
from experiments.errors import InputError
from runner.engines import LATE_SECONDS, Cause, Outcome, Task
from runner.engines.slurm_job import SlurmJob, read_outcome
from runner.ledger.files import write_json
from runner.ledger.reader import read_json

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
QUEUE = ("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i|%T|%r")
ANSWER_SECONDS = 60.0  # that one question to the controller may take
STOP_SECONDS = 60.0  # that cancelled jobs may take to leave the queue
NOTICE_SECONDS = 90  # before the end of an allocation, for the task to end and the job to be requeued
HELD = "launch failed requeued held"  # Slurm waits for an administrator
# How a job can have left the queue without having said how it ended. Every other state still has a future.
LOST: dict[str, tuple[int | None, Cause]] = {
    "BOOT_FAIL": (None, "node_lost"),
    "CANCELLED": (None, "cancelled"),
    "COMPLETED": (None, "no_word"),
    "DEADLINE": (None, "time_limit"),
    "FAILED": (None, "no_word"),
    "NODE_FAIL": (None, "node_lost"),
    "OUT_OF_MEMORY": (None, "out_of_memory"),
    "PREEMPTED": (None, "preempted"),
    "REVOKED": (None, "cancelled"),
    "TIMEOUT": (None, "time_limit"),
    "UNLISTED": (None, "node_lost"),
}


@dataclass
class _Job:
    """A task that Slurm has."""

    number: str  # "12", or "12_3" in an array
    outcome: Path  # where it says how it ended
    left: float | None = None  # when it was first seen to have left the queue


@dataclass(frozen=True)
class _Entry:
    """A line of the queue."""

    state: str
    reason: str


class SlurmEngine:
    """The jobs of one sweep."""

    late_seconds = LATE_SECONDS

    def __init__(self, settings: spec.SlurmEngine, folder: Path) -> None:
        self._settings = settings
        self._folder = folder / "slurm"
        self._waiting: list[Task] = []  # for the next array
        self._jobs: dict[str, _Job] = {}
        self._queue: dict[str, _Entry] = {}
        self._found: set[str] = set()  # in the queue when this runner came
        self._looked = -ANSWER_SECONDS

    def describe(self) -> str:
        """Partition and each job's share."""
        its = self._settings
        where = f"Slurm's partition {its.partition}" if its.partition else "Slurm"
        share = f"CPUs each: {its.cpus_per_job}, GPUs: {its.gpus_per_job}"
        return f"at most {its.max_jobs} jobs at a time on {where}, {share}"

    def open(self) -> None:
        """Make sure that Slurm's programs are here, and that it would take such a job."""
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            raise InputError(
                f"engine=slurm: {', '.join(missing)} not found; start the sweep where Slurm's programs are"
            )
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in self._share().items()]
        try:
            _ask("sbatch", "--test-only", *flags, "--wrap=true")
            self._found = {number for number, entry in _read_queue().items() if entry.state not in LOST}
        except (OSError, subprocess.SubprocessError) as error:
            raise InputError(f"engine=slurm: {_what_it_said(error)}") from None
        self._folder.mkdir(parents=True, exist_ok=True)

    def can_take(self, task: Task) -> bool:
        """Whether fewer than `max_jobs` are with Slurm."""
        return len(self._waiting) + len(self._jobs) < self._settings.max_jobs

    def start(self, task: Task) -> None:
        """Take over the job that a killed runner left in the queue, or let the next `poll` submit a new one."""
        if left := self._left_behind(task):
            self._jobs[task.name] = left
        else:
            self._waiting.append(task)

    def poll(self) -> list[Outcome]:
        """Submit what waits, and look at files and queue, at most every `poll_seconds`."""
        refused = self._submit() if self._waiting else []
        if not self._jobs or time.monotonic() - self._looked < self._settings.poll_seconds:
            return refused
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # no answer is no news
            self._queue = _read_queue()
        self._looked = time.monotonic()
        ended = [outcome for name, job in self._jobs.items() if (outcome := self._ended(name, job))]
        for outcome in ended:
            del self._jobs[outcome.name]
        return refused + ended

    def cancel(self, name: str) -> None:
        """Take it out of Slurm's queue, or off its node."""
        self._waiting, mine = [task for task in self._waiting if task.name != name], self._jobs.get(name)
        if mine:
            _cancel([mine.number])

    def stop(self) -> None:
        """Cancel every job, and wait until none is left in the queue."""
        self._waiting.clear()
        numbers = {job.number for job in self._jobs.values()}
        self._jobs.clear()
        if not numbers:
            return
        _cancel(sorted(numbers))
        deadline = time.monotonic() + STOP_SECONDS
        with contextlib.suppress(OSError, subprocess.SubprocessError, KeyboardInterrupt):
            while time.monotonic() < deadline and any(
                number in numbers and entry.state not in LOST for number, entry in _read_queue().items()
            ):
                time.sleep(1)

    # ------------------------------------------------------------------------------------------------------ submitting
    def _share(self) -> dict[str, Any]:
        """What each job asks for, in sbatch's words."""
        its = self._settings
        share = {
            "time": its.allocation_minutes,
            "cpus_per_task": its.cpus_per_job,
            "mem": f"{its.memory_gib_per_job}G",
            "gpus_per_node": its.gpus_per_job or None,
            "partition": its.partition,
            "account": its.account,
            "qos": its.qos,
        }
        return {key: value for key, value in share.items() if value is not None}

    def _submit(self) -> list[Outcome]:
        """Everything that waits, as one array. Returns the tasks that Slurm refused."""
        executor = submitit.SlurmExecutor(self._folder, max_num_timeout=self._settings.max_restarts)
        executor.update_parameters(
            job_name=self._folder.parent.name, signal_delay_s=NOTICE_SECONDS, stderr_to_stdout=True, **self._share()
        )
        tasks = self._waiting
        outcomes = [self._folder / f"{uuid.uuid4().hex}.json" for _ in tasks]
        its = self._settings
        try:
            with executor.batch():
                submitted = [
                    executor.submit(SlurmJob(task, outcome, its.cpus_per_job, its.gpus_per_job))
                    for task, outcome in zip(tasks, outcomes, strict=True)
                ]
        except (FailedJobError, FailedSubmissionError) as error:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                _read_queue()
                self._waiting = []
                return [Outcome(task.name, None, "not_started", _what_it_said(error)) for task in tasks]
            return []  # the controller does not answer: the tasks go on waiting
        self._waiting = []
        for task, job, outcome in zip(tasks, submitted, outcomes, strict=True):
            self._jobs[task.name] = _Job(job.job_id, outcome)
            write_json(self._folder / f"job_{job.job_id}.json", {"command": task.command, "outcome": outcome.name})
        return []

    def _left_behind(self, task: Task) -> _Job | None:
        """A job in the queue that does all of the task's work, perhaps with more before it that has finished."""
        for number in self._found:
            try:
                there = read_json(self._folder / f"job_{number}.json")
                job = _Job(number, self._folder / Path(there["outcome"]).name)
                does_it = set(task.command) <= set(there["command"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # of another sweep
            if does_it and not read_outcome(job.outcome):
                return job
        return None

    # --------------------------------------------------------------------------------------------------------- looking
    def _ended(self, name: str, job: _Job) -> Outcome | None:
        """How it ended, if it has: by its own word, or by what the queue says of a job that left no word."""
        if outcome := read_outcome(job.outcome):
            return replace(outcome, name=name)
        entry = self._queue.get(job.number, _Entry("UNLISTED", "no longer in Slurm's queue"))
        if entry.reason == HELD:
            _cancel([job.number])
            return Outcome(name, None, "not_started", f"Slurm job {job.number}: {HELD}")
        if entry.state not in LOST:
            job.left = None
            return None
        job.left = job.left or time.monotonic()
        if time.monotonic() - job.left < LATE_SECONDS and entry.state != "CANCELLED":
            return None
        code, cause = LOST[entry.state]
        return Outcome(name, code, cause, f"Slurm job {job.number}: {entry.state}, {entry.reason}; see {self._folder}")


def _read_queue() -> dict[str, _Entry]:
    """The user's jobs, those lately ended included, by number."""
    lines = [line.split("|", 2) for line in _ask(*QUEUE).splitlines()]
    return {number: _Entry(state, reason) for number, state, reason in lines}


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True).stdout


def _cancel(numbers: list[str]) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # it may have ended by itself
        _ask("scancel", *numbers)


def _what_it_said(error: Exception) -> str:
    """The last line of a program's complaint."""
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().rpartition("\n")[2]
