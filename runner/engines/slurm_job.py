"""What a Slurm job does on its node: run the task, write down how it ended, and be requeued when its time is up."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from submitit.core.utils import DelayedSubmission, UncompletedJobError

from runner.engines import LATE_SECONDS, PATIENCE_VARIABLE, Outcome, Task
from runner.engines.process import Process, slot_environment
from runner.ledger.files import write_json
from runner.ledger.reader import read_json

TIME_IS_UP = signal.SIGUSR2  # submitit asks Slurm for it shortly before the end of the allocation


class SlurmJob:
    """A callable for submitit, which pickles it and calls `checkpoint` when the allocation is about to end."""

    def __init__(self, task: Task, outcome: Path, threads: int, gpus: int) -> None:
        self._task = task
        self._outcome = outcome
        self._threads = threads
        self._gpus = gpus
        self._process: Process | None = None
        self._taken_away = False

    def __call__(self) -> None:
        """Work to the end. Where Slurm takes the node away, nothing is written: the queue knows what comes next."""
        signal.signal(signal.SIGTERM, self._end)
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._gpus else ""
        environment = slot_environment(os.environ, device, self._threads) | {PATIENCE_VARIABLE: str(LATE_SECONDS)}
        signal.pthread_sigmask(signal.SIG_BLOCK, {TIME_IS_UP})  # inherited: Slurm may send it to the whole job
        self._process = Process(self._task, environment)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {TIME_IS_UP})
            outcome = self._process.wait()
        except UncompletedJobError as error:  # by submitit, after too many allocations; the task has ended
            outcome = Outcome(self._task.name, None, "preempted", str(error))
        if not self._taken_away:
            write_json(self._outcome, asdict(outcome))

    def checkpoint(self) -> DelayedSubmission:
        """End the task, which goes on from its last checkpoint in the next allocation."""
        if self._process:
            self._process.end("preempted")
            self._process.wait()
        return DelayedSubmission(SlurmJob(self._task, self._outcome, self._threads, self._gpus))

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._taken_away = True
        if self._process:
            self._process.end("preempted")


def read_outcome(path: Path) -> Outcome | None:
    """What a job has written, or nothing while there is nothing."""
    try:
        return Outcome(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None
