"""Both arms of a sweep killed with SIGKILL in the middle of training, and the sweep started again: nothing changed.

Compared with a sweep in another folder that nobody killed, on the same artifacts: ledgers, adapters and responses, also
of the arm that starts from one of the two. `tests/unit/experiments/test_resume.py` does the same after every single
update, within one process.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
KILLED = {"ppo": 7, "dpo": 13}  # rows in the ledger after which each arm is killed
WHOLE = {"ppo": 20, "dpo": 40}
NOT_COMPARED = {"time", "wall_seconds", "device_seconds", "peak_memory_bytes"}


def command(runner: Sequence[str], folder: Path, name: str) -> list[str]:
    settings = {
        "name": name,
        "runs_dir": folder / "runs",
        "cache_dir": folder / "cache",
        "tracker": "none",
        "budget.num_prompts": 640,
        "budget.num_evaluation_points": 3,
    }
    return [*runner, "+sweep=smoke", *(f"{key}={value}" for key, value in settings.items())]


def run(command: Sequence[str]) -> str:
    """What a sweep said that finished."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True, timeout=400
    )
    return done.stdout


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}


def rows(arm: Path) -> list[dict[str, Any]]:
    lines = (arm / "metrics.jsonl").read_text().splitlines() if (arm / "metrics.jsonl").exists() else []
    return [{key: value for key, value in json.loads(line).items() if key not in NOT_COMPARED} for line in lines]


def kill_each(sweep_folder: Path, sweep: subprocess.Popen[bytes]) -> None:
    """Kill every arm as soon as it has its rows, whichever comes to them first."""
    waiting, deadline = dict(KILLED), time.monotonic() + 300
    while waiting and sweep.poll() is None and time.monotonic() < deadline:
        for name, count in list(waiting.items()):
            arm = sweep_folder / name / "seed0"
            try:
                reached = len((arm / "metrics.jsonl").read_bytes().splitlines()) >= count
            except OSError:
                reached = False
            if reached:
                os.kill(json.loads((arm / "status.json").read_text())["pid"], signal.SIGKILL)
                del waiting[name]
        time.sleep(0.005)
    assert not waiting, "these arms never came to so many rows"


@pytest.mark.timeout(900)
def test_killed_in_the_middle_and_started_again_the_ledger_and_the_adapters_are_the_same(
    with_artifacts: Path, smoke_runner: Sequence[str]
) -> None:
    commands = {name: command(smoke_runner, with_artifacts, name) for name in ("killed", "whole")}
    with subprocess.Popen(commands["killed"], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as sweep:
        kill_each(with_artifacts / "runs" / "killed", sweep)
        assert sweep.wait(timeout=300) == 1
    for name in KILLED:
        left = rows(with_artifacts / "runs" / "killed" / name / "seed0")
        assert KILLED[name] <= len(left) < WHOLE[name]
        assert (with_artifacts / "runs" / "killed" / name / "seed0" / "resume" / "state.json").exists()
    said = {name: run(command) for name, command in commands.items()}
    assert len(re.findall("reused", said["whole"])) >= 3
    for name in (*KILLED, "ppo_then_dpo"):
        killed, whole = (with_artifacts / "runs" / run / name / "seed0" for run in ("killed", "whole"))
        assert rows(killed) == rows(whole)
        assert len(rows(whole)) == WHOLE.get(name, 20)
        weights = [(arm / "adapters" / "point_2" / "adapter_model.safetensors").read_bytes() for arm in (killed, whole)]
        assert weights[0] == weights[1]
        responses = [pd.read_parquet(arm / "evaluation" / "samples" / "point_2.parquet") for arm in (killed, whole)]
        pd.testing.assert_frame_equal(*responses)
        assert ("resumes from" in (killed / "log.txt").read_text()) == (name in KILLED)
