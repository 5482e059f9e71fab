"""Whether a process that left a running status behind still lives. Reads files; a lock is tried for an instant only.

On the machine where it runs, the kernel knows: a living process holds its folder's lock, and the lock of a dead one is
free. From elsewhere there is the heartbeat: a living process writes its status every few seconds, whatever it does.
Clocks of two machines may differ and may be set, so an odd age is settled by looking twice: does the status move?
"""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.foreign import open_plain

HEARTBEAT_SECONDS = 5.0
QUIET_SECONDS = 4 * HEARTBEAT_SECONDS  # without a heartbeat for so long, something is wrong


@dataclass(frozen=True)
class Sign:
    """Whether it lives, and how that is known, for people."""

    alive: bool
    how: str


@dataclass(frozen=True)
class Process:
    """A process to look for.

    Attributes:
        read: reads its status anew: ``host`` and ``pid``, ``updated`` (its clock, ISO), ``seconds`` (since it began).
        lock: the file that it holds locked while it lives.
    """

    read: Callable[[], Mapping[str, Any] | None]
    lock: Path


def signs_of_life(processes: Sequence[Process], wait: float = QUIET_SECONDS) -> list[Sign]:
    """Whether the processes behind some running statuses live, in their order.

    Args:
        processes: where to look.
        wait: seconds to a second look at those whose lock and heartbeat cannot tell.
    """
    before = [process.read() or {} for process in processes]
    signs = [_first_look(status, process.lock) for status, process in zip(before, processes, strict=True)]
    if None in signs:
        time.sleep(wait)
    looked = zip(signs, before, processes, strict=True)
    return [sign or _second_look(status, process.read() or {}, wait) for sign, status, process in looked]


def _first_look(status: Mapping[str, Any], lock: Path) -> Sign | None:
    who = f"process {status.get('pid')} on {status.get('host')}"
    if status.get("host") == socket.gethostname() and (held := is_locked(lock)) is not None:
        return Sign(held, f"{who} holds its lock" if held else f"{who} is gone: nobody holds its lock")
    age = age_seconds(status)
    return Sign(True, f"{who}, heartbeat {age:.0f} s old") if age is not None and 0 <= age <= QUIET_SECONDS else None


def _second_look(before: Mapping[str, Any], after: Mapping[str, Any], wait: float) -> Sign:
    who = f"process {before.get('pid')} on {before.get('host')}"
    if after.get("seconds") != before.get("seconds"):
        return Sign(True, f"{who}, its heartbeat moves, though the clocks differ")
    return Sign(False, f"no heartbeat of {who} for {wait:.0f} s, the last at {before.get('updated')}")


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file; None if there is no such file or it cannot be locked here."""
    try:
        with open_plain(path) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError):
        return None
    return False


def age_seconds(status: Mapping[str, Any]) -> float | None:
    """Seconds since a status was written, by this machine's clock; None if it does not say when."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(status.get("updated")))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
