"""Whether a process lives: by its lock on this machine, by its heartbeat on another."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from runner.ledger.signs import QUIET_SECONDS, Process, Sign, is_locked, signs_of_life


def status(seconds_ago: float, host: str = "elsewhere", seconds: float = 100.0) -> dict[str, Any]:
    updated = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"host": host, "pid": 7, "updated": updated.isoformat(), "seconds": seconds}


def sign(*readings: dict[str, Any] | None, lock: Path = Path("none")) -> Sign:
    """Of a process whose status reads so the first, the second … time."""
    values: Iterator[dict[str, Any] | None] = iter(readings)
    return signs_of_life([Process(lambda: next(values), lock)])[0]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("runner.ledger.signs.time.sleep", waits.append)
    return waits


def test_a_lock_is_seen_and_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "job.lock"
    assert is_locked(path) is None
    lock = FileLock(path)
    with lock:
        assert is_locked(path) is True
    assert is_locked(path) is False
    with lock.acquire(blocking=False):
        assert is_locked(path) is True


def test_on_this_machine_the_lock_decides_whatever_the_heartbeat_says(tmp_path: Path, slept: list[float]) -> None:
    path, here = tmp_path / "job.lock", socket.gethostname()
    with FileLock(path):
        assert sign(status(9999, here), lock=path) == Sign(True, f"process 7 on {here} holds its lock")
    assert not sign(status(0, here), lock=path).alive
    assert slept == []


def test_on_another_machine_a_fresh_heartbeat_is_life(slept: list[float]) -> None:
    assert sign(status(3)) == Sign(True, "process 7 on elsewhere, heartbeat 3 s old")
    assert slept == []


@pytest.mark.parametrize("seconds_ago", [QUIET_SECONDS + 1, 86_400, -3600])
def test_an_odd_age_is_settled_by_a_second_look(seconds_ago: float, slept: list[float]) -> None:
    """The heartbeat is old, or comes from the future: the process is dead, or a clock is wrong."""
    first = status(seconds_ago)
    assert sign(first, status(seconds_ago, seconds=105.0)).alive
    assert not sign(first, first).alive
    assert slept == [QUIET_SECONDS, QUIET_SECONDS]


def test_many_are_looked_at_in_one_wait(slept: list[float]) -> None:
    old = status(9999)
    assert [one.alive for one in signs_of_life([Process(lambda: old, Path("none"))] * 50)] == [False] * 50
    assert slept == [QUIET_SECONDS]


@pytest.mark.parametrize("torn", [None, {}, {"updated": "yesterday"}, {"updated": 7, "host": 3}])
def test_a_torn_status_is_no_life(torn: dict[str, Any] | None, slept: list[float]) -> None:
    assert not sign(torn, torn).alive
