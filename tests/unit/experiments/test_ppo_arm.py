from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from experiments.arms.ppo import PPOTrainer
from experiments.artifacts.reward_scorer import RewardScorer
from experiments.inputs.models import load_base
from experiments.meter import Meter
from experiments.spec import PPO, Model
from experiments.stages import run_stage


@pytest.fixture
def make_trainer(arm_job: Any, artifacts: dict[str, Path], cache_dir: Path) -> Any:
    def make(arm: PPO, **changes: Any) -> PPOTrainer:
        spec = arm_job(arm, **changes)
        return PPOTrainer(spec, arm, artifacts["ranking_data"], artifacts["reward_model"], cache_dir, Meter())

    return make


def first_rollouts(trainer: PPOTrainer) -> Any:
    return trainer.roll_out(next(trainer.prompt_batches(1)), 1)


class TestRollOut:
    def test_kl_to_the_base_is_exactly_0_before_training(self, make_trainer: Any, ppo_arm: PPO) -> None:
        rollouts = first_rollouts(make_trainer(ppo_arm))
        assert torch.equal(rollouts.logp_NT, rollouts.ref_logp_NT)

    def test_the_critic_starts_as_the_reward_models_own_estimate(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        rollouts = first_rollouts(trainer)
        assert torch.equal(rollouts.values_NT, torch.cat(rollouts.prefix_scores))
        assert (rollouts.values_NT[:, 0] == 0).all()
        assert rollouts.values_NT.std() > 0

    def test_every_prompt_comes_once_before_any_comes_again(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        seen = [prompt.prompt_id for batch in trainer.prompt_batches(3) for prompt in batch]
        assert len(seen) == 24
        assert len(set(seen[:12])) == len(set(seen[12:])) == 12


class TestUpdate:
    def test_makes_epochs_times_minibatches_steps_in_every_update(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        for update, prompts in enumerate(trainer.prompt_batches(3), start=1):
            trainer.update(trainer.roll_out(prompts, update), update)
            assert trainer.meter.optimizer_steps == update * ppo_arm.num_epochs * ppo_arm.num_minibatches

    def test_at_learning_rate_0_the_ratio_is_1_in_every_step(self, make_trainer: Any, ppo_arm: PPO) -> None:
        still = ppo_arm.model_copy(update={"learning_rate": 1e-300})
        trainer = make_trainer(still)
        losses = trainer.update(first_rollouts(trainer), 1)
        assert losses["ppo/approx_kl"] == 0
        assert losses["ppo/clip_fraction"] == 0

    @pytest.mark.parametrize("rows", [1, 2, 8])
    def test_the_gradient_does_not_depend_on_the_micro_batches(
        self, make_trainer: Any, ppo_arm: PPO, rows: int
    ) -> None:
        def gradients(rows_per_microbatch: int) -> list[torch.Tensor]:
            arm = ppo_arm.model_copy(
                update={
                    "num_minibatches": 1,
                    "num_epochs": 1,
                    "rows_per_microbatch": rows_per_microbatch,
                    "max_gradient_norm": 1e9,
                }
            )
            trainer = make_trainer(arm)
            trainer.policy.double()
            trainer.value.double()
            trainer.reward = RewardScorer(
                trainer.policy, trainer.reward.weight.double(), trainer.reward.bias.double(), trainer.reward.eos_id
            )
            rollouts = first_rollouts(trainer)
            trainer._step(rollouts, list(range(len(rollouts.batches))))
            return [p.grad for p in trainer.policy_parameters]

        for mine, whole in zip(gradients(rows), gradients(4), strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-6, atol=1e-9)

    def test_changes_the_policy_and_nothing_else(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        before = {name: p.detach().clone() for name, p in trainer.policy.named_parameters()}
        for update, prompts in enumerate(trainer.prompt_batches(2), start=1):
            trainer.update(trainer.roll_out(prompts, update), update)
        changed = {name for name, p in trainer.policy.named_parameters() if not torch.equal(p, before[name])}
        assert all("lora_" in name and ".default." in name for name in changed)
        trained = [name for name in before if ".default." in name]
        assert len(changed) > 0.99 * len(trained)

    def test_the_gradient_is_clipped(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm.model_copy(update={"max_gradient_norm": 1e-6}))
        rollouts = first_rollouts(trainer)
        reported = trainer._step(rollouts, [0])["train/gradient_norm"]
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in trainer.policy_parameters))
        assert reported > 1e-6
        assert norm == pytest.approx(1e-6, rel=1e-2)


class TestTrain:
    def run(
        self,
        arm: PPO,
        arm_job: Any,
        artifacts: dict[str, Path],
        cache_dir: Path,
        folder: Path,
        recorder: Any,
        **changes: Any,
    ) -> Any:
        folder.mkdir(exist_ok=True)
        run_stage("arm", arm_job(arm, **changes), artifacts, folder, cache_dir, recorder)
        return recorder

    def test_every_row_carries_growing_axes_and_finite_numbers(
        self, ppo_arm: PPO, arm_job: Any, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any
    ) -> None:
        self.run(ppo_arm, arm_job, artifacts, cache_dir, tmp_path, recorder)
        axes = [axes for _, _, axes, _ in recorder.rows]
        assert [a.prompts_seen for a in axes] == [8, 16]
        assert [a.optimizer_steps for a in axes] == [4, 8]
        assert axes[1].tokens_trained > axes[0].tokens_trained > axes[0].tokens_generated > 0
        assert axes[1].wall_seconds > axes[0].wall_seconds > 0
        assert axes[0].peak_memory_bytes > 0
        assert all(math.isfinite(value) for _, values, _, _ in recorder.rows for value in values.values())
        assert recorder.values("ppo/kl")[0] == 0

    def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(
        self, ppo_arm: PPO, arm_job: Any, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path
    ) -> None:
        from copy import deepcopy

        class Keep:
            def __init__(self) -> None:
                self.values: list[Any] = []

            def metrics(self, phase: str, values: Any, axes: Any, point: int | None = None) -> None:
                self.values.append(deepcopy(dict(values)))

            def progress(self, *_: Any) -> None: ...

        runs = [Keep() for _ in range(3)]
        for recorder, (name, seed) in zip(runs, [("a", 0), ("b", 0), ("c", 1)], strict=True):
            self.run(ppo_arm, arm_job, artifacts, cache_dir, tmp_path / name, recorder, seed=seed)
        assert runs[0].values == runs[1].values
        assert runs[0].values != runs[2].values
        weights = [(tmp_path / name / "adapters/point_2/adapter_model.safetensors").read_bytes() for name in "abc"]
        assert weights[0] == weights[1] != weights[2]

    def test_the_kept_adapters_load_with_peft_alone(
        self,
        ppo_arm: PPO,
        arm_job: Any,
        artifacts: dict[str, Path],
        cache_dir: Path,
        tmp_path: Path,
        recorder: Any,
        tiny: Model,
    ) -> None:
        self.run(ppo_arm, arm_job, artifacts, cache_dir, tmp_path, recorder)
        assert sorted(p.name for p in (tmp_path / "adapters").iterdir()) == ["point_1", "point_2"]
        model = PeftModel.from_pretrained(load_base(tiny, cache_dir), tmp_path / "adapters" / "point_2")
        with torch.no_grad():
            tuned = model(input_ids=torch.tensor([[1, 2, 3]])).logits
            with model.disable_adapter():
                assert not torch.equal(tuned, model(input_ids=torch.tensor([[1, 2, 3]])).logits)

    def test_ppo_raises_the_reward_it_is_given(
        self, ppo_arm: PPO, arm_job: Any, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any
    ) -> None:
        eager = ppo_arm.model_copy(update={"learning_rate": 1e-2, "kl_coefficient": 0.0, "num_epochs": 4})
        self.run(eager, arm_job, artifacts, cache_dir, tmp_path, recorder, num_prompts=320)
        scores = recorder.values("ppo/score_mean")
        assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.5
        assert sum(recorder.values("ppo/kl")[-5:]) > 0
