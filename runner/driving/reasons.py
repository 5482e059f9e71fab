"""Why a job did not finish, in words for a person."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path
from typing import Any

from runner.engines import Cause, Outcome

LITTLE_BYTES = 2**20  # a disk with less is full
CAUSES: dict[Cause, str] = {
    "time_limit": "ended by its time limit",
    "cancelled": "cancelled",
    "node_lost": "its node was lost",
    "preempted": "preempted by the cluster",
    "not_started": "could not be started",
    "out_of_memory": "killed by the system for want of memory",
    "no_word": "did not come to start the job, or to say how it ended",
}


def failure_reason(outcome: Outcome, status: dict[str, Any]) -> str:
    """Why a job did not finish, in one line: what the engine did or saw, and what the job itself said last."""
    code = outcome.exit_code
    if outcome.cause != "exited":
        return f"{CAUSES[outcome.cause]}: {outcome.detail}" if outcome.detail else CAUSES[outcome.cause]
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (often by the system, for want of memory)" if name == "SIGKILL" else "")
    if status.get("error") and (code == 1 or (code == 2 and status.get("state") == "failed")):
        return str(status["error"])
    return "interrupted" if code == 130 else f"exit code {code}; its log says more"


def full_disk(folder: Path) -> str:
    """Whether a job can have failed, and kept silent, for want of room."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        return f"; the disk is full there: {free} bytes are free" if free < LITTLE_BYTES else ""
    return ""
