"""`+sweep=smoke` through the command a person types: real models, real trainers, real processes."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
JOB_FILES = ("spec.json", "provenance.json", "metrics.jsonl", "status.json", "log.txt")
AXES = (
    "prompts_seen",
    "tokens_generated",
    "tokens_trained",
    "optimizer_steps",
    "wall_seconds",
    "device_seconds",
    "peak_memory_bytes",
)


def command(folder: Path, *overrides: str) -> list[str]:
    paths = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    return [sys.executable, "-m", "runner", "+sweep=smoke", *paths, *overrides]


def environment() -> dict[str, str]:
    """Without a W&B key, so that tracking is offline, and without the thread limit of the tests' own process."""
    hidden = ("WANDB_", "OMP_", "MKL_")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)} | {"NETRC": os.devnull}


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *overrides),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def status(job: Path) -> dict[str, Any]:
    try:
        return json.loads((job / "status.json").read_text())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A sweep whose PPO arm was killed with SIGKILL as soon as it worked: its folder, exit code and output."""
    folder = tmp_path_factory.mktemp("smoke")
    arm = folder / "runs" / "smoke" / "ppo" / "seed0"
    with subprocess.Popen(
        command(folder), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        deadline = time.monotonic() + 300
        while status(arm).get("state") != "running" and sweep.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(status(arm)["pid"], signal.SIGKILL)
        output, _ = sweep.communicate(timeout=300)
    return folder, sweep.returncode, output


@pytest.fixture(scope="module")
def resumed(killed: tuple[Path, int, str]) -> tuple[Path, dict[str, float], subprocess.CompletedProcess[str]]:
    """The same command once more: the folder, when each job's status had last changed before, and the outcome."""
    folder = killed[0]
    before = {str(p): p.stat().st_mtime for p in folder.rglob("status.json")}
    return folder, before, run(folder)


def test_one_killed_arm_leaves_the_others_to_finish(killed: tuple[Path, int, str]) -> None:
    folder, code, output = killed
    sweep = folder / "runs" / "smoke"
    assert code == 1
    assert status(sweep / "dpo/seed0/evaluation")["state"] == "finished"
    assert "ppo/seed0" in output
    assert "python -m runner.job" in output
    report = json.loads((sweep / "report" / "report.json").read_text())
    assert any("ppo" in str(item) for item in report["missing"])


def test_the_next_run_repeats_only_that_arm(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    folder, before, outcome = resumed
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    repeated = {
        str(p.relative_to(folder)) for p in folder.rglob("status.json") if before.get(str(p)) != p.stat().st_mtime
    }
    assert {"runs/smoke/ppo/seed0/status.json", "runs/smoke/report/status.json"} <= repeated
    assert not any("/dpo/" in path or "cache/" in path for path in repeated)  # what starts from PPO is made again
    assert json.loads((folder / "runs/smoke/report/report.json").read_text())["missing"] == []


def test_what_the_report_says_to_run_next_runs_as_it_stands(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    folder, *_ = resumed
    report = json.loads((folder / "runs/smoke/report/report.json").read_text())
    commands = [item["command"] for item in report["recommendation"]["next_runs"] if item["command"]]
    assert commands
    for line in commands:
        assert all(f"{name}={folder / path}" in line for name, path in (("runs_dir", "runs"), ("cache_dir", "cache")))
        typed = f"{line} --plan".replace("python", shlex.quote(sys.executable), 1)
        done = subprocess.run(
            ["bash", "-c", typed], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def records_of_starts(folder: Path) -> dict[Path, int]:
    """When each file was written that every start of a job writes or appends to."""
    names = ("status.json", "provenance.json", "log.txt")
    return {path: path.stat().st_mtime_ns for name in names for path in folder.rglob(name)}


def test_a_finished_sweep_is_recognised_without_any_work(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    folder = resumed[0]
    before = records_of_starts(folder)
    outcome = run(folder)
    assert outcome.returncode == 0
    assert "finished before, and taken as it is: measure" in outcome.stdout
    assert records_of_starts(folder) == before


def test_every_run_folder_explains_itself(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    sweep = resumed[0] / "runs" / "smoke"
    arms = ("ppo/seed0", "dpo/seed0", "ppo_then_dpo/seed0")
    for job in (*arms, *(f"{arm}/evaluation" for arm in arms), "ppo_then_dpo/seed0/fresh_pairs"):
        assert all((sweep / job / name).stat().st_size > 0 for name in JOB_FILES), job
        rows = [json.loads(line) for line in (sweep / job / "metrics.jsonl").read_text().splitlines()]
        assert rows
        assert all(set(AXES) <= set(row) for row in rows)
    assert {path.name for path in (sweep / "report").glob("report.*")} == {"report.html", "report.md", "report.json"}
    samples = pd.read_parquet(sweep / "ppo/seed0/evaluation/samples/point_2.parquet")
    base = pd.read_parquet(sweep / "shared/base_evaluation/samples/point_0.parquet")
    assert len(samples) == 32
    assert base["stream"].value_counts().to_dict() == {1: 32, 2: 32, 3: 64}
    ranking = pd.read_parquet(sweep / "shared/ranking_data/samples/point_0.parquet")
    assert (len(ranking), set(ranking["stream"])) == (16 * 4, {0})
    readiness = json.loads((sweep / "report/report.json").read_text())["questions"][0]
    assert len(readiness["evidence"]) == 9
    assert all(item["number"] is not None for item in readiness["evidence"])
    assert list(samples.columns) == list(base.columns)


def test_the_staged_arm_shares_the_first_stage_and_is_reported_as_one_more_arm(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    sweep = resumed[0] / "runs" / "smoke"
    staged, plain = sweep / "ppo_then_dpo/seed0", sweep / "ppo/seed0"
    first, second = (json.loads(line) for line in (staged / "metrics.jsonl").read_text().splitlines())
    weights = "adapters/point_{}/adapter_model.safetensors"
    pairs = pd.read_parquet(staged / "fresh_pairs/samples/point_0.parquet")
    base = pd.read_parquet(sweep / "shared/ranking_data/samples/point_0.parquet").head(len(pairs))
    report = json.loads((sweep / "report/report.json").read_text())
    (arm,) = (arm for arm in report["arms"] if arm["algorithm"] == "ppo_then_dpo")

    assert (staged / weights.format(1)).read_bytes() == (plain / weights.format(1)).read_bytes()
    assert (staged / weights.format(2)).read_bytes() != (plain / weights.format(2)).read_bytes()
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["dpo/reward_margin"] == pytest.approx(0, abs=1e-5)
    assert (first["prompts_seen"], second["prompts_seen"]) == (48, 64)
    assert pairs["prompt"].tolist() == base["prompt"].tolist()
    assert pairs["logp_policy"].tolist() != base["logp_policy"].tolist()
    assert [point["prompts_seen"] for point in arm["curve"]] == [0, 32, 64]
    assert "ppo_then_dpo" in report["gates"]
    assert [(pair["arm"], pair["opponent"]) for pair in report["staged"]] == [
        ("ppo_then_dpo", "ppo"),
        ("ppo_then_dpo", "dpo"),
    ]
    assert report["recovery"][0]["arm"] == "ppo_then_dpo"


def test_the_adapters_load_with_peft_on_the_base(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    folder = resumed[0]
    base_folder = next(path for path in (folder / "cache" / "models").iterdir() if path.is_dir())
    for arm in ("ppo", "dpo", "ppo_then_dpo"):
        base = AutoModelForCausalLM.from_pretrained(base_folder)
        adapters = folder / "runs" / "smoke" / arm / "seed0" / "adapters"
        model = PeftModel.from_pretrained(base, adapters / "point_2")
        assert any(bool((p != 0).any()) for name, p in model.named_parameters() if "lora_B" in name)


def test_tracking_is_offline_without_a_key_and_says_how_to_upload(
    resumed: tuple[Path, dict[str, float], subprocess.CompletedProcess[str]],
) -> None:
    folder, _, outcome = resumed
    assert "wandb sync" in outcome.stdout
    assert list((folder / "runs" / "smoke" / "ppo").rglob("*.wandb"))
