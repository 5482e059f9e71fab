"""The manifest of a report's ledger, with a digest for each row of each file.

These digests only help to name what changed; nothing is judged by them. The files' own hashes are
`runner.ledger.manifest`'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.ledger.parquet import MAX_ROWS, read_rows
from experiments.foreign import read_plain
from runner.ledger.manifest import (
    MANIFEST,
    FileHash,
    Manifest,
    file_sha256,
    is_inside,
    ledger_files,
    ledger_files_now,
    read_manifest,
    sha256,
)

__all__ = ["MANIFEST", "Manifest", "changes", "is_inside", "manifest_of", "read_manifest", "sha256"]

DIGEST_LENGTH = 8  # hex digits of a row's digest
MAX_ROWS_NAMED = 8  # of one file
MAX_ROWS_ALIGNED = 300  # rows that are set against each other one by one, which takes their square or worse
MAX_MANIFEST_BYTES = 256 * 2**20


def manifest_of(runs_dir: Path, plan: Mapping[str, Any]) -> Manifest:
    """Hash what a report of this sweep reads: plan.json, the records of finished jobs, the status of the others.

    Args:
        runs_dir: the sweep's folder.
        plan: its plan.json.
    """
    return Manifest({path: _hash(runs_dir / path) for path in ledger_files(runs_dir, plan)})


def changes(recorded: Manifest, runs_dir: Path) -> list[str]:
    """What is no longer as it was recorded, one line a file.

    Args:
        recorded: the files when the report was made.
        runs_dir: the sweep's folder as it is now.
    """
    found = [(path, _change(runs_dir, path, file)) for path, file in sorted(recorded.files.items())]
    lines = [f"{path}: {change}" for path, change in found if change]
    return lines + [f"{path}: was not there" for path in ledger_files_now(runs_dir) if path not in recorded.files]


# ---------------------------------------------------------------------------------------------------- hashes and rows
def _hash(path: Path) -> FileHash:
    return FileHash(file_sha256(path), _rows(path))


def _rows(path: Path) -> str:
    """A digest for each row; nothing for a file without rows or one whose rows cannot be read."""
    try:
        if path.suffix == ".jsonl":
            content = read_plain(path)
            if content.count(b"\n") > MAX_ROWS:
                return ""
            lines = content.removesuffix(b"\n").split(b"\n")
            return "".join(sha256(line)[:DIGEST_LENGTH] for line in lines)
        if path.suffix == ".parquet":
            return _row_digests(read_rows(path))
    except (OSError, ValueError, TypeError):
        return ""
    return ""


def _row_digests(frame: pd.DataFrame) -> str:
    """Text is hashed as Python's, and what is missing as None: another pandas may hold both in another way."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    plain = frame.assign(**{str(name): frame[name].astype(object).where(frame[name].notna(), None) for name in texts})
    hashes = pd.util.hash_pandas_object(plain, index=False, categorize=False).to_numpy()
    return (hashes & 0xFFFFFFFF).astype(">u4").tobytes().hex()


def _change(runs_dir: Path, path: str, recorded: FileHash) -> str | None:
    """In words, or None if the file is as it was. Its hash is compared before its rows are unpacked."""
    if not is_inside(path):
        return "is outside the sweep's folder"
    if not (runs_dir / path).is_file():
        return "is missing"
    if file_sha256(runs_dir / path) == recorded.sha256:
        return None
    if not recorded.rows:
        return "was changed"
    rows = _rows(runs_dir / path)
    if not rows:
        return "was changed; its rows cannot be read any more"
    return _changed_rows(_split(recorded.rows), _split(rows), "line" if path.endswith(".jsonl") else "row")


def _split(digests: str) -> list[str]:
    return [digests[start : start + DIGEST_LENGTH] for start in range(0, len(digests), DIGEST_LENGTH)]


def _changed_rows(before: Sequence[str], now: Sequence[str], word: str) -> str:
    """Which rows changed; they are counted from 1, removed ones as they were and the others as they are."""
    if before == now:
        return f"was written again; its {word}s say the same"
    steps = _steps(before, now)
    named = [part for step in steps for part in _step(*step, word)]
    more = f"; and {len(named) - MAX_ROWS_NAMED} more" if len(named) > MAX_ROWS_NAMED else ""
    return "; ".join(named[:MAX_ROWS_NAMED]) + more


def _steps(before: Sequence[str], now: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """What turns one list into the other, as difflib says it. What begins and ends alike is left out first."""
    shorter = min(len(before), len(now))
    start = next((place for place in range(shorter) if before[place] != now[place]), shorter)
    rest = shorter - start
    end = next((place for place in range(rest) if before[-1 - place] != now[-1 - place]), rest)
    ours, theirs = before[start : len(before) - end], now[start : len(now) - end]
    if max(len(ours), len(theirs)) <= MAX_ROWS_ALIGNED:
        found = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
        return [(tag, start + i, start + j, start + k, start + m) for tag, i, j, k, m in found]
    if len(ours) != len(theirs):
        return [("replace", start, start + len(ours), start, start + len(theirs))]
    runs = groupby(range(start, start + len(ours)), key=lambda place: before[place] != now[place])
    spans = [(places[0], places[-1] + 1) for differ, group in runs if differ and (places := list(group))]
    return [("replace", first, last, first, last) for first, last in spans]


def _step(tag: str, start: int, end: int, now_start: int, now_end: int, word: str) -> Iterator[str]:
    """One step from the old rows to the new ones, in words."""
    common = min(end - start, now_end - now_start)
    if tag == "replace":
        yield f"{_span(now_start, now_start + common, word)} changed"
    if tag != "equal" and start + common < end:
        yield f"{_span(start + common, end, word)} removed"
    if tag != "equal" and now_start + common < now_end:
        yield f"{_span(now_start + common, now_end, word)} added"


def _span(start: int, end: int, word: str) -> str:
    return f"{word} {end}" if end - start == 1 else f"{word}s {start + 1} to {end}"
