"""Job arrays of Slurm, submitted through submitit; what became of them is read from our own files and from the queue.

A Slurm job starts the same command as every other engine and writes down how it ended (`slurm_job`). So neither the
accounting service nor submitit's pickled results are asked: without accounting, submitit never hears of a killed job.
Before an allocation ends, and after preemption or the loss of a node, the job is requeued under its number and goes on
from its last checkpoint. Jobs outlive a killed runner; the next one takes over what it finds in the queue.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from experiments import spec
from experiments.errors import InputError
from runner.engines import GIB, LATE_SECONDS, Outcome, Task
from runner.engines.slurm_job import SlurmJob, read_outcome
from runner.engines.slurm_queue import HELD, LOST, UNLISTED, Entry, ask, cancel_jobs, read_queue
from runner.ledger.files import write_json
from runner.ledger.reader import read_json

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
STOP_SECONDS = 60.0  # that cancelled jobs may take to leave the queue
NOTICE_SECONDS = 90  # before the end of an allocation, for the task to end and the job to be requeued
SPARE, SPARE_BYTES = 1.25, 2**29  # Slurm may kill at its limit: for chance, and for the process around the task


@dataclass
class _Job:
    """A task that Slurm has."""

    number: str  # "12", or "12_3" in an array
    outcome: Path  # where it says how it ended
    left: float | None = None  # when it was first seen to have left the queue


class SlurmEngine:
    """The jobs of one sweep."""

    late_seconds = LATE_SECONDS

    def __init__(self, settings: spec.SlurmEngine, folder: Path) -> None:
        self._settings = settings
        self._folder = folder / "slurm"
        self._waiting: list[Task] = []  # for the next array
        self._jobs: dict[str, _Job] = {}
        self._found: set[str] = set()  # in the queue when this runner came
        self._looked = -math.inf
        self._withdrawn: list[Outcome] = []  # cancelled before they were submitted, for the next `poll` to tell

    def describe(self) -> str:
        """Partition and each job's share."""
        its = self._settings
        where = f"Slurm's partition {its.partition}" if its.partition else "Slurm"
        share = f"CPUs each: {its.cpus_per_job}, GPUs: {its.gpus_per_job}"
        return f"at most {its.max_jobs} jobs at a time on {where}, {share}"

    def open(self) -> None:
        """Make sure that Slurm's programs are here, and that it would take such a job."""
        its = self._settings
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            raise InputError(
                f"engine=slurm: {', '.join(missing)} not found; start the sweep where Slurm's programs are"
            )
        share = self._share(its.memory_gib_per_job or its.memory_gib_at_first)
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in share.items()]
        try:
            ask("sbatch", "--test-only", *flags, "--wrap=true")
            self._found = {number for number, entry in read_queue().items() if not entry.has_left}
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
        told, self._withdrawn = self._withdrawn, []
        told += self._submit()
        if not self._jobs or time.monotonic() - self._looked < self._settings.poll_seconds:
            return told
        try:
            queue = read_queue()
        except (OSError, subprocess.SubprocessError):  # no answer is no news
            queue = None
        self._looked = time.monotonic()
        ended = [outcome for name, job in self._jobs.items() if (outcome := self._ended(name, job, queue))]
        for outcome in ended:
            del self._jobs[outcome.name]
        return told + ended

    def cancel(self, name: str) -> None:
        """Take it out of Slurm's queue, or off its node."""
        if name in self._jobs:
            cancel_jobs([self._jobs[name].number])
        elif tasks := [task for task in self._waiting if task.name == name]:
            self._no_longer_waiting(tasks)
            self._withdrawn.append(Outcome(name, None, "cancelled"))

    def stop(self) -> None:
        """Cancel every job, and wait until none is left in the queue."""
        self._waiting.clear()
        self._withdrawn.clear()
        numbers = {job.number for job in self._jobs.values()}
        self._jobs.clear()
        if not numbers:
            return
        cancel_jobs(sorted(numbers))
        deadline = time.monotonic() + STOP_SECONDS
        with contextlib.suppress(OSError, subprocess.SubprocessError, KeyboardInterrupt):
            while time.monotonic() < deadline and any(
                number in numbers and not entry.has_left for number, entry in read_queue().items()
            ):
                time.sleep(1)

    # ------------------------------------------------------------------------------------------------------ submitting
    def _memory_gib(self, task: Task) -> int:
        """As set; as measured (not done beside a GPU), with something to spare; else as for a first job of its kind."""
        its = self._settings
        if its.memory_gib_per_job is None and task.needed_bytes and not its.gpus_per_job:
            return math.ceil((task.needed_bytes * SPARE + SPARE_BYTES) / GIB)
        return its.memory_gib_per_job or its.memory_gib_at_first

    def _share(self, memory_gib: int) -> dict[str, Any]:
        """What each job asks for, in sbatch's words."""
        its = self._settings
        share = {
            "time": its.allocation_minutes,
            "cpus_per_task": its.cpus_per_job,
            "mem": f"{memory_gib}G",
            "gpus_per_node": its.gpus_per_job or None,
            "partition": its.partition,
            "account": its.account,
            "qos": its.qos,
        }
        return {key: value for key, value in share.items() if value is not None}

    def _submit(self) -> list[Outcome]:
        """Everything that waits, as one array for each size of memory. Returns the tasks that Slurm refused."""
        arrays: dict[int, list[Task]] = defaultdict(list)
        for task in self._waiting:
            arrays[self._memory_gib(task)].append(task)
        return [outcome for memory, tasks in arrays.items() for outcome in self._submit_array(tasks, memory)]

    def _submit_array(self, tasks: list[Task], memory_gib: int) -> list[Outcome]:
        executor = submitit.SlurmExecutor(self._folder, max_num_timeout=self._settings.max_restarts)
        executor.update_parameters(
            job_name=self._folder.parent.name,
            signal_delay_s=NOTICE_SECONDS,
            stderr_to_stdout=True,
            **self._share(memory_gib),
        )
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
                read_queue()
                self._no_longer_waiting(tasks)
                said = f"{_what_it_said(error)} (asked for {memory_gib} GiB of memory)"
                return [Outcome(task.name, None, "not_started", said) for task in tasks]
            return []  # the controller does not answer: the tasks go on waiting
        self._no_longer_waiting(tasks)
        for task, job, outcome in zip(tasks, submitted, outcomes, strict=True):
            self._jobs[task.name] = _Job(job.job_id, outcome)
            write_json(self._folder / f"job_{job.job_id}.json", {"command": task.command, "outcome": outcome.name})
        return []

    def _no_longer_waiting(self, tasks: list[Task]) -> None:
        self._waiting = [task for task in self._waiting if task not in tasks]

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
    def _ended(self, name: str, job: _Job, queue: dict[str, Entry] | None) -> Outcome | None:
        """How it ended, if it has: by its own word, or by what the queue says of a job that left no word."""
        if outcome := read_outcome(job.outcome):
            return replace(outcome, name=name)
        if queue is None:
            return None
        entry = queue.get(job.number, UNLISTED)
        if entry.reason == HELD:
            cancel_jobs([job.number])
            return Outcome(name, None, "not_started", f"Slurm job {job.number}: {HELD}")
        if not entry.has_left:
            job.left = None
            return None
        job.left = job.left or time.monotonic()
        if time.monotonic() - job.left < LATE_SECONDS and entry.state != "CANCELLED":
            return None
        return Outcome(
            name, None, LOST[entry.state], f"Slurm job {job.number}: {entry.state}, {entry.reason}; see {self._folder}"
        )


def _what_it_said(error: Exception) -> str:
    """The last line of a program's complaint."""
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().rpartition("\n")[2]
