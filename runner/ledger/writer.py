"""Write a job's folder while it works: the ledger first, the tracker second.

Every metrics row is one line and is flushed at once, so that a killed job loses none. Samples and status are replaced
atomically. A tracker gets a row after the row is on disk.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from experiments.records import (
    PREFERENCE_COLUMNS,
    SAMPLE_COLUMNS,
    SAMPLES_FILE,
    SCORE_PREFIX,
    Axes,
    Phase,
    PreferenceRow,
    SampleRow,
    to_record,
)
from experiments.tasks import TASKS
from runner.ledger.files import replacing, timestamp, write_json
from runner.ledger.reader import PREFERENCES, Status, embeddings_file, read_metrics, read_status
from runner.ledger.requests import new_attempt
from runner.ledger.signs import HEARTBEAT_SECONDS
from runner.ledger.tracker import Tracker

STATUS_SECONDS = 1.0  # between two writings of a status that says nothing notable
SHOWN = [card for task in TASKS.values() for card in task.scores if card.role in {"measure", "training_reward"}]
LATEST = {"score_mean", "kl", "reward_margin", "accuracy", "held_out_accuracy", "loss", "cost"} | {
    f"{card.name}_mean" for card in SHOWN
}
FLAG = "flag/"  # prefix of the columns that are 1 when something goes wrong
ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}


class TornLedgerError(ValueError):
    """An attempt cannot resume from what an earlier one left."""


class StatusFile:
    """``status.json``: what the job is doing, replaced at most once a second, and at once when it ends.

    A second thread may call `heartbeat`. Times are ``seconds`` since the attempt began, which no clock can change;
    ``updated`` is for people and other machines.
    """

    def __init__(self, folder: Path, identity: str, pass_divisor: int = 1) -> None:
        self._path = folder / "status.json"
        self._lock = threading.Lock()
        self.attempt = new_attempt()
        self._began, self._written = time.monotonic(), -math.inf
        self._status = Status(
            identity=identity,
            started=timestamp(),
            attempt=self.attempt,
            pid=os.getpid(),
            host=socket.gethostname(),
            pass_divisor=pass_divisor,
        ).model_dump()
        self._write()

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        """Keep how far the job is; a new stage and the end of one are written at once."""
        with self._lock:
            notable = stage != self._status["stage"] or done >= total
            continues = (total, unit) == (self._status["total"], self._status["unit"]) and done >= self._status["done"]
            if not continues:
                self._status["counted_from"] = {"done": done, "seconds": self._seconds()}
            if not continues or done > self._status["done"]:
                self._status["counted_to"] = self._seconds()
            self._status |= {"stage": stage, "done": done, "total": total, "unit": unit}
            self._write_if_due(notable)

    def latest(self, values: Mapping[str, float]) -> None:
        """Keep the few numbers that tell a watching person how it goes, and the flags that were up."""
        with self._lock:
            shown = {name: value for name, value in values.items() if name.rpartition("/")[2] in LATEST}
            self._status["latest"] |= {name: _finite(value) for name, value in shown.items()}
            flags = self._status["flags"]
            for name in (name.removeprefix(FLAG) for name, value in values.items() if name.startswith(FLAG) and value):
                flags[name] = flags.get(name, 0) + 1
            self._write_if_due()

    def heartbeat(self) -> None:
        """Say that the process lives, unless it has just said something or has ended."""
        with self._lock:
            if self._status["state"] == "running" and time.monotonic() - self._written >= HEARTBEAT_SECONDS / 2:
                self._write()

    def end(self, state: str, error: str | None = None, out_of_memory: bool = False) -> None:
        """Write the final state: "failed", "interrupted" or "stopped"; ``error`` is one line."""
        with self._lock:
            self._status |= {"state": state, "error": error, "out_of_memory": out_of_memory}
            self._write()

    def finish(self, files: Mapping[str, Any], peak_memory: Mapping[str, int] | None = None) -> None:
        """Write that the job has finished and what it leaves, see `runner.ledger.integrity`."""
        with self._lock:
            self._status |= {"state": "finished", "files": files, "peak_memory": peak_memory}
            self._write()

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def _write_if_due(self, notable: bool = False) -> None:
        if notable or time.monotonic() - self._written >= STATUS_SECONDS:
            self._write()

    def _write(self) -> None:
        write_json(self._path, self._status | {"updated": timestamp(), "seconds": self._seconds()})
        self._written = time.monotonic()


def record_end(folder: Path, identity: str, state: str, error: str) -> None:
    """Write the end of a job that could not do so itself, because it was killed or never began.

    What the job said of itself stays. A status of another specification is replaced.
    """
    there = read_status(folder) or {}
    if there.get("identity") != identity:
        there = {"identity": identity}
    if there.get("state") != state or not there.get("error"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "status.json", there | {"state": state, "error": error})


class LedgerRecorder:
    """The `experiments.records.Recorder` of every job."""

    def __init__(self, folder: Path, status: StatusFile, tracker: Tracker) -> None:
        self._folder = folder
        self._status = status
        self._tracker = tracker

    def metrics(self, phase: Phase, values: Mapping[str, float], axes: Axes, point: int | None = None) -> None:
        """Append one row to ``metrics.jsonl``; a number that is not finite becomes null there."""
        row = {"time": timestamp(), "phase": phase, "point": point, **asdict(axes)}
        line = json.dumps(row | {name: _finite(value) for name, value in values.items()}, allow_nan=False)
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        self._status.latest(values)
        self._tracker.metrics(values, axes, point)

    def rewind(self, num_rows: int) -> None:
        """Keep the first rows only; a tracker's new run is told of them, so that its curves are whole.

        Raises:
            TornLedgerError: there are fewer.
        """
        rows = read_metrics(self._folder)[:num_rows]
        if len(rows) < num_rows:
            raise TornLedgerError(
                f"{self._folder}: the ledger has {len(rows)} rows, but its checkpoint was written after {num_rows}"
            )
        with replacing(self._folder / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for row in rows:
            axes = Axes(**{field.name: row[field.name] for field in fields(Axes)})
            values = {name: math.nan if value is None else value for name, value in row.items() if "/" in name}
            self._tracker.metrics(values, axes, row["point"])

    def samples(self, point: int, rows: Sequence[SampleRow]) -> None:
        """Keep the samples of one evaluation point as ``samples/point_<point>.parquet``.

        Raises:
            ValueError: a row has other columns than `SampleRow`, or other scores than the first.
        """
        path = self._folder / SAMPLES_FILE.format(point=point)
        path.parent.mkdir(exist_ok=True)
        scores = {SCORE_PREFIX + name: float for row in rows[:1] for name in row["scores"]}
        _write_parquet(path, [to_record(row) for row in rows], {**SAMPLE_COLUMNS, **scores}, "SampleRow")
        self._tracker.samples(point, rows)

    def embeddings(self, point: int, rows: Sequence[SampleRow], vectors: NDArray[np.float16]) -> None:
        """Keep embeddings as ``embeddings/point_<point>.parquet``: of which sample, and a list of half floats."""
        path = embeddings_file(self._folder, point)
        path.parent.mkdir(exist_ok=True)
        columns = {key: [row[key] for row in rows] for key in ("prompt_id", "sample_id", "stream")}
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float16()), vectors.shape[1])
        with replacing(path) as temporary:
            pq.write_table(pa.table(columns | {"embedding": lists}), temporary)

    def preferences(self, rows: Sequence[PreferenceRow]) -> None:
        """Keep a judge's preferences as ``preferences.parquet``.

        Raises:
            ValueError: a row has other columns than `PreferenceRow`.
        """
        _write_parquet(self._folder / PREFERENCES, rows, PREFERENCE_COLUMNS, "PreferenceRow")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Give the tracker numbers and texts that stand for the whole job; the ledger has them elsewhere."""
        self._tracker.summary(values)

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        """Say how far the job is, in ``status.json``."""
        self._status.progress(stage, done, total, unit)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], types: Mapping[str, type], kind: str) -> None:
    columns, schema = set(types), pa.schema([(name, ARROW[of]) for name, of in types.items()])
    if odd := next((set(row) ^ columns for row in rows if set(row) != columns), None):
        raise ValueError(f"rows must have exactly the columns of {kind}; too many or missing: {sorted(odd)}")
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None
