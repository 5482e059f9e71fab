"""Read a job's folder. Readers tolerate what a killed job leaves behind: a missing file, a torn last line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from runner.ledger.integrity import damaged

NUMBERED_REPORT = re.compile(r"report-([1-9]\d*)")
REPORT = "report"  # the folder of a sweep's report and of the job that makes it; no other job's may be called so
REMOVED_ADAPTERS = "adapters/removed.json"  # in an arm's folder: what `runner.retention` has removed
PREFERENCES = "preferences.parquet"  # in a judge's folder: what it made of every pair
NUMBER = (int, float)
STATUS: dict[str, type | tuple[type, ...]] = {  # the types of what others rely on in a status
    "state": str,
    "identity": str,
    "stage": str,
    "unit": str,
    "done": int,
    "total": int,
    "seconds": NUMBER,
    "counted_from": dict,
    "counted_to": NUMBER,
    "latest": dict,
    "flags": dict,
    "files": dict,
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold a JSON object; the message names the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` in the order they were written; empty where there is no such file.

    Raises:
        ValueError: a line other than the last one is not JSON; the message names file and line.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    *lines, torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise ValueError(f"{path}, line {number} is not JSON") from None
    return rows + _complete(torn)


def read_status(folder: Path) -> dict[str, Any] | None:
    """What ``status.json`` says, or None where there is none or it holds anything else than a status."""
    try:
        status = read_json(folder / "status.json")
    except (OSError, ValueError):
        return None
    return status if all(isinstance(status[key], kind) for key, kind in STATUS.items() if key in status) else None


def has_ended_well(folder: Path, identity: str) -> bool:
    """Whether the job in ``folder`` said that it finished, with exactly this specification and these inputs."""
    status = read_status(folder) or {}
    return status.get("state") == "finished" and status.get("identity") == identity


def is_finished(folder: Path, identity: str) -> bool:
    """Whether it did, and what it left is still whole."""
    return has_ended_well(folder, identity) and not damaged_files(folder)


def damaged_files(folder: Path) -> list[str]:
    """Which result files are no longer what a finished job left, in words; of a report, also whether its ledger is."""
    if folder.name == REPORT:  # it is written and signed by others too, so its files vouch for each other
        from runner.ledger.reports import report_problems  # which reads by this module

        return report_problems(folder.parent)
    files = (read_status(folder) or {}).get("files", {})
    removed = tuple(f"adapters/point_{point}/" for point in removed_points(folder))
    return damaged(folder, {name: recorded for name, recorded in files.items() if not name.startswith(removed)})


def removed_points(folder: Path) -> set[int]:
    """The evaluation points of an arm whose adapters were removed on purpose."""
    try:
        points = read_json(folder / REMOVED_ADAPTERS).get("points")
    except (OSError, ValueError):
        return set()
    return {point for point in points if isinstance(point, int)} if isinstance(points, list) else set()


def sample_files(folder: Path) -> dict[int, Path]:
    """Evaluation point → Parquet file of its samples, in the order of the points."""
    found = {
        int(m[1]): path
        for path in folder.glob("samples/point_*.parquet")
        if (m := re.fullmatch(r"point_(\d+)", path.stem))
    }
    return dict(sorted(found.items()))


def embeddings_file(folder: Path, point: int) -> Path:
    """Where an evaluation keeps the embeddings of one point's responses; only the last point has any."""
    return folder / "embeddings" / f"point_{point}.parquet"


def newest_report(runs_dir: Path) -> Path:
    """The folder of a sweep's newest report: ``report``, or the highest ``report-N`` where signed ones were kept."""
    numbered = {
        int(m[1]): path
        for path in runs_dir.glob("report-*")
        if (m := NUMBERED_REPORT.fullmatch(path.name)) and (path / "report.json").is_file() and not path.is_symlink()
    }
    return numbered[max(numbered)] if numbered else runs_dir / REPORT


def _complete(last: str) -> list[dict[str, Any]]:
    """The row in a last line without a newline: killed between the two, or in the middle of the row."""
    try:
        return [json.loads(last)]
    except ValueError:
        return []
