"""Files as a power cut, a full disk or a bad block leaves them: cut off, emptied, or with other bytes."""

from __future__ import annotations

import random
from pathlib import Path

from runner.ledger.reader import read_status

KEPT, LAST_ROW = "adapter of an unfinished arm", "last line of metrics.jsonl"
# What is damaged, and where it lies. Not among them: rows of an unfinished arm other than the last, where a digit that
# becomes another digit is seen by nobody, and plan.json, with which a sweep is refused.
TARGETS = {
    "checkpoint": ("runs/**/resume/*",),
    KEPT: ("runs/*/*/*/adapters/*/adapter_model.safetensors",),
    "status.json": ("**/status.json",),
    "spec.json": ("**/spec.json",),
    LAST_ROW: ("**/metrics.jsonl",),
    "Parquet": ("**/*.parquet",),
    "artifact": ("cache/artifacts/**/*.safetensors", "cache/artifacts/**/*.json"),
    "converted model": ("cache/models/*/*",),
    "report.json": ("runs/*/report/report.json",),
    "driver.json": ("runs/*/driver.json",),
    "memory record": ("cache/memory/*.json",),
}


def damage(root: Path, source: random.Random) -> str:
    """Damage one file of a sweep at rest; returns what it was, a key of `TARGETS`, or "" where there is none yet."""
    there = [(kind, files) for kind in TARGETS if (files := _files(root, kind))]
    if not there:
        return ""
    kind, files = source.choice(there)
    path = source.choice(files)
    content = path.read_bytes()
    if kind == LAST_ROW:
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        path.write_bytes(content[: source.randrange(last, len(content))])
    elif source.random() < 0.5:
        path.write_bytes(content[: source.randrange(len(content))])
    else:
        path.write_bytes(_with_other_bytes(content, source))
    return kind


def _files(root: Path, kind: str) -> list[Path]:
    found = {path for pattern in TARGETS[kind] for path in root.glob(pattern) if path.is_file()}
    if kind == KEPT:
        found = {path for path in found if (read_status(path.parents[2]) or {}).get("state") != "finished"}
    return sorted(path for path in found if path.stat().st_size)


def _with_other_bytes(content: bytes, source: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(source.randint(1, 8)):
        changed[source.randrange(len(changed))] ^= source.randint(1, 255)
    return bytes(changed)
