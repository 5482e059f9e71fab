"""One life of a driver: started by the same command, perhaps struck, watched to its end and to that of its jobs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.forked import start_driver
from tests.chaos.strikes import BOTH, INT_TWICE, JOB, SIGNALS, Orders, Size

LOOK_SECONDS = 0.01
ANY_TIME = "any time"
SECOND_CTRL_C = 2.0  # at the latest so long after the first
LIMIT_SECONDS = 600.0  # a life that takes longer hangs


@dataclass(frozen=True)
class Life:
    """What happened.

    Attributes:
        exit_code: of the driver; negative for a signal.
        strikes: the kind of each that reached a process, and before which file operation, or "any time".
        sizes: of the processes that came to their own end.
    """

    exit_code: int
    strikes: list[tuple[str, str]]
    sizes: dict[str, Size]


@dataclass
class _Process:
    """Held by a descriptor, so that no other is ever meant by its number."""

    descriptor: int
    strike_at: float | None = None

    def send(self, number: signal.Signals) -> bool:
        """Whether it was still there to get the signal."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def has_ended(self) -> bool:
        return bool(select.select([self.descriptor], [], [], 0)[0])


def live(
    overrides: Sequence[str],
    log: Path,
    kind: str | None,
    seed: str,
    sizes: dict[str, Size],
    wait_for_jobs: bool = True,
) -> Life:
    """Start the driver, strike, and wait until it has ended, and the jobs that a killed one leaves behind too.

    Raises:
        TimeoutError: it hangs.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    orders = Orders(kind, seed, write, sizes)
    with log.open("ab") as output:
        pid = start_driver(overrides, output, orders)
    os.close(write)
    watch = _Watch(orders, read, _Process(os.pidfd_open(pid)))
    try:
        watch.until(watch.driver.has_ended)
        _, status = os.waitpid(pid, 0)
        if wait_for_jobs:
            watch.until(lambda: all(job.has_ended() for job in watch.jobs))
    except BaseException:
        watch.kill()
        raise
    finally:
        watch.close()
    return Life(os.waitstatus_to_exitcode(status), watch.strikes, watch.sizes)


class _Watch:
    """A driver and its jobs, seen and struck from outside."""

    def __init__(self, orders: Orders, pipe: int, driver: _Process) -> None:
        self.driver, self.jobs = driver, list[_Process]()
        self.strikes: list[tuple[str, str]] = []
        self.sizes: dict[str, Size] = {}
        self._orders, self._pipe, self._unread = orders, pipe, b""
        self._random = random.Random(f"{orders.seed} second")
        self._second: float | None = None  # when Ctrl-C comes for the second time
        self._began = time.monotonic()
        if (seconds := orders.driver_order().seconds) is not None:
            driver.strike_at = self._began + seconds

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() - self._began > LIMIT_SECONDS:
                raise TimeoutError(f"nothing ends within {LIMIT_SECONDS:.0f} s")
            self._listen()
            self._strike()
            time.sleep(LOOK_SECONDS)
        self._listen()

    def kill(self) -> None:
        for process in (self.driver, *self.jobs):
            process.send(signal.SIGKILL)

    def close(self) -> None:
        for descriptor in (self._pipe, *(process.descriptor for process in (self.driver, *self.jobs))):
            os.close(descriptor)

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, 65536):
                self._unread += part
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, told: dict[str, Any]) -> None:
        if told["what"] == "job":
            with contextlib.suppress(ProcessLookupError):
                seconds = told["seconds"]
                at = None if seconds is None else time.monotonic() + seconds
                self.jobs.append(_Process(os.pidfd_open(told["pid"]), at))
        elif told["what"] == "struck":
            self._note(told["kind"], told["at"])
        else:
            self.sizes[told["name"]] = Size(told["events"], told["seconds"])

    def _note(self, kind: str, at: str) -> None:
        self.strikes.append((kind, at))
        if kind == INT_TWICE:
            self._second = time.monotonic() + self._random.uniform(0, SECOND_CTRL_C)

    def _strike(self) -> None:
        now = time.monotonic()
        for job in self.jobs:
            if job.strike_at is not None and now >= job.strike_at:
                job.strike_at = None
                if not job.has_ended() and job.send(signal.SIGKILL):
                    self._note(JOB, ANY_TIME)
        if self.driver.strike_at is not None and now >= self.driver.strike_at:
            self.driver.strike_at = None
            self._strike_driver(str(self._orders.kind))
        if self._second is not None and now >= self._second:
            self._second = None
            self.driver.send(signal.SIGINT)

    def _strike_driver(self, kind: str) -> None:
        if not self.driver.has_ended() and self.driver.send(SIGNALS[kind]):
            self._note(kind, ANY_TIME)
            for job in self.jobs if kind == BOTH else ():
                job.send(signal.SIGKILL)
