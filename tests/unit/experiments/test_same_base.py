"""A job that loads another base than the one that was sampled ends, and says why; rounding passes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.arms import resume
from experiments.artifacts import ranking, same_base
from experiments.errors import InputError
from experiments.inputs import models
from experiments.inputs.models import load_base, prepare_model, with_policy
from experiments.model_spec import Model
from experiments.spec import DPO, PPO, FreshPairsJobSpec, RewardModel, RewardModelJobSpec
from experiments.stages import run_stage


@pytest.fixture
def changed_model(tiny: Model, cache_dir: Path, tmp_path: Path) -> Any:
    """The tiny model with other weights: `change` gets its tensors."""

    def make(change: Any) -> Model:
        folder = tmp_path / "changed"
        shutil.copytree(prepare_model(tiny, cache_dir), folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return tiny.model_copy(update={"path": str(folder)})

    return make


def loaded_as(model: Model, artifacts: dict[str, Path], cache_dir: Path) -> None:
    with same_base.same_as_in(artifacts["ranking_data"]):
        load_base(model, cache_dir)


def test_distance_is_rounding_per_token() -> None:
    assert same_base.distance([-10.0, -20.0], [-10.3, -20.4], [9, 16]) == pytest.approx(math.sqrt(0.25 / 25))
    assert math.isnan(same_base.distance([-10.0], [math.nan], [3]))


def test_the_same_base_passes_whatever_it_is_multiplied_in(
    tiny: Model, artifacts: dict[str, Path], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded in float32, scored again in float64, bfloat16, and bfloat16's weights multiplied in float32."""
    for dtype in ("float32", "float64", "bfloat16"):
        loaded_as(tiny.model_copy(update={"dtype": dtype}), artifacts, cache_dir)
    monkeypatch.setattr(models, "arithmetic", lambda model: torch.float32)
    loaded_as(tiny.model_copy(update={"dtype": "bfloat16"}), artifacts, cache_dir)


def test_rows_that_nobody_scored_are_left_out(
    tiny: Model, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path
) -> None:
    """On a bfloat16 base only DPO's responses have log-probs."""
    frame = pd.read_parquet(artifacts["ranking_data"] / ranking.FILE)
    frame.loc[frame.index % 3 > 0, "reference_logp"] = math.nan
    frame.to_parquet(tmp_path / ranking.FILE)
    loaded_as(tiny, {"ranking_data": tmp_path}, cache_dir)


def test_without_any_finite_log_prob_it_says_so(
    tiny: Model, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path
) -> None:
    pd.read_parquet(artifacts["ranking_data"] / ranking.FILE).assign(reference_logp=math.nan).to_parquet(
        tmp_path / ranking.FILE
    )
    with pytest.raises(InputError, match="no finite log-prob"):
        loaded_as(tiny, {"ranking_data": tmp_path}, cache_dir)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_checkpoint_is_refused(dtype: str, changed_model: Any, artifacts: Any, cache_dir: Path) -> None:
    def draw_again(tensors: dict[str, torch.Tensor]) -> None:
        random = torch.Generator().manual_seed(1)
        name = "model.embed_tokens.weight"  # the head as well
        tensors[name] = 0.5 * torch.randn(tensors[name].shape, generator=random)

    with pytest.raises(InputError, match=r"not the base that was sampled.*nats a token off.*Likely causes"):
        loaded_as(changed_model(draw_again).model_copy(update={"dtype": dtype}), artifacts, cache_dir)


def test_an_update_that_was_merged_is_refused(
    tiny: Model, changed_model: Any, artifacts: dict[str, Path], cache_dir: Path
) -> None:
    policy = with_policy(load_base(tiny, cache_dir), tiny.lora, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    merged: Any = policy.merge_and_unload()

    def merge(tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {name: merged.state_dict()[name].clone(memory_format=torch.contiguous_format) for name in tensors}

    with pytest.raises(InputError, match="not the base that was sampled"):
        loaded_as(changed_model(merge), artifacts, cache_dir)


@pytest.fixture
def others_samples(artifacts: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The artifacts, with log-probs that another base has given."""
    folder = tmp_path / "ranking_data"
    shutil.copytree(artifacts["ranking_data"], folder)
    frame = pd.read_parquet(folder / ranking.FILE)
    frame["reference_logp"] += np.where(frame.index % 2, 1.0, -1.0)
    frame.to_parquet(folder / ranking.FILE)
    return {**artifacts, "ranking_data": folder}


@pytest.mark.parametrize("job", ["reward_model", "ppo", "dpo", "base_evaluation", "evaluation", "fresh_pairs"])
def test_every_job_that_loads_the_base_checks_it(
    job: str, others_samples: dict[str, Path], artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path,
    tiny: Model, data: Any, arm_job: Any, ppo_arm: PPO, dpo_arm: DPO, evaluation_job: Any, base_evaluation_job: Any,
    recorder: Any,
) -> None:  # fmt: skip
    reward = RewardModel(learning_rate=1e-3, num_epochs=1, comparisons_per_step=12, held_out_fraction=0.25)
    kind, spec = {
        "reward_model": (
            "reward_model",
            RewardModelJobSpec(task="sentiment", model=tiny, reward_model=reward, comparisons="all", seed=0),
        ),
        "ppo": ("arm", arm_job(ppo_arm)),
        "dpo": ("arm", arm_job(dpo_arm)),
        "base_evaluation": ("base_evaluation", base_evaluation_job),
        "evaluation": ("evaluation", evaluation_job),
        "fresh_pairs": (
            "fresh_pairs",
            FreshPairsJobSpec(model=tiny, data=data, num_ranking_prompts=2, start_point=1, seed=0),
        ),
    }[job]
    needs = {**others_samples, "arm": tmp_path, "start": tmp_path}
    with pytest.raises(InputError, match="not the base that was sampled"):
        run_stage(kind, spec, needs, tmp_path, cache_dir, recorder)
    assert not recorder.rows


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_a_resumed_arm_checks_it_as_well(
    algorithm: str, others_samples: dict[str, Path], artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path,
    arm_job: Any, ppo_arm: PPO, dpo_arm: DPO, recorder: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def kill(stage: str, done: int, *_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "MAX_SHARE_OF_TIME", math.inf)
    spec = arm_job(ppo_arm if algorithm == "ppo" else dpo_arm)
    recorder.progress = kill
    with pytest.raises(KeyboardInterrupt):
        run_stage("arm", spec, artifacts, tmp_path, cache_dir, recorder)
    del recorder.progress
    with pytest.raises(InputError, match="not the base that was sampled"):
        run_stage("arm", spec, others_samples, tmp_path, cache_dir, recorder)
    run_stage("arm", spec, artifacts, tmp_path, cache_dir, recorder)
    assert len(recorder.rows) == 2


def test_dpo_ends_before_its_first_step_where_training_mode_computes_something_else(
    tiny: Model, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, arm_job: Any, dpo_arm: DPO, recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A dropout that is read in another way than by a number or a layer of that name."""
    sound = models.load

    def shaky(*args: Any, **options: Any) -> Any:
        base = sound(*args, **options)
        base.model.embed_tokens.register_forward_hook(
            lambda module, inputs, output: torch.nn.functional.dropout(output, 0.1, module.training)
        )
        return base

    monkeypatch.setattr(models, "load", shaky)
    with pytest.raises(InputError, match=r"before its first step.*training mode"):
        run_stage("arm", arm_job(dpo_arm), artifacts, tmp_path, cache_dir, recorder)
    assert not recorder.rows
