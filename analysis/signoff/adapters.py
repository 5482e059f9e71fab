"""The weights that a report is about: the files of every finished arm's final adapter, each with its full SHA-256.

They are no part of the ledger, since a report is made without them and people remove them to save room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from analysis.ledger.manifest import is_inside
from experiments.foreign import open_plain, read_object
from runner.ledger.reader import read_status

SUFFIXES = {".safetensors", ".bin", ".json"}  # what PEFT loads an adapter from


def final_adapters(runs_dir: Path) -> dict[str, str]:
    """Path in the sweep's folder -> SHA-256, of those adapters that are there."""
    plan = read_object(runs_dir / "plan.json")
    point = int(plan["settings"]["budget"]["num_evaluation_points"]) - 1
    finished = [
        arm["folder"]
        for arm in plan["arms"]
        if is_inside(arm["folder"]) and (read_status(runs_dir / arm["folder"]) or {}).get("state") == "finished"
    ]
    folders = [f"{folder}/adapters/point_{point}" for folder in finished]
    return {path: _sha256(runs_dir / path) for folder in folders for path in _files(runs_dir, folder)}


def adapter_changes(recorded: Mapping[str, str], runs_dir: Path) -> tuple[list[str], list[str]]:
    """What was changed or added, one line a file; and the files that are not there, so that nobody can compare them."""
    present = [path for path in recorded if is_inside(path) and (runs_dir / path).is_file()]
    folders = {str(PurePosixPath(path).parent) for path in recorded if is_inside(path)}
    changed = [f"{path}: was changed" for path in present if _sha256(runs_dir / path) != recorded[path]]
    now = (path for folder in sorted(folders) for path in _files(runs_dir, folder))
    outside = [f"{path}: is outside the sweep's folder" for path in recorded if not is_inside(path)]
    added = [f"{path}: was not there" for path in now if path not in recorded]
    return [*changed, *outside, *added], [path for path in recorded if is_inside(path) and path not in present]


def _files(runs_dir: Path, folder: str) -> Iterator[str]:
    names = sorted(path.name for path in (runs_dir / folder).glob("*") if path.suffix in SUFFIXES and path.is_file())
    return (f"{folder}/{name}" for name in names)


def _sha256(path: Path) -> str:
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
