"""What a sweep's own folder holds of a finished job, so that the folder explains itself."""

from __future__ import annotations

import filecmp
import shutil

from runner.ledger.reader import read_json
from runner.plan import Job


def mend_specification(job: Job) -> None:
    """Write a finished job's ``spec.json`` again where it is torn; the plan knows what stood in it."""
    try:
        torn = read_json(job.folder / "spec.json").get("identity") != job.identity
    except (OSError, ValueError):
        torn = True
    if torn:
        job.file.write(job.folder)


def share(job: Job) -> None:
    """Copy a shared artifact's record, without weights, into the sweep's folder, which so explains itself."""
    if job.folder == job.ledger or _is_shared(job):
        return
    unfinished = job.ledger.with_name(f".{job.ledger.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for path in job.folder.iterdir():
        if path.suffix in {".json", ".jsonl", ".txt"}:
            shutil.copy2(path, unfinished)
    if (job.folder / "samples").is_dir():
        shutil.copytree(job.folder / "samples", unfinished / "samples")
    shutil.rmtree(job.ledger, ignore_errors=True)
    unfinished.rename(job.ledger)


def _is_shared(job: Job) -> bool:
    """Whether the record in the sweep's folder is what the artifact's own folder holds."""
    records = [path for path in job.folder.glob("*.json*") if path.is_file()] + list(job.folder.glob("samples/*"))
    copies = [job.ledger / path.relative_to(job.folder) for path in records]
    return all(
        copy.is_file() and filecmp.cmp(path, copy, shallow=False) for path, copy in zip(records, copies, strict=True)
    )
