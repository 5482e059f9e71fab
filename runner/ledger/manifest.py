"""Which files a report was made from, each with its SHA-256: what ties a report to its ledger.

The manifest is ``ledger_manifest.json`` beside report.json. Its own SHA-256 is "the SHA-256 of the ledger", which
report.json and every signature cite. `analysis.ledger.manifest` adds digests of single rows, which name what changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.foreign import open_plain, parse_json
from runner.ledger.reader import read_json, read_status

MANIFEST = "ledger_manifest.json"
RECORDS = ("*.json", "*.jsonl", "*.parquet", "*/*.parquet")  # of a job's folder; weights, logs and caches are no ledger


@dataclass(frozen=True)
class FileHash:
    """One file: SHA-256 of its bytes, and the digests of its rows one after the other (empty if it has no rows)."""

    sha256: str
    rows: str = ""


@dataclass(frozen=True)
class Manifest:
    """Path relative to the sweep's folder -> the file's hash."""

    files: Mapping[str, FileHash]

    @property
    def text(self) -> str:
        """The content of ``ledger_manifest.json``."""
        files = {path: asdict(file) for path, file in sorted(self.files.items())}
        return json.dumps({"files": files}, indent=1) + "\n"

    @property
    def sha256(self) -> str:
        """Of that content."""
        return sha256(self.text.encode())


def sha256(content: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, which is read in pieces."""
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(content: bytes) -> Manifest:
    """The manifest in the bytes of a file.

    Raises:
        ValueError: they hold something else.
    """
    try:
        files = parse_json(content)["files"]
        return Manifest({str(path): FileHash(str(file["sha256"]), str(file["rows"])) for path, file in files.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{MANIFEST} is not a list of files and hashes") from None


def is_inside(path: str) -> bool:
    """Whether a relative path stays in the folder that it is relative to."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts


def ledger_files(runs_dir: Path, plan: Mapping[str, Any]) -> list[str]:
    """What a report of a sweep reads: plan.json, the records of finished jobs, the status of the others.

    Args:
        runs_dir: the sweep's folder.
        plan: its plan.json.

    Returns:
        Paths relative to that folder, in order.
    """
    folders = [*plan["shared"].values()]
    folders += [arm[key] for arm in plan["arms"] for key in ("folder", "evaluation")]
    folders += [job["folder"] for job in plan["jobs"] if job["kind"] != "report"]
    files = {runs_dir / "plan.json"}
    for folder in dict.fromkeys(filter(is_inside, folders)):
        files.update(_records(runs_dir / folder))
    return sorted(path.relative_to(runs_dir).as_posix() for path in files)


def ledger_files_now(runs_dir: Path) -> list[str]:
    """The files that a report made now would read; none if the plan has become unreadable."""
    try:
        return ledger_files(runs_dir, read_json(runs_dir / "plan.json"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def changed_files(recorded: Manifest, runs_dir: Path) -> list[str]:
    """The files of the ledger that are not as they were recorded, new and lost ones included.

    Args:
        recorded: the files when the report was made.
        runs_dir: the sweep's folder as it is now.
    """
    now = set(ledger_files_now(runs_dir))
    return sorted(path for path in now | set(recorded.files) if path not in now or _differs(recorded, runs_dir, path))


def _differs(recorded: Manifest, runs_dir: Path, path: str) -> bool:
    there = recorded.files.get(path)
    try:
        return there is None or file_sha256(runs_dir / path) != there.sha256
    except (OSError, ValueError):
        return True


def _records(folder: Path) -> Iterator[Path]:
    """All that a finished job has recorded; of another one, only the status that says why it was left out."""
    finished = (read_status(folder) or {}).get("state") == "finished"
    for pattern in RECORDS if finished else ("status.json",):
        yield from (path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))
