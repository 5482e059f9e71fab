"""A job's folder while it works: one process at a time, its output in the log, no leftovers of a failed attempt."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from experiments.foreign import append_plain
from experiments.records import RESUME_FOLDER
from runner.ledger.files import timestamp
from runner.ledger.reader import PREFERENCES, read_metrics

CHECKPOINTS = f"*{RESUME_FOLDER}*"
LEFTOVERS = (  # what an attempt appends to or adds to; the log is kept
    "metrics.jsonl",
    "samples",
    "adapters",
    PREFERENCES,
)


def is_readable(folder: Path) -> bool:
    """Whether the rows of an earlier attempt are whole. The last may be torn, because the job was killed."""
    try:
        read_metrics(folder)
    except (OSError, ValueError) as error:
        print(f"{error}; it starts over", flush=True)
        return False
    return True


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from, or a part of one."""
    return any(folder.glob(CHECKPOINTS))


def clear(folder: Path) -> None:
    """Remove what a half-finished attempt left, its checkpoints included."""
    for path in [*folder.glob(CHECKPOINTS), *(folder / name for name in LEFTOVERS)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. If two sweeps ask for one artifact, the second waits and then finds it finished."""
    lock = FileLock(folder / "job.lock")
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        print(f"--- {timestamp()} another process works in {folder}; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Send the output of this process and its children to the folder's log. On a terminal, it stays there."""
    if sys.stdout.isatty():
        yield
        return
    with append_plain(folder / "log.txt") as log:
        before = [os.dup(1), os.dup(2)]
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        for number, old in enumerate(before, start=1):
            (sys.stdout, sys.stderr)[number - 1].flush()
            os.dup2(old, number)
            os.close(old)
