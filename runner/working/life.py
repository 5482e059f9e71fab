"""The life of a job's process: it writes heartbeats, obeys requests to end, and does not outlive its engine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from runner.engines import PARENT_VARIABLE
from runner.ledger.requests import is_asked_to_end
from runner.ledger.writer import StatusFile

CHECK_SECONDS = 1.0
GRACE_SECONDS = 30.0
STOPPED = ("stopped", "on request")


@contextlib.contextmanager
def alive(folder: Path, status: StatusFile) -> Iterator[None]:
    """While the job works, a second thread writes heartbeats and looks for a request to end."""
    ended = threading.Event()
    threading.Thread(target=_live, args=(folder, status, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _live(folder: Path, status: StatusFile, ended: threading.Event) -> None:
    while not ended.wait(CHECK_SECONDS):
        if is_asked_to_end(folder, status.attempt):
            os.kill(os.getpid(), signal.SIGTERM)
            if not ended.wait(GRACE_SECONDS):  # the main thread is stuck and does not listen
                status.end(*STOPPED)
                os.killpg(os.getpgid(0), signal.SIGKILL)
        with contextlib.suppress(OSError):  # the disk is full: the next heartbeat tries again
            status.heartbeat()


def watch_parent() -> None:
    """End when the engine's process is gone, so that a killed driver leaves no training behind."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent:
        threading.Thread(target=_end_with_parent, args=(int(parent),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)
