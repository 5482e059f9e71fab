"""The real W&B client: its offline file read back with its own reader, and its real failures. No server, no network."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.records import Axes
from experiments.spec import WandbTracker
from runner.__main__ import compose
from runner.ledger.jobfile import JobFile
from runner.ledger.reader import read_metrics
from runner.ledger.writer import LedgerRecorder, StatusFile
from runner.planning.plan import make_plan
from runner.trackers import make_tracker
from runner.trackers.wandb import _arguments, has_key

KEY = "a" * 40
DEAD_SERVER = "http://127.0.0.1:9"
SILENT_SERVER = "http://127.0.0.1:{port}"
ROW = {
    "prompt_id": "p",
    "sample_id": 0,
    "stream": 1,
    "prompt": "The film",
    "response": " was fine",
    "num_tokens": 2,
    "finish_reason": "eos",
    "logp_policy": -1.0,
    "logp_base": -1.0,
    "scores": {"gold": 0.9, "proxy": float("nan"), "vader": 0.2},
}


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., JobFile]:
    def make(**changes: Any) -> JobFile:
        runs = compose(["+sweep=smoke", f"runs_dir={tmp_path}/runs", f"cache_dir={tmp_path}/cache"])
        arm = next(job for job in make_plan(runs).jobs if job.label == "ppo/seed0")
        settings = {"kind": "wandb", "project": "test", "entity": None, "mode": "auto", "init_timeout_seconds": 3}
        tracker = WandbTracker.model_validate(settings | {"send_samples_online": False} | changes)
        return arm.file.model_copy(update={"tracker": tracker})

    return make


def track(job: JobFile, folder: Path) -> None:
    """What a job does: rows, samples, a summary, the end."""
    folder.mkdir(parents=True, exist_ok=True)
    tracker = make_tracker(job, folder, commit="0123456789abcdef")
    recorder = LedgerRecorder(folder, StatusFile(folder, job.identity), tracker)
    recorder.metrics("train", {"train/loss": 0.5, "ppo/kl": 1.0}, Axes(prompts_seen=32, tokens_generated=640))
    recorder.metrics("evaluation", {"evaluation/gold_mean": 0.7}, Axes(prompts_seen=32), point=1)
    recorder.samples(1, [ROW])  # type: ignore[list-item]
    tracker.summary({"headline": "PPO won."})
    tracker.close(0)


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record of the one offline run below ``folder``, by W&B's own reader."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_without_a_key_a_run_is_kept_offline_with_everything_in_it(
    job: Callable[..., JobFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ppo" / "seed0"
    track(job(), folder)
    found = records(folder)

    assert f"wandb sync {folder}/wandb/offline-run-" in capsys.readouterr().err
    (run,) = [record["run"] for record in found if record["type"] == "run"]
    assert (run["run_group"], run["job_type"], run["display_name"]) == ("smoke", "arm", "ppo/seed0")
    assert run["tags"] == ["ppo", "tiny:llama", "0123456789ab"]
    assert run["config"]["update"]["spec"]["arm"]["kl_coefficient"] == 0.05
    history = [record["history"]["item"] for record in found if record["type"] == "history"]
    assert history[0]["train/loss"] == 0.5
    assert history[0]["budget/prompts_seen"] == 32
    assert history[0]["budget/tokens_generated"] == 640
    assert history[1]["evaluation/gold_mean"] == 0.7
    axes = {record["metric"]["glob_name"]: record["metric"].get("step_metric") for record in found if _is_glob(record)}
    assert axes["train/*"] == axes["ppo/*"] == axes["dpo/*"] == axes["evaluation/*"] == "budget/prompts_seen"
    assert list(folder.glob("wandb/offline-run-*/files/media/table/samples/point_1*.json"))
    assert any(record.get("summary", {}).get("update", {}).get("headline") == "PPO won." for record in found)


def _is_glob(record: dict[str, Any]) -> bool:
    return record["type"] == "metric" and "glob_name" in record["metric"]


def test_nothing_about_the_machine_is_kept(job: Callable[..., JobFile], tmp_path: Path) -> None:
    track(job(), tmp_path / "job")
    text = json.dumps([record for record in records(tmp_path / "job") if record["type"] != "artifact"])

    assert os.uname().nodename not in [record.get("run", {}).get("host") for record in records(tmp_path / "job")]
    assert sys.executable not in text
    assert not list(tmp_path.glob("job/wandb/offline-run-*/files/requirements.txt"))
    assert not list(tmp_path.glob("job/wandb/offline-run-*/files/wandb-metadata.json"))
    assert not list(tmp_path.glob("home/.local/share/wandb/**/*.json"))  # tables are staged in the job's folder


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"WANDB_API_KEY": "too-short"}, "AuthenticationError"),
        ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": DEAD_SERVER}, "CommError: Timed out"),
        ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": SILENT_SERVER}, "CommError: Timed out"),
    ],
    ids=["malformed key", "dead server", "a server that takes the call and never answers"],
)
def test_a_server_that_cannot_be_used_means_offline_and_training_goes_on(
    job: Callable[..., JobFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    reason: str,
) -> None:
    """A dead server is asked again until the client gives up by itself; how long that may take, it was told."""
    silent = socket.create_server(("127.0.0.1", 0))
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(port=silent.getsockname()[1]))
    with silent:
        track(job(), tmp_path / "job")

    settings = job().tracker
    assert isinstance(settings, WandbTracker)
    assert _arguments(settings, job(), tmp_path, None)["settings"].init_timeout == 3
    assert len(read_metrics(tmp_path / "job")) == 2
    assert any(record["type"] == "history" for record in records(tmp_path / "job"))
    said = capsys.readouterr().err
    assert f"W&B goes offline: {reason}" in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("machine example.org login user password {key}\n", True),
        ("machine other.org login user password {key}\n", False),
    ],
)
def test_a_key_in_netrc_counts_for_its_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: bool
) -> None:
    (tmp_path / "netrc").write_text(content.format(key=KEY))
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org")

    assert has_key() is expected


def test_no_tracker_leaves_no_trace(planned_without_tracker: JobFile, tmp_path: Path) -> None:
    track(planned_without_tracker, tmp_path / "job")

    assert not (tmp_path / "job" / "wandb").exists()
    assert len(read_metrics(tmp_path / "job")) == 2


@pytest.fixture
def planned_without_tracker(tmp_path: Path) -> JobFile:
    overrides = ["+sweep=smoke", "tracker=none", f"runs_dir={tmp_path}/runs", f"cache_dir={tmp_path}/cache"]
    return make_plan(compose(overrides)).jobs[0].file
