"""A sweep with both judges, through the command a person types, against a real server; then without asking again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
KEY = "sk-end-to-end-0123456789"


def run(
    runner: Sequence[str], folder: Path, url: str, *overrides: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    settings = [
        f"runs_dir={folder / 'runs'}",
        f"cache_dir={folder / 'cache'}",
        "tracker=none",
        f"judge.endpoint.base_url={url}",
        "judge.endpoint.model=judge",
        "judge.endpoint.api_key_variable=JUDGE_KEY",
        "judge.endpoint.prompt_price=1",
        "judge.endpoint.completion_price=4",
        "judge.endpoint.concurrency=2",
        "judge.endpoint.max_samples_per_prompt=2",
        "++arm.learning_rate=0.05",  # at the smoke sweep's own the tiny arms still answer as the base does
    ]
    hidden = ("OMP_", "MKL_", "JUDGE_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return subprocess.run(
        [*runner, "+sweep=smoke", *settings, *overrides],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def reward_model_of(folder: Path) -> Path:
    return next((folder / "cache" / "artifacts" / "reward_model").iterdir())


@pytest.mark.timeout(900)
def test_preferences_of_both_judges_end_in_the_report_and_nothing_is_asked_twice(
    with_artifacts: Path, chat: ModuleType, smoke_runner: Sequence[str]
) -> None:
    tmp_path, start = with_artifacts, partial(run, smoke_runner, with_artifacts)
    with chat.ChatServer().running() as server:
        missing = start(server.url, "judge=endpoint")
        assert missing.returncode == 2
        assert "judge.endpoint.api_key_variable: there is no such environment variable" in missing.stderr
        assert not (tmp_path / "runs").exists()

        first = start(server.url, "judge=endpoint", JUDGE_KEY=KEY)
        assert first.returncode == 0, first.stdout + first.stderr
        asked = len(server.asked)
        assert 20 < asked <= 2 * 16 * 2 * 6  # orders x prompts x samples x contests, fewer where responses are equal
        assert {request.headers["Authorization"] for request in server.asked} == {f"Bearer {KEY}"}

        server.judge = lambda request: chat.Reply(status=500, raw=f"no more questions, {KEY}")
        both = ("judge=[endpoint,reward_model]", f"judge.reward_model.path={reward_model_of(tmp_path)}")
        second = start(server.url, *both, "judge.endpoint.max_cost=20", JUDGE_KEY=KEY)
        assert second.returncode == 0, second.stdout + second.stderr
        assert len(server.asked) == asked  # another cap makes the judge's job again, from the cache

    sweep = tmp_path / "runs" / "smoke"
    check_report(json.loads((sweep / "report" / "report.json").read_text()), sweep, asked)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    assert KEY not in first.stdout + first.stderr + second.stdout + second.stderr


def check_report(report: dict[str, Any], sweep: Path, asked: int) -> None:
    endpoint, reward = report["asked_judges"]
    arms = ("ppo", "dpo", "ppo_then_dpo")
    pairs = [*((arm, "base") for arm in arms), ("ppo", "dpo"), ("ppo_then_dpo", "ppo"), ("ppo_then_dpo", "dpo")]
    for judge in (endpoint, reward):
        assert {(contest["arm"], contest["opponent"]) for contest in judge["contests"]} == set(pairs)
        assert all(0 <= contest["preference"]["value"] <= 100 for contest in judge["contests"])
    assert (endpoint["name"], endpoint["relation"]) == ("endpoint", "INDEPENDENT")
    assert endpoint["numbers"]["judge/num_requests"] == 0
    assert endpoint["numbers"]["judge/num_cached_answers"] == asked
    assert all(contest["swap_consistency"]["value"] == 100 for contest in endpoint["contests"])
    assert all(contest["counts"] for contest in endpoint["contests"])
    assert (reward["name"], reward["relation"]) == ("reward_model", "IS THE TRAINING REWARD")
    assert not any(contest["counts"] for contest in reward["contests"])
    rows = pd.read_parquet(sweep / "judges" / "endpoint" / "preferences.parquet")
    samples = pd.read_parquet(sweep / "ppo/seed0/evaluation/samples/point_2.parquet").set_index(
        ["prompt_id", "sample_id"]
    )
    base = pd.read_parquet(sweep / "shared/base_evaluation/samples/point_0.parquet").query("stream == 1")
    lengths = [frame["response"].str.len() for frame in (samples, base.set_index(["prompt_id", "sample_id"]))]
    for row in rows[(rows["arm"] == "ppo") & (rows["opponent"] == "base")].itertuples():
        ours, theirs = (of[row.prompt_id, row.sample_id] for of in lengths)
        assert row.score == (0.5 if ours == theirs else float(ours > theirs))  # the server prefers the longer
    report_html = (sweep / "report" / "report.html").read_text()
    assert "Further judges" in report_html
