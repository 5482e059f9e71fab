"""Who is struck, how, and when: drawn from a seed, at one of a process's file operations or at any time.

A process that is to be struck at a file operation kills itself right before it, with a real SIGKILL: between two
renames, with a file just made and still empty. Struck at a time, it is killed from outside, wherever it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

JOB, DRIVER, BOTH = "SIGKILL of a job", "SIGKILL of the driver", "SIGKILL of the driver and its jobs"
TERM, INT, INT_TWICE = "SIGTERM to the driver", "Ctrl-C", "Ctrl-C twice"
WEIGHTS = {
    JOB: 6,
    DRIVER: 3,
    BOTH: 2,
    TERM: 2,
    INT: 1,
    INT_TWICE: 2,
}  # of a driver's life; with JOB, several are struck
SIGNALS = {
    DRIVER: signal.SIGKILL,
    BOTH: signal.SIGKILL,
    TERM: signal.SIGTERM,
    INT: signal.SIGINT,
    INT_TWICE: signal.SIGINT,
}  # what the driver gets
SHARE_OF_LIFE = 1 / 5  # of an undisturbed driver: its latest strike
SHARE_OF_JOBS = 0.85  # struck in a life of kind JOB
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FILE_EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.truncate"}


@dataclass(frozen=True)
class Size:
    """Of an undisturbed process: what a moment is drawn from."""

    events: int
    seconds: float


@dataclass(frozen=True)
class Order:
    """When a process is struck: right before its n-th file operation, or after seconds; neither: not at all."""

    name: str
    event: int | None = None
    seconds: float | None = None


class _Counter:
    """File operations of this process, and what happens at one of them."""

    seen = 0
    at: int | None = None
    act: Callable[[str], None] = print


def watch_files() -> None:
    """Count file operations in this process and in all that are forked from it. Cannot be taken back."""
    sys.addaudithook(_count)


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event in FILE_EVENTS or (event == "open" and _writes(arguments)):
        _Counter.seen += 1
        if _Counter.seen == _Counter.at:
            _Counter.act(event)


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & WRITING) and arguments[0] != os.devnull


@dataclass
class Orders:
    """What happens in one life of a driver. Drawn here, carried out in the driver, in its jobs and from outside.

    Attributes:
        kind: a key of `WEIGHTS`, or None for an undisturbed life.
        seed: of every draw.
        pipe: where processes tell what happens, a JSON object a line.
        sizes: of undisturbed processes by name; "" is the driver.
        jobs: pids of the driver's jobs that it has not yet waited for, in the driver.
    """

    kind: str | None
    seed: str
    pipe: int
    sizes: dict[str, Size]
    jobs: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    # ------------------------------------------------------------------------------------------------------- the driver
    def driver_order(self) -> Order:
        """When the driver is struck: early in its life. Every life begins where the last one ended, so that the strikes
        fall everywhere in the sweep, and many of them."""
        if self.kind in {None, JOB}:
            return Order("")
        return _draw("", self.sizes[""], random.Random(f"{self.seed} driver"), SHARE_OF_LIFE)

    def begin_driver(self) -> Order:
        """In the driver: wait for the moment."""
        order = self.driver_order()
        self._begin(order, self._strike_driver)
        return order

    def _strike_driver(self, event: str) -> None:
        self.tell("struck", kind=self.kind, at=event)
        for pid in self.jobs if self.kind == BOTH else ():
            os.kill(pid, signal.SIGKILL)
        os.kill(os.getpid(), SIGNALS[str(self.kind)])

    # --------------------------------------------------------------------------------------------------------- its jobs
    def draw(self, folder: str) -> Order:
        """In the driver, for every job that starts."""
        name = name_of(folder)
        if self.kind != JOB or self._random.random() > SHARE_OF_JOBS:
            return Order(name)
        return _draw(name, self.sizes.get(name, _median(self.sizes)), self._random, 1)

    def begin_job(self, order: Order) -> None:
        """In the job."""
        self._begin(order, self._strike_job)
        self.tell("job", pid=os.getpid(), **asdict(order))

    def _strike_job(self, event: str) -> None:
        self.tell("struck", kind=JOB, at=event)
        os.killpg(0, signal.SIGKILL)  # this may be the analysis, which the report's job has started

    def _begin(self, order: Order, act: Callable[[str], None]) -> None:
        self._began = time.monotonic()
        _Counter.act, _Counter.seen, _Counter.at = act, 0, order.event

    def end(self, order: Order) -> None:
        """In a process that has come to its own end: how large it was."""
        self.tell("ended", name=order.name, events=_Counter.seen, seconds=time.monotonic() - self._began)

    def tell(self, what: str, **details: Any) -> None:
        """One line, in one piece; nobody listens any more to jobs that outlive their driver."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.pipe, json.dumps({"what": what, **details}).encode() + b"\n")


def name_of(folder: str) -> str:
    """A job's name, from its folder: the kind of an artifact, the arm and seed of all others."""
    parts = Path(folder).parts
    return parts[-2] if "artifacts" in parts else "/".join(parts[-2:])


def _draw(name: str, size: Size, source: random.Random, share: float) -> Order:
    """At a file operation or at a time, half and half."""
    if source.random() < 0.5:
        return Order(name, event=source.randint(1, max(1, int(share * size.events))))
    return Order(name, seconds=source.uniform(0, share * size.seconds))


def _median(sizes: dict[str, Size]) -> Size:
    return sorted(sizes.values(), key=lambda size: size.seconds)[len(sizes) // 2]
