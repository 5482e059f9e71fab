"""Weights & Biases: online if a key is configured, offline otherwise, without asking.

Sent: the validated specification, the metrics rows over the shared axes, the report's headline and, only if asked
for, samples. Switched off: git state and diff, code, host name, package list, hardware statistics, console, crash
reports.
"""

from __future__ import annotations

import math
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb

from experiments.catalogue import METRICS
from experiments.records import Axes, SampleRow, to_record
from experiments.spec import WandbTracker
from runner.ledger.jobfile import JobFile
from runner.ledger.tracker import Tracker

STEP_METRIC = "budget/prompts_seen"
PREFIXES = (
    "train",
    *METRICS,
    "flag",
    "evaluation",
    "ranking_data",
    "reward_model",
    "judge",
    "interpolation",
    "measure",
)
MAX_TAG_LENGTH = 64
FINISH_TIMEOUT_SECONDS = 120.0  # a server that goes away during a run must not hold up the sweep


class WandbRun(Tracker):
    """One W&B run for one job."""

    def __init__(self, settings: WandbTracker, job: JobFile, folder: Path, commit: str | None) -> None:
        os.environ["WANDB_DATA_DIR"] = str(folder / "wandb" / "data")  # else tables are staged in the home folder
        arguments = _arguments(settings, job, folder, commit)
        self._run, online = _start(settings, arguments)
        self._send_samples = settings.send_samples_online or not online
        for prefix in PREFIXES:
            self._run.define_metric(f"{prefix}/*", step_metric=STEP_METRIC)
        if not online:
            _say(f"W&B is offline; to upload this run, its samples included: wandb sync {Path(self._run.dir).parent}")

    def metrics(self, values: Mapping[str, float], axes: Axes, point: int | None) -> None:
        """Log one row with all its axes as ``budget/*``."""
        row = {f"budget/{name}": value for name, value in asdict(axes).items()} | dict(values)
        self._run.log(row if point is None else row | {"evaluation/point": point})

    def samples(self, point: int, rows: Sequence[SampleRow]) -> None:
        """Log a table, unless it would leave this machine unasked."""
        if not self._send_samples or not rows:
            return
        records = list(map(to_record, rows))
        data = [[_plain(value) for value in record.values()] for record in records]
        # under its own prefix: tables below evaluation/ would fall under that prefix's metric definition
        self._run.log({f"samples/point_{point}": wandb.Table(columns=list(records[0]), data=data)})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set values of the run's summary."""
        self._run.summary.update(dict(values))

    def close(self, exit_code: int) -> None:
        """Finish the run."""
        self._run.finish(exit_code=exit_code)


def has_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a key for the configured server is at hand; asks no network and reads no key out."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = environment.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    path = Path(environment.get("NETRC", "~/.netrc")).expanduser()
    try:
        return urlparse(server).hostname in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _start(settings: WandbTracker, arguments: dict[str, Any]) -> tuple[Any, bool]:
    """The run and whether it is online. It is offline if the server cannot be used."""
    if settings.mode == "offline" or (settings.mode == "auto" and not has_key()):
        return wandb.init(mode="offline", **arguments), False
    try:
        return wandb.init(mode="online", **arguments), True
    except wandb.Error as error:
        _say(f"W&B goes offline: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        os.environ.pop("WANDB_API_KEY", None)  # a malformed key stops even an offline start
        return wandb.init(mode="offline", **arguments), False


def _arguments(settings: WandbTracker, job: JobFile, folder: Path, commit: str | None) -> dict[str, Any]:
    return {
        "project": settings.project,
        "entity": settings.entity,
        "group": job.sweep,
        "job_type": job.kind,
        "name": job.label,
        "tags": _tags(job, commit),
        "config": job.model_dump(
            mode="json", include={"label", "kind", "sweep", "arm", "seed", "spec", "inputs", "identity"}
        ),
        "dir": str(folder),
        "settings": wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            finish_timeout=FINISH_TIMEOUT_SECONDS,
            finish_timeout_raises=True,
            host="",
            init_timeout=settings.init_timeout_seconds,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    }


def _tags(job: JobFile, commit: str | None) -> list[str]:
    """Arm, algorithm, base model (its last name only: a path is nobody's business) and commit."""
    spec = job.spec
    algorithm = getattr(getattr(spec, "arm", None), "algorithm", None)
    base = getattr(getattr(spec, "model", None), "path", None)
    tags = [job.arm, algorithm, base and Path(base).name, commit and commit[:12]]
    return list(dict.fromkeys(tag[:MAX_TAG_LENGTH] for tag in tags if tag))


def _plain(value: object) -> object:
    """A table cell: NaN becomes an empty one."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
