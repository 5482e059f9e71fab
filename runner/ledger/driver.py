"""``driver.json`` in a sweep's folder: who runs the sweep, what became of its jobs, and the time left.

A job's own status says what the job does. This file says what only the driver knows. It is written when something
happens, and as a heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from runner.ledger.files import timestamp, write_json
from runner.ledger.reader import Number, read_typed
from runner.ledger.requests import new_attempt
from runner.ledger.signs import HEARTBEAT_SECONDS

FILE = "driver.json"
NEWS_SECONDS = 1.0  # at least so long between two writings
MAX_SHARE_OF_TIME = 0.01  # of the driver's time, for writing this file


class JobNews(BaseModel):
    """What the driver says of a job that does not wait."""

    model_config = ConfigDict(strict=True)

    state: str = ""
    reason: str | None = None
    seconds: Number | None = None
    folder: str = ""


class Driver(BaseModel):
    """What ``driver.json`` says. Readers rely on these types and ignore other keys."""

    model_config = ConfigDict(strict=True)

    state: str = "running"
    attempt: str = ""
    pid: int | None = None
    host: str = ""
    command: str = Field(default="", description="what resumes the sweep")
    where: str = Field(default="", description="the engine in words")
    started: str = ""
    updated: str = ""
    seconds: Number = Field(default=0.0, description="since it started")
    exit_code: int | None = None
    seconds_left: Number | None = None
    jobs: dict[str, JobNews]


class DriverFile:
    """Writes it, in one life of a driver."""

    def __init__(self, runs_dir: Path, command: str, where: str) -> None:
        """``command`` resumes the sweep, and ``where`` is the engine in words. Raises OSError."""
        self._path = runs_dir / FILE
        self._began = self._written = time.monotonic()
        self._cost = 0.0
        self.attempt = new_attempt()
        self._content = Driver(
            attempt=self.attempt,
            pid=os.getpid(),
            host=socket.gethostname(),
            command=command,
            where=where,
            started=timestamp(),
            jobs={},
        ).model_dump()
        self._write()

    def update(self, jobs: Mapping[str, Mapping[str, Any]], seconds_left: float | None) -> None:
        """Keep the state by label of the jobs that do not wait, and the estimate. It is written when it is due."""
        news = self._content["jobs"] != jobs
        self._content |= {"jobs": dict(jobs), "seconds_left": seconds_left}
        least = max(NEWS_SECONDS if news else HEARTBEAT_SECONDS, self._cost / MAX_SHARE_OF_TIME)
        if time.monotonic() - self._written >= least:
            self._try_to_write()

    def end(self, jobs: Mapping[str, Mapping[str, Any]], exit_code: int) -> None:
        """The driver ends."""
        self._content |= {"state": "ended", "jobs": dict(jobs), "exit_code": exit_code, "seconds_left": None}
        self._try_to_write()

    def _try_to_write(self) -> None:
        """The disk may be full for a while. That must not end the driver."""
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        begin = time.monotonic()
        write_json(self._path, self._content | {"updated": timestamp(), "seconds": round(begin - self._began, 3)})
        self._written = time.monotonic()
        self._cost = self._written - begin


def read_driver(runs_dir: Path) -> dict[str, Any] | None:
    """What ``driver.json`` says, or None if it is missing or holds anything else."""
    return read_typed(runs_dir / FILE, Driver)
