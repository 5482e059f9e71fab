from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.inputs import models
from experiments.spec import PPO, BaseEvaluationJobSpec, EvaluationJobSpec
from experiments.stages import run_stage


@pytest.fixture
def base_rows(
    base_evaluation_job: BaseEvaluationJobSpec,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path: Path,
    recorder: Any,
) -> list[Any]:
    run_stage("base_evaluation", base_evaluation_job, artifacts, tmp_path, cache_dir, recorder)
    return recorder.sample_rows[0]  # type: ignore[no-any-return]


def test_the_base_is_sampled_with_two_sets_of_random_numbers(base_rows: list[Any], recorder: Any) -> None:
    assert [row["stream"] for row in base_rows] == [1] * 12 + [2] * 12 + [3] * 18
    assert [row["prompt_id"] for row in base_rows[:12]] == [row["prompt_id"] for row in base_rows[12:24]]
    assert [row["response"] for row in base_rows[:12]] != [row["response"] for row in base_rows[12:24]]
    assert {row["sample_id"] for row in base_rows[:24]} == {0, 1}


def test_further_samples_of_the_base_are_new_and_judged_like_the_others(base_rows: list[Any]) -> None:
    further = base_rows[24:]
    assert [(row["prompt_id"], row["sample_id"]) for row in further] == [
        (row["prompt_id"], sample) for row in base_rows[:12:2] for sample in range(3)
    ]
    assert not {row["response"] for row in further} & {row["response"] for row in base_rows[:24]}
    assert len({row["scores"]["proxy"] for row in further}) > 10


def test_the_base_is_not_sampled_further_unless_asked(
    base_evaluation_job: BaseEvaluationJobSpec,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path: Path,
    recorder: Any,
) -> None:
    spec = base_evaluation_job.model_copy(update={"further_samples_per_prompt": 0})
    run_stage("base_evaluation", spec, artifacts, tmp_path, cache_dir, recorder)
    assert {row["stream"] for row in recorder.sample_rows[0]} == {1, 2}


def test_the_base_has_no_kl_to_itself(base_rows: list[Any], recorder: Any) -> None:
    assert all(row["logp_policy"] == row["logp_base"] < 0 for row in base_rows)
    phase, values, axes, point = recorder.rows[0]
    assert (phase, point, values["evaluation/kl"], axes.prompts_seen) == ("evaluation", 0, 0.0, 0)


def test_every_score_is_finite_and_on_its_scale(base_rows: list[Any]) -> None:
    for row in base_rows:
        assert 0 <= row["scores"]["gold"] <= 1
        assert -1 <= row["scores"]["vader"] <= 1
        assert math.isfinite(row["scores"]["proxy"])
        assert 1 <= row["num_tokens"] <= 8


@pytest.fixture
def evaluate(
    evaluation_job: EvaluationJobSpec,
    ppo_arm: PPO,
    arm_job: Any,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path: Path,
    make_recorder: Any,
) -> Any:
    """Train the PPO arm at some learning rate and evaluate what it kept; returns the evaluation's records."""

    def train_and_evaluate(learning_rate: float) -> Any:
        folder, evaluation = tmp_path / "arm", make_recorder()
        folder.mkdir()
        arm = ppo_arm.model_copy(update={"learning_rate": learning_rate})
        run_stage("arm", arm_job(arm), artifacts, folder, cache_dir, make_recorder())
        run_stage("evaluation", evaluation_job, {**artifacts, "arm": folder}, tmp_path, cache_dir, evaluation)
        return evaluation

    return train_and_evaluate


def test_an_arm_is_evaluated_at_each_kept_point_on_the_axes_of_its_training(
    base_rows: list[Any], evaluate: Any
) -> None:
    evaluation = evaluate(learning_rate=1e-2)
    assert sorted(evaluation.sample_rows) == [1, 2]
    assert [row[3] for row in evaluation.rows] == [1, 2]
    assert [row[2].prompts_seen for row in evaluation.rows] == [8, 16]
    final = evaluation.sample_rows[2]
    assert [(r["prompt_id"], r["sample_id"]) for r in final] == [
        (r["prompt_id"], r["sample_id"]) for r in base_rows[:12]
    ]
    assert any(row["logp_policy"] != row["logp_base"] for row in final)


def test_an_untrained_arm_answers_exactly_as_the_base(base_rows: list[Any], evaluate: Any) -> None:
    """Common random numbers: a policy equal to the base must give the base's own responses."""
    keys = ("response", "scores", "num_tokens", "finish_reason")
    final = evaluate(learning_rate=1e-300).sample_rows[2]
    assert [[row[k] for k in keys] for row in final] == [[row[k] for k in keys] for row in base_rows[:12]]


def test_kl_in_half_precision_is_the_difference_of_two_passes(
    base_rows: list[Any], evaluate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy equal to the base has a KL of exactly 0, though in half precision its sampler rounds unlike a pass."""
    monkeypatch.setattr(models, "arithmetic", lambda model: torch.bfloat16)
    final = evaluate(learning_rate=1e-300).sample_rows[2]
    assert [row["logp_policy"] for row in final] == [row["logp_base"] for row in final]
    assert any(row["logp_policy"] != base["logp_policy"] for row, base in zip(final, base_rows, strict=False))
