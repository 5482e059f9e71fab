"""What a sweep's own folder holds of a finished job, so that the folder explains itself."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from runner.ledger.reader import read_small_json
from runner.planning.graph import Job


def mend_specification(job: Job) -> None:
    """Write a finished job's ``spec.json`` again if it is torn. The plan knows its content."""
    if (read_small_json(job.folder / "spec.json") or {}).get("identity") != job.identity:
        job.file.write(job.folder)


def share(job: Job) -> None:
    """Copy a shared artifact's record, without weights, into the sweep's folder."""
    if not job.shared or _is_copied(job):
        return
    unfinished = job.ledger.with_name(f".{job.ledger.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for path in job.folder.iterdir():
        if path.suffix in {".json", ".jsonl", ".txt"} and _is_plain(path):
            shutil.copy2(path, unfinished)
    for path in filter(_is_plain, job.folder.glob("samples/*")):
        (unfinished / "samples").mkdir(exist_ok=True)
        shutil.copy2(path, unfinished / "samples")
    shutil.rmtree(job.ledger, ignore_errors=True)
    unfinished.rename(job.ledger)


def _is_copied(job: Job) -> bool:
    """Whether the record in the sweep's folder is what the artifact's own folder holds."""
    records = [*filter(_is_plain, job.folder.glob("*.json*")), *filter(_is_plain, job.folder.glob("samples/*"))]
    copies = [job.ledger / path.relative_to(job.folder) for path in records]
    return all(
        _is_plain(copy) and filecmp.cmp(path, copy, shallow=False) for path, copy in zip(records, copies, strict=True)
    )


def _is_plain(path: Path) -> bool:
    """Whether it is a file and no link, since others may write to the cache."""
    return path.is_file() and not path.is_symlink()
