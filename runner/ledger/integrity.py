"""Result files are trusted as long as they are what the job left: their sizes and digests stand in its status.

The check must cost next to nothing, since every start of a sweep makes it for every finished job. So a digest covers a
file's first and last half mebibyte: all of most files, and of a large one the parts that a full disk, a lost tail or a
broken header change. A changed byte in the middle of large weights is not seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.foreign import open_plain

SUFFIXES = {".json", ".jsonl", ".parquet", ".safetensors"}
NOT_RESULTS = {"status.json", "spec.json"}  # the one holds the digests, the other is written again from the plan
EDGE_BYTES = 512 * 1024


def fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every result file of a job, by its path in the folder. On disk when this returns."""
    return {str(path.relative_to(folder)): _fingerprint(path) for path in sorted(_results(folder))}


def damaged(folder: Path, recorded: Mapping[str, Any]) -> list[str]:
    """What is no longer as `fingerprints` recorded it, in words; nothing if nothing was recorded."""
    found = []
    for name, expected in recorded.items():
        try:
            size = (folder / name).lstat().st_size
            if size != expected["size"]:
                found.append(f"{name} has {size} bytes, not {expected['size']}")
            elif _digest(folder / name) != expected["sha256_of_edges"]:
                found.append(f"{name} has other content")
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.append(f"{name} cannot be checked ({type(error).__name__})")
    return found


def _results(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink() or path.name == "wandb":
            continue
        if path.is_dir():
            if not (path / "spec.json").exists():  # else another job's folder
                yield from _results(path)
        elif path.suffix in SUFFIXES and path.name not in NOT_RESULTS:
            yield path


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())  # a status that says "finished" must not outlive the files after a power cut
    return {"size": path.stat().st_size, "sha256_of_edges": _digest(path)}


def _digest(path: Path) -> str:
    with open_plain(path) as stream:
        digest = hashlib.sha256(stream.read(EDGE_BYTES))
        stream.seek(max(EDGE_BYTES, os.fstat(stream.fileno()).st_size - EDGE_BYTES))
        digest.update(stream.read(EDGE_BYTES))
    return digest.hexdigest()
