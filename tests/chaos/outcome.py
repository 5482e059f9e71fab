"""What a sweep has come to: its numbers, to be compared with an undisturbed one's, and which jobs have finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.ledger.reader import REPORT, is_finished, newest_report, read_metrics, read_status

# Times, memory, folders and what follows from them; everything else must be equal.
NOT_COMPARED = {
    "time",
    "created",
    "wall_seconds",
    "device_seconds",
    "peak_memory_bytes",
    "shared_costs",  # of the report: seconds that the artifacts took
    "ledger",  # of the report: a hash over files that hold times
    "command",  # of the report: names the sweep's folders
    "because",  # of the report's recommendation: names the gates that failed, that of cost among them
}
COST_GATE = "Cost"  # of the report: device time in times the cheapest arm's


def numbers(root: Path) -> dict[str, Any]:
    """By file: the report and metrics rows without times and memory, digests of all weights and samples."""
    sweep = root / "runs" / "smoke"
    found: dict[str, Any] = {"report.json": timeless(json.loads((newest_report(sweep) / "report.json").read_text()))}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name == "metrics.jsonl":
            found[name] = timeless(read_metrics(path.parent))
        elif path.suffix in {".safetensors", ".parquet"}:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def timeless(value: Any) -> Any:
    """A JSON value without what times and memory decide."""
    if isinstance(value, dict):
        kept = {key: timeless(item) for key, item in value.items() if key.partition("/")[0] not in NOT_COMPARED}
        return None if value.get("name") == COST_GATE else kept
    return [timeless(item) for item in value] if isinstance(value, list) else value


def differences(found: Any, expected: Any, place: str = "") -> Iterator[str]:
    """Where two JSON values differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            if key in found and key in expected:
                yield from differences(found[key], expected[key], f"{place}/{key}")
            else:
                yield f"{place}/{key} is only in {'the disturbed' if key in found else 'the undisturbed'} sweep"
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif found != expected:
        yield f"{place} is {str(found)[:80]}, not {str(expected)[:80]}"


Finished = dict[tuple[str, str], str]  # (folder, identity) → the attempt that finished it


def finished(root: Path) -> Finished:
    """The jobs that have finished and are whole, but for the report: it is made again whenever its ledger changes."""
    found = {}
    for path in _statuses(root):
        status = read_status(path.parent) or {}
        if path.parent.name != REPORT and is_finished(path.parent, str(status.get("identity"))):
            found[str(path.parent), str(status["identity"])] = str(status.get("attempt"))
    return found


def repeated(before: Mapping[tuple[str, str], str], root: Path) -> Iterator[str]:
    """Jobs that had finished, and were begun again all the same."""
    for (folder, identity), attempt in before.items():
        status = read_status(Path(folder)) or {}
        if status.get("identity") == identity and status.get("attempt") != attempt:
            yield f"{Path(folder).relative_to(root)} had finished and was begun again"


def failures(root: Path) -> Iterator[str]:
    """Jobs that failed by themselves, and not by a kill."""
    for path in _statuses(root):
        status = read_status(path.parent) or {}
        error = str(status.get("error"))
        if status.get("state") == "failed" and not error.startswith("killed by SIGKILL"):
            yield f"{path.parent.relative_to(root)} failed: {error}"


def _statuses(root: Path) -> list[Path]:
    """Of jobs, not of the copies that a sweep keeps of shared artifacts' records."""
    return [path for path in sorted(root.rglob("status.json")) if "shared" not in path.parts]
