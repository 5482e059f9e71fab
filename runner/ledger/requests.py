"""Requests to end, as files, so that they reach any machine that shares the folder.

``RUNS_DIR/.stop/*.json`` asks a sweep's driver, and ``stop.request`` in a job's folder asks the job itself. A request
names one attempt by its random id. So an old one never ends a later attempt, whatever the clocks say.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from runner.ledger.files import write_json
from runner.ledger.reader import read_small_json

SWEEP_REQUESTS = ".stop"
JOB_REQUEST = "stop.request"


def new_attempt() -> str:
    """The id of one life of a process."""
    return uuid.uuid4().hex


def ask_driver(runs_dir: Path, attempt: str, arm: str | None) -> None:
    """Leave a request for the driver of a sweep."""
    folder = runs_dir / SWEEP_REQUESTS
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{new_attempt()}.json", {"attempt": attempt, "arm": arm})


def driver_requests(runs_dir: Path, attempt: str) -> list[str | None]:
    """What this driver is asked to end: an arm, one seed of it ("ppo/seed0"), or None for the whole sweep.

    Files that are torn or hold anything else are ignored.
    """
    found = []
    for path in sorted((runs_dir / SWEEP_REQUESTS).glob("*.json")):
        content = read_small_json(path) or {}
        arm = content.get("arm")
        if content.get("attempt") == attempt and (arm is None or isinstance(arm, str)):
            found.append(arm)
    return found


def forget_driver_requests(runs_dir: Path) -> None:
    """Remove what earlier drivers were asked."""
    shutil.rmtree(runs_dir / SWEEP_REQUESTS, ignore_errors=True)


def ask_job(folder: Path, attempt: str) -> None:
    """Leave a request for the job that works in a folder."""
    write_json(folder / JOB_REQUEST, {"attempt": attempt})


def forget_job_request(folder: Path) -> None:
    """Remove what an earlier attempt was asked."""
    (folder / JOB_REQUEST).unlink(missing_ok=True)


def is_asked_to_end(folder: Path, attempt: str) -> bool:
    """Whether the job in a folder, in this attempt, has been asked to end."""
    return (read_small_json(folder / JOB_REQUEST) or {}).get("attempt") == attempt
