"""Slurm's queue, asked through its own programs: who waits, who works, and how those that left it ended."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from runner.engines import Cause

QUEUE = ("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i|%T|%r")
ANSWER_SECONDS = 60.0  # that one question to the controller may take
HELD = "launch failed requeued held"  # Slurm waits for an administrator
# How a job can have left the queue without having said how it ended. Every other state still has a future.
LOST: dict[str, Cause] = {
    "BOOT_FAIL": "node_lost",
    "CANCELLED": "cancelled",
    "COMPLETED": "no_word",
    "DEADLINE": "time_limit",
    "FAILED": "no_word",
    "NODE_FAIL": "node_lost",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
    "TIMEOUT": "time_limit",
    "UNLISTED": "node_lost",
}


@dataclass(frozen=True)
class Entry:
    """A line of the queue."""

    state: str
    reason: str

    @property
    def has_left(self) -> bool:
        """Whether the job will not work any more."""
        return self.state in LOST


UNLISTED = Entry("UNLISTED", "no longer in Slurm's queue")


def read_queue() -> dict[str, Entry]:
    """The user's jobs, those lately ended included, by number.

    Raises:
        OSError: `squeue` cannot be started.
        subprocess.SubprocessError: the controller does not answer.
    """
    lines = [line.split("|", 2) for line in ask(*QUEUE).splitlines()]
    return {number: Entry(state, reason) for number, state, reason in lines}


def cancel_jobs(numbers: Sequence[str]) -> None:
    """Ask for the end of jobs; of one that has ended by itself, nobody is told."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask("scancel", *numbers)


def ask(*command: str) -> str:
    """What one of Slurm's programs prints. Raises as `read_queue`."""
    return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True).stdout
