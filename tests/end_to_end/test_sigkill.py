"""Both arms of a sweep killed with SIGKILL in the middle of training, and the sweep started again: nothing changed.

`tests/unit/experiments/test_resume.py` does the same after every single update, within one process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ARMS = {"ppo": 7, "dpo": 23}  # rows in the ledger after which each arm is killed
NOT_COMPARED = {"time", "wall_seconds", "device_seconds", "peak_memory_bytes"}


def command(folder: Path, name: str) -> list[str]:
    settings = {
        "name": name,
        "runs_dir": folder / "runs",
        "cache_dir": folder / "cache",
        "tracker": "none",
        "budget.num_prompts": 1600,
        "budget.num_evaluation_points": 3,
    }
    return [sys.executable, "-m", "runner", "+sweep=smoke", *(f"{key}={value}" for key, value in settings.items())]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}


def rows(arm: Path) -> list[dict[str, Any]]:
    lines = (arm / "metrics.jsonl").read_text().splitlines() if (arm / "metrics.jsonl").exists() else []
    return [{key: value for key, value in json.loads(line).items() if key not in NOT_COMPARED} for line in lines]


def kill_each(sweep_folder: Path, sweep: subprocess.Popen[bytes]) -> None:
    """Kill every arm as soon as it has its rows, whichever comes to them first."""
    waiting, deadline = dict(ARMS), time.monotonic() + 300
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
def test_killed_in_the_middle_and_started_again_the_ledger_and_the_adapters_are_the_same(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path, "killed"), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as sweep:
        kill_each(tmp_path / "runs" / "killed", sweep)
        assert sweep.wait(timeout=300) == 1
    for name in ARMS:
        left = rows(tmp_path / "runs" / "killed" / name / "seed0")
        assert ARMS[name] <= len(left) < 100
        assert (tmp_path / "runs" / "killed" / name / "seed0" / "resume" / "state.json").exists()
    for name in ("killed", "whole"):
        subprocess.run(
            command(tmp_path, name), cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL, timeout=400
        )
    for name in ARMS:
        killed, whole = (tmp_path / "runs" / run / name / "seed0" for run in ("killed", "whole"))
        assert rows(killed) == rows(whole)
        weights = [(arm / "adapters" / "point_1" / "adapter_model.safetensors").read_bytes() for arm in (killed, whole)]
        assert weights[0] == weights[1]
        assert "goes on" in (killed / "log.txt").read_text()
