"""``driver.json`` in a sweep's folder: who runs the sweep, what became of its jobs, and the time left.

What a job does stands in the job's own status; here stands what only the driver knows. It is written when something
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

from runner.ledger.files import timestamp, write_json
from runner.ledger.reader import NUMBER, TEXT, has_types, read_small_json
from runner.ledger.requests import new_attempt
from runner.ledger.signs import HEARTBEAT_SECONDS

FILE = "driver.json"
NEWS_SECONDS = 1.0  # at least so long between two writings
MAX_SHARE_OF_TIME = 0.01  # … and no larger part of the driver's time than this

DRIVER: dict[str, tuple[type, ...]] = {  # the types of what others rely on in it
    "state": (str,),
    "attempt": (str,),
    "command": (str,),
    "where": (str,),
    "updated": (str,),
    "exit_code": (int, type(None)),
    "seconds": NUMBER,
    "seconds_left": (*NUMBER, type(None)),
    "jobs": (dict,),
}
TOLD: dict[str, tuple[type, ...]] = {  # … and of a job in it
    "state": (str,),
    "reason": TEXT,
    "seconds": (*NUMBER, type(None)),
    "folder": (str,),
}


class DriverFile:
    """Writes it, in one life of a driver."""

    def __init__(self, runs_dir: Path, command: str, where: str) -> None:
        """``command`` is what goes on with the sweep, ``where`` the engine in words. Raises OSError."""
        self._path = runs_dir / FILE
        self._began = self._written = time.monotonic()
        self._cost = 0.0
        self.attempt = new_attempt()
        self._content: dict[str, Any] = {
            "state": "running",
            "attempt": self.attempt,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command,
            "where": where,
            "started": timestamp(),
            "exit_code": None,
            "seconds_left": None,
            "jobs": {},
        }
        self._write()

    def update(self, jobs: Mapping[str, Mapping[str, Any]], seconds_left: float | None) -> None:
        """Keep the state of the jobs by label (those that wait are left out) and the estimate; written in time."""
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
        """The disk may be full for a while: that must end jobs that need it, not the driver."""
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        begin = time.monotonic()
        write_json(self._path, self._content | {"updated": timestamp(), "seconds": round(begin - self._began, 3)})
        self._written = time.monotonic()
        self._cost = self._written - begin


def read_driver(runs_dir: Path) -> dict[str, Any] | None:
    """What ``driver.json`` says, or None where there is none or it cannot be read."""
    driver = read_small_json(runs_dir / FILE)
    if driver is None or not has_types(driver, DRIVER, {"jobs": (dict,)}) or "jobs" not in driver:
        return None
    return driver if all(has_types(told, TOLD) for told in driver["jobs"].values()) else None
