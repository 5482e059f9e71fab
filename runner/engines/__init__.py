"""Engines start commands somewhere and say how they ended. They know nothing of arms, PPO or ledgers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PARENT_VARIABLE = "RUNNER_PARENT_PID"  # set for a process that must not outlive the one that started it


@dataclass(frozen=True)
class Task:
    """One process to start."""

    name: str
    command: tuple[str, ...]
    log: Path  # its output is appended here
    wide: bool = False  # wants the whole machine where there is no GPU


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    exit_code: int  # negative: ended by that signal


class Engine(Protocol):
    """What the runner asks of every engine."""

    def describe(self) -> str:
        """Where tasks run, in one line for people."""

    def can_take(self, task: Task) -> bool:
        """Whether ``task`` could start now."""

    def start(self, task: Task) -> None:
        """Start ``task``; ask `can_take` first."""

    def poll(self) -> list[Outcome]:
        """The tasks that have ended since the last call; returns at once."""

    def stop(self) -> None:
        """End everything that runs; returns when it has ended."""
