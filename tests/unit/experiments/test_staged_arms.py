"""Arms that start from a checkpoint of another arm: real tiny training, one PPO arm for all tests."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from experiments.arms import interpolation
from experiments.artifacts.ranking import build_fresh, load, load_spent
from experiments.errors import InputError
from experiments.evaluation import evaluate
from experiments.inputs import adapters as checkpoints
from experiments.inputs.models import load_base, with_policy
from experiments.model_spec import Model
from experiments.records import SAMPLES_FILE, Axes, to_record
from experiments.sampling.logprobs import total_logprobs
from experiments.spec import DPO, PPO, ArmJobSpec, FreshPairsJobSpec, Interpolation, PPOThenDPO, Start
from experiments.stages import run_stage

# Of 48 prompts PPO takes 24 (three updates of eight), DPO the other 24 (three steps of eight pairs).
BUDGET: dict[str, Any] = {"num_prompts": 48, "num_points": 3}
START = Start(arm="ppo", share=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("staged")


@pytest.fixture
def staged_job(arm_job: Any, dpo_arm: DPO) -> ArmJobSpec:
    arm = PPOThenDPO(**dict(dpo_arm) | {"algorithm": "ppo_then_dpo", "name": "ppo_then_dpo", "start": START})
    spec: ArmJobSpec = arm_job(arm, **BUDGET)
    return spec


@pytest.fixture
def interpolated_job(arm_job: Any) -> ArmJobSpec:
    arm = Interpolation(algorithm="interpolation", name="half", start=START, weight=0.25)
    spec: ArmJobSpec = arm_job(arm, **BUDGET)
    return spec


@pytest.fixture
def needs(
    folder: Path, artifacts: dict[str, Path], cache_dir: Path, arm_job: Any, ppo_arm: PPO, make_recorder: Any
) -> dict[str, Path]:
    """A finished PPO arm, and pairs sampled from its first point."""
    found = {**artifacts, "start": folder / "ppo", "fresh_pairs": folder / "pairs"}
    if not found["start"].exists():
        job = arm_job(ppo_arm.model_copy(update={"learning_rate": 0.02}), **BUDGET)
        pairs = FreshPairsJobSpec(model=job.model, data=job.data, num_ranking_prompts=12, start_point=1, seed=0)
        for kind, spec, role in (("arm", job, "start"), ("fresh_pairs", pairs, "fresh_pairs")):
            found[role].mkdir()
            run_stage(kind, spec, found, found[role], cache_dir, make_recorder())
    return found


@pytest.fixture
def trained(folder: Path, needs: dict[str, Path], staged_job: ArmJobSpec, cache_dir: Path, make_recorder: Any) -> Any:
    """The staged arm's folder and what it recorded."""
    path, recorder = folder / "ppo_then_dpo", make_recorder()
    if not path.exists():
        path.mkdir()
        run_stage("arm", staged_job, needs, path, cache_dir, recorder)
        (path / "rows.json").write_text(json.dumps([(values, asdict(axes)) for _, values, axes, _ in recorder.rows]))
    return path, json.loads((path / "rows.json").read_text())


def policy_at(weights: Path, tiny: Model, cache_dir: Path) -> Any:
    policy = with_policy(load_base(tiny, cache_dir), tiny.lora, seed=0)
    set_peft_model_state_dict(policy, load_file(weights), adapter_name="default")
    return policy


def test_the_reference_of_the_second_stage_is_the_checkpoint(trained: Any) -> None:
    first = trained[1][0][0]

    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["dpo/reward_margin"] == pytest.approx(0, abs=1e-5)
    assert first["dpo/chosen_reward"] == pytest.approx(0, abs=1e-5)
    assert trained[1][-1][0]["dpo/reward_margin"] > 1e-3


def test_the_pairs_are_samples_of_the_checkpoint(
    needs: dict[str, Path], tiny: Model, data: Any, cache_dir: Path, tmp_path: Path, recorder: Any
) -> None:
    """Their log-probs, as the sampler had them, are those under the checkpoint, and not those under the base."""
    spec = FreshPairsJobSpec(model=tiny, data=data, num_ranking_prompts=12, start_point=1, seed=0)
    build_fresh(spec, needs, tmp_path, cache_dir, recorder)
    sampled = [row["logp_policy"] for row in recorder.sample_rows[0]]
    ranked, of_base = load(tmp_path), load(needs["ranking_data"])
    prompts = [prompt.prompt_ids for prompt in ranked for _ in prompt.response_ids]
    responses = [ids for prompt in ranked for ids in prompt.response_ids]
    checkpoint = policy_at(checkpoints.weights_file(needs["start"], 1), tiny, cache_dir)
    ours, bases = (
        total_logprobs(model, prompts, responses, temperature=1.0, pad_id=0)
        for model in (checkpoint, load_base(tiny, cache_dir))
    )

    assert sampled == pytest.approx(ours, abs=1e-3)
    assert max(abs(a - b) for a, b in zip(sampled, bases, strict=True)) > 0.1
    assert responses == [ids for prompt in load(needs["fresh_pairs"]) for ids in prompt.response_ids]
    assert [prompt.prompt_id for prompt in ranked] == [prompt.prompt_id for prompt in of_base]
    assert responses != [ids for prompt in of_base for ids in prompt.response_ids]
    assert load_spent(tmp_path).tokens_generated == sum(map(len, responses))


def test_the_first_points_and_their_costs_are_the_other_arms(trained: Any, needs: dict[str, Path]) -> None:
    path, rows = trained
    spent = checkpoints.load_axes(needs["start"], 1)
    final = checkpoints.load_axes(path, 2)

    assert checkpoints.points(path) == [1, 2]
    assert checkpoints.inherited_points(path) == 1
    assert checkpoints.load_axes(path, 1) == spent
    assert final.prompts_seen == 48
    assert final.tokens_generated == spent.tokens_generated + load_spent(needs["fresh_pairs"]).tokens_generated
    assert final.optimizer_steps == spent.optimizer_steps + 3
    assert final.wall_seconds > spent.wall_seconds + load_spent(needs["fresh_pairs"]).wall_seconds
    assert [axes["prompts_seen"] for _, axes in rows] == [32, 40, 48]


def test_dpo_moves_the_checkpoints_weights(trained: Any, needs: dict[str, Path]) -> None:
    start, final = (
        load_file(checkpoints.weights_file(path, 1 + late)) for late, path in enumerate([needs["start"], trained[0]])
    )
    far = load_file(checkpoints.weights_file(needs["start"], 2))

    assert all(not torch.equal(start[name], final[name]) for name in start)
    assert any(not torch.equal(far[name], final[name]) for name in start)


def test_a_staged_arm_that_was_killed_goes_on_to_the_same_weights(
    trained: Any, needs: dict[str, Path], staged_job: ArmJobSpec, cache_dir: Path, tmp_path: Path, make_recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recorder, real, steps = make_recorder(), make_recorder.progress, []

    def die_in_the_second_step(self: Any, stage: str, done: int, total: int, unit: str) -> None:
        real(self, stage, done, total, unit)
        steps.append(done)
        if steps == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(make_recorder, "progress", die_in_the_second_step)
    with pytest.raises(KeyboardInterrupt):
        run_stage("arm", staged_job, needs, tmp_path, cache_dir, recorder)
    run_stage("arm", staged_job, needs, tmp_path, cache_dir, recorder)
    ours, undisturbed = (load_file(checkpoints.weights_file(path, 2)) for path in (tmp_path, trained[0]))

    assert steps == [1, 2, 2, 3]
    assert all(torch.equal(ours[name], undisturbed[name]) for name in ours)
    assert [row[2].prompts_seen for row in recorder.rows] == [32, 40, 48]


def test_shared_points_are_taken_from_the_other_arms_evaluation(
    trained: Any, needs: dict[str, Path], evaluation_job: Any, cache_dir: Path, tmp_path: Path, make_recorder: Any
) -> None:
    first, ours, alone = make_recorder(), make_recorder(), make_recorder()
    evaluate.evaluate_arm(evaluation_job, needs | {"arm": needs["start"]}, tmp_path, cache_dir, first)
    for point, rows in first.sample_rows.items():
        path = tmp_path / SAMPLES_FILE.format(point=point)
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(map(to_record, rows)).to_parquet(path)
    own = needs | {"arm": trained[0]}
    evaluate.evaluate_arm(evaluation_job, own | {"start_evaluation": tmp_path}, tmp_path, cache_dir, ours)
    evaluate.evaluate_arm(evaluation_job, own, tmp_path, cache_dir, alone)

    assert ours.sample_rows == alone.sample_rows
    assert ours.rows == alone.rows
    assert {stage for stage, *_ in ours.steps} == {"point 2 of 2"}


def test_interpolation_is_linear_in_the_merged_weights(
    needs: dict[str, Path], interpolated_job: ArmJobSpec, cache_dir: Path, tmp_path: Path, tiny: Model, recorder: Any
) -> None:
    run_stage("arm", interpolated_job, needs, tmp_path, cache_dir, recorder)
    start, final = (
        policy_at(checkpoints.weights_file(path, point), tiny, cache_dir).merge_and_unload().state_dict()
        for path, point in ((needs["start"], 1), (tmp_path, 2))
    )
    base = load_base(tiny, cache_dir).state_dict()
    moved = [name for name in base if not torch.equal(base[name], start[name])]

    assert len(moved) > 5
    for name in base:
        torch.testing.assert_close(final[name], 0.75 * base[name] + 0.25 * start[name], rtol=1e-5, atol=1e-6)
    assert recorder.values("interpolation/weight") == [0.25]
    assert checkpoints.load_axes(tmp_path, 2).prompts_seen == 24


def test_interpolation_walks_evenly_from_the_checkpoint() -> None:
    assert interpolation.path(0.25, 3) == pytest.approx([0.75, 0.5, 0.25])


def test_more_than_a_low_rank_update_is_not_interpolated(
    needs: dict[str, Path], interpolated_job: ArmJobSpec, cache_dir: Path, tmp_path: Path, recorder: Any
) -> None:
    start = tmp_path / "start" / "adapters" / "point_1"
    start.mkdir(parents=True)
    save_file({"model.embed_tokens.weight": torch.ones(2)}, start / "adapter_model.safetensors")
    (start / "axes.json").write_text(json.dumps(asdict(Axes())))
    with pytest.raises(InputError, match=r"arm ppo cannot be interpolated: model\.embed_tokens\.weight"):
        interpolation.build(interpolated_job, tmp_path / "start", tmp_path, cache_dir, recorder)


def test_costs_of_two_jobs_add_up_and_memory_is_the_larger() -> None:
    first, later = Axes(1, 2, 3, 4, 5.0, 6.0, 70), Axes(10, 20, 30, 40, 50.0, 60.0, 7)

    assert first.then(later) == Axes(11, 22, 33, 44, 55.0, 66.0, 70)
