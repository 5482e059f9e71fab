"""Engines start commands somewhere and say how they ended. They know nothing of arms, PPO or ledgers.

One protocol, three engines: `local` (this machine), `ray` (a Ray cluster), `slurm` (Slurm, through submitit). All start
the same command with the same environment, a log, and a device of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from experiments import spec
from experiments.errors import InputError

GIB = 2**30
LATE_SECONDS = 20.0  # by which a file of another machine shows up here: network shares cache what they list
PATIENCE_VARIABLE = "RUNNER_PATIENCE_SECONDS"  # set for a process that may see the files it needs only so late
PARENT_VARIABLE = "RUNNER_PARENT_PID"  # set for a process that must not outlive the one that started it
Cause = Literal[
    "exited", "time_limit", "cancelled", "node_lost", "preempted", "not_started", "no_word", "out_of_memory"
]


@dataclass(frozen=True)
class Task:
    """One process to start."""

    name: str
    command: tuple[str, ...]
    log: Path  # its output is appended here
    wide: bool = False  # wants the whole machine where there is no GPU; a cluster gives every task the same share
    time_limit_seconds: float | None = None  # of work, not of waiting for a place
    needed_bytes: int = 0  # main memory it will take where there is no GPU; 0 where nobody knows
    needed_gpu_bytes: int = 0  # memory it will take of a GPU


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    exit_code: int | None  # negative: ended by that signal; None where the engine could not see it
    cause: Cause = "exited"  # anything else: the engine ended the task, or lost it
    detail: str = ""  # what the cluster said, one line


class Engine(Protocol):
    """What the runner asks of every engine.

    Attributes:
        late_seconds: how long what a task wrote may take to show up here; 0 where tasks run on this machine.
    """

    late_seconds: float

    def describe(self) -> str:
        """Where tasks run, in one line for people; needs no `open`."""

    def open(self) -> None:
        """Get ready to start tasks: connect, and check that they can work here.

        Raises:
            InputError: says what is missing.
        """

    def can_take(self, task: Task) -> bool:
        """Whether ``task`` could start now."""

    def start(self, task: Task) -> None:
        """Start ``task``; ask `can_take` first. A cluster may let it wait for a place."""

    def poll(self) -> list[Outcome]:
        """The tasks that have ended since the last call; returns at once."""

    def cancel(self, name: str) -> None:
        """Ask one task to end; returns at once, and `poll` tells when it has. Unknown names are ignored."""

    def stop(self) -> None:
        """End everything that runs; returns when it has ended. `open` makes the engine usable again."""


def make_engine(settings: spec.Engine, folder: Path) -> Engine:
    """The engine that was chosen; it starts nothing before `Engine.open`.

    Args:
        settings: ``engine.…`` of the configuration.
        folder: the sweep's, which on a cluster every node must see; an engine keeps its own files in it.

    Raises:
        InputError: the engine's libraries are not installed.
    """
    # Imported here: the engines import this module, and two of them need what may not be installed.
    try:
        if settings.kind == "ray":
            from runner.engines.ray import RayEngine

            return RayEngine(settings, folder)
        if settings.kind == "slurm":
            from runner.engines.slurm import SlurmEngine

            return SlurmEngine(settings, folder)
    except ImportError as error:
        kind = settings.kind
        raise InputError(f"engine={kind} needs more: pip install -c constraints.txt -e '.[{kind}]' ({error})") from None
    from runner.engines.local import make_local_engine

    return make_local_engine(settings)
