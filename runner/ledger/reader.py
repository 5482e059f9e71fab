"""Read a job's folder. Readers tolerate what a killed job leaves behind: a missing file, a torn last line.

They open plain files only, because others may have put anything there, see `experiments.foreign`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments.foreign import open_plain, parse_object, read_object
from runner.ledger.integrity import damaged

NUMBERED_REPORT = re.compile(r"report-([1-9]\d*)")
REPORT = "report"  # the folder of a sweep's report and of the job that makes it; no other job's may be called so
REMOVED_ADAPTERS = "adapters/removed.json"  # in an arm's folder: what `runner.driving.retention` has removed
PREFERENCES = "preferences.parquet"  # in a judge's folder: what it made of every pair
MAX_STATUS_BYTES = 2**24  # of the small files that are read again and again
MAX_METRICS_BYTES = 2**30
Number = int | float


class Status(BaseModel):
    """What ``status.json`` says. Readers rely on these types and ignore other keys."""

    model_config = ConfigDict(strict=True)

    state: str = "running"
    identity: str = ""
    stage: str = "starting"
    done: int = 0
    total: int = 0
    unit: str = ""
    counted_from: dict[str, Number] = Field(default={"done": 0, "seconds": 0.0}, description="where this count began")
    counted_to: Number = Field(default=0.0, description="seconds when the count last advanced")
    latest: dict[str, Number | None] = {}
    flags: dict[str, int] = Field(default={}, description="name -> rows with it: one row alone must not be overlooked")
    started: str = ""
    attempt: str = ""
    pid: int | None = None
    host: str = ""
    error: str | None = None
    out_of_memory: bool = False
    pass_divisor: int = Field(default=1, description="above 1 after a retry because memory ran out")
    peak_memory: dict[str, int] | None = Field(
        default=None, description='of the whole process, bytes: {"gpu": ...} or {"cpu": ...}'
    )
    files: dict[str, dict[str, Any]] = Field(default={}, description="what a finished job left, see integrity")
    seconds: Number = Field(default=0.0, description="worked by now")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; numbers are finite.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no plain file, cannot be read, is too large, or does not hold a JSON object; the message
            names the file.
    """
    return read_object(path)


def read_small_json(path: Path) -> dict[str, Any] | None:
    """The object in one of the small files that processes leave for each other, or None if there is none."""
    try:
        return read_json(path) if path.lstat().st_size <= MAX_STATUS_BYTES else None
    except (OSError, ValueError):
        return None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` in the order they were written; empty if there is no such file.

    Raises:
        ValueError: it is no plain file or too large, or a line other than the last one is no object in JSON; the
            message names file and line.
    """
    path = folder / "metrics.jsonl"
    try:
        stream = open_plain(path)
    except FileNotFoundError:
        return []
    with stream:
        content = stream.read(MAX_METRICS_BYTES + 1)
    if len(content) > MAX_METRICS_BYTES:
        raise ValueError(f"{path} is larger than {MAX_METRICS_BYTES:,} bytes")
    *lines, torn = content.decode("utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_object(line))
        except ValueError:
            raise ValueError(f"{path}, line {number} is not JSON") from None
    return rows + _complete(torn)


def read_typed(path: Path, model: type[BaseModel]) -> dict[str, Any] | None:
    """The object in a small file as it stands there, or None if it is missing or has other types than ``model``."""
    content = read_small_json(path)
    try:
        model.model_validate(content)
    except ValidationError:
        return None
    return content


def read_status(folder: Path) -> dict[str, Any] | None:
    """What ``status.json`` says, or None if it is missing or holds anything else than a status."""
    return read_typed(folder / "status.json", Status)


def has_ended_well(folder: Path, identity: str) -> bool:
    """Whether the job in ``folder`` said that it finished, with exactly this specification and these inputs."""
    status = read_status(folder) or {}
    return status.get("state") == "finished" and status.get("identity") == identity


def is_finished(folder: Path, identity: str) -> bool:
    """Whether the job finished in that way, and its files are still whole."""
    return has_ended_well(folder, identity) and not damaged_files(folder)


def damaged_files(folder: Path) -> list[str]:
    """Which files are no longer what a finished job left, in words. Of a report, also how its ledger has changed."""
    if folder.name == REPORT:  # others write and sign it too, so its files vouch for each other
        from runner.ledger.reports import report_problems  # which reads by this module

        return report_problems(folder.parent)
    files = (read_status(folder) or {}).get("files", {})
    removed = tuple(f"adapters/point_{point}/" for point in removed_points(folder))
    return damaged(folder, {name: recorded for name, recorded in files.items() if not name.startswith(removed)})


def removed_points(folder: Path) -> set[int]:
    """The evaluation points of an arm whose adapters were removed on purpose."""
    points = (read_small_json(folder / REMOVED_ADAPTERS) or {}).get("points")
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
    """The folder of a sweep's newest report: ``report``, or the highest ``report-N`` if signed ones were kept."""
    numbered = {
        int(m[1]): path
        for path in runs_dir.glob("report-*")
        if (m := NUMBERED_REPORT.fullmatch(path.name)) and (path / "report.json").is_file() and not path.is_symlink()
    }
    return numbered[max(numbered)] if numbered else runs_dir / REPORT


def _complete(last: str) -> list[dict[str, Any]]:
    """The row in a last line without a newline. The job was killed between the two, or in the middle of the row."""
    try:
        return [parse_object(last)]
    except ValueError:
        return []
