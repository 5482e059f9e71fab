from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from experiments.algorithms import kl, ppo
from experiments.arms.ppo import PPOTrainer
from experiments.arms.rollouts import Microbatch, Rollouts, treat_truncation
from experiments.errors import DivergedError
from experiments.inputs import models
from experiments.inputs.models import load_base
from experiments.meter import Meter
from experiments.model_spec import Model
from experiments.sampling.batch import make_batch
from experiments.sampling.logprobs import response_logprobs
from experiments.sampling.sampler import Response
from experiments.spec import PPO, AdaptiveKL
from experiments.stages import run_stage


@pytest.fixture(scope="module")
def tiny64(tiny: Model) -> Model:
    return tiny.model_copy(update={"dtype": "float64"})


@pytest.fixture
def make_trainer(arm_job: Any, artifacts: dict[str, Path], cache_dir: Path) -> Any:
    def make(arm: PPO, **changes: Any) -> PPOTrainer:
        spec = arm_job(arm, **changes)
        return PPOTrainer(spec, arm, artifacts["ranking_data"], artifacts["reward_model"], cache_dir, Meter())

    return make


@pytest.fixture(scope="module")
def trained(
    ppo_arm: PPO,
    arm_job: Any,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_recorder: Any,
) -> tuple[Path, Any]:
    """The arm as it is, of seed 0: its folder and what it said. Not to be written in."""
    folder, recorder = tmp_path_factory.mktemp("trained"), make_recorder()
    run_stage("arm", arm_job(ppo_arm), artifacts, folder, cache_dir, recorder)
    return folder, recorder


def changed(arm: PPO, **values: Any) -> PPO:
    return arm.model_copy(update=values)


def rollouts_of(trainer: PPOTrainer, update: int = 1) -> Rollouts:
    return trainer.roll_out(trainer.prompts_of(update), update)


def minibatch(rollouts: Rollouts) -> Any:
    """All micro-batches as one minibatch."""
    microbatches = [micro for part in rollouts.minibatches for micro in part]
    return list(zip(microbatches, rollouts.states, strict=True))


def mixed_endings(eos_id: int) -> list[Response]:
    """Eight responses of which every other one ended itself, all of different lengths."""
    texts = [list(range(40 + row, 41 + 2 * row)) for row in range(8)]
    return [
        Response([*ids, eos_id], [-5.0] * (len(ids) + 1), "eos")
        if row % 2
        else Response(ids, [-5.0] * len(ids), "length")
        for row, ids in enumerate(texts)
    ]


def estimated(
    trainer: PPOTrainer, responses: list[Response], pad_id: int | None = None, budget: int = 10**6
) -> Rollouts:
    """Rollouts with given responses, whose batches are padded with any token, cut to any size."""
    prompts = trainer.prompts_of(1)
    size = max(1, budget // 50)
    groups = [list(range(start, min(start + size, len(responses)))) for start in range(0, len(responses), size)]
    micro = [
        Microbatch(
            rows,
            make_batch(
                [prompts[row].prompt_ids for row in rows],
                [responses[row].token_ids for row in rows],
                trainer.tokens.eos_ids[0] if pad_id is None else pad_id,
                trainer.policy.device,
                packed=True,
            ),
        )
        for rows in groups
    ]
    return trainer.estimate([micro], responses, [""] * len(responses))


def perturb(trainer: PPOTrainer) -> None:
    """Move policy and critic away from where they start, so that no gradient is 0 by symmetry."""
    generator = torch.Generator().manual_seed(3)
    for parameter in [*trainer.policy_parameters, *trainer.value.parameters()]:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def gradients(trainer: PPOTrainer, rollouts: Rollouts) -> list[torch.Tensor]:
    trainer.step(rollouts, minibatch(rollouts), first_pass=True)
    return [p.grad for p in [*trainer.policy_parameters, *trainer.value.parameters()] if p.grad is not None]


class TestRollOut:
    def test_kl_to_the_base_is_exactly_0_before_training(self, make_trainer: Any, ppo_arm: PPO) -> None:
        rollouts = rollouts_of(make_trainer(ppo_arm))
        assert torch.equal(rollouts.logp_NT, rollouts.ref_logp_NT)

    def test_rewards_sum_to_score_minus_beta_kl_and_the_score_is_on_the_last_token(
        self, make_trainer: Any, ppo_arm: PPO, tiny64: Model
    ) -> None:
        trainer = make_trainer(ppo_arm, model=tiny64)
        perturb(trainer)
        rollouts = estimated(trainer, mixed_endings(trainer.tokens.eos_ids[0]))
        kl_NT = kl.k1(rollouts.logp_NT, rollouts.ref_logp_NT) * rollouts.mask_NT
        assert kl_NT.abs().max() > 1e-3
        torch.testing.assert_close(
            rollouts.rewards_NT.sum(dim=1), rollouts.score_N - 0.05 * kl_NT.sum(dim=1), rtol=1e-12, atol=1e-12
        )
        last_N = rollouts.mask_NT.sum(dim=1).long() - 1
        rest = rollouts.rewards_NT + 0.05 * kl_NT
        rest[torch.arange(8), last_N] -= rollouts.score_N
        assert rest.abs().max() < 1e-12

    def test_the_critic_starts_as_the_reward_models_own_estimate(self, make_trainer: Any, ppo_arm: PPO) -> None:
        rollouts = rollouts_of(make_trainer(ppo_arm))
        for micro, (_, prefix_scores) in minibatch(rollouts):
            assert torch.equal(micro.cut(rollouts.values_NT), prefix_scores)
        assert (rollouts.values_NT[:, 0] == 0).all()
        assert rollouts.values_NT.std() > 0

    def test_returns_are_raw_advantages_plus_values_and_advantages_are_white(
        self, make_trainer: Any, ppo_arm: PPO, tiny64: Model
    ) -> None:
        trainer = make_trainer(ppo_arm, model=tiny64)
        rollouts = estimated(trainer, mixed_endings(trainer.tokens.eos_ids[0]))
        raw = (rollouts.returns_NT - rollouts.values_NT) * rollouts.mask_NT
        torch.testing.assert_close(ppo.whiten(raw, rollouts.mask_NT), rollouts.advantages_NT, rtol=1e-12, atol=1e-12)
        assert ppo.masked_mean(rollouts.advantages_NT, rollouts.mask_NT).abs() < 1e-12

    def test_every_prompt_comes_once_before_any_comes_again(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        seen = [prompt.prompt_id for update in (1, 2, 3) for prompt in trainer.prompts_of(update)]
        assert len(seen) == 24
        assert len(set(seen[:12])) == len(set(seen[12:])) == 12

    def test_each_rollout_is_in_one_minibatch_and_they_differ_from_update_to_update(
        self, make_trainer: Any, ppo_arm: PPO
    ) -> None:
        trainer = make_trainer(ppo_arm)
        dealt = [
            [sorted(r for m in mini for r in m.rows) for mini in rollouts_of(trainer, u).minibatches] for u in (1, 2)
        ]
        assert all(sorted(row for part in rows for row in part) == list(range(8)) and len(rows) == 2 for rows in dealt)
        assert dealt[0] != dealt[1]

    def test_the_samplers_log_probs_are_those_of_training(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        perturb(trainer)
        assert rollouts_of(trainer).sampler_gap < 1e-5


class TestUpdate:
    def test_makes_epochs_times_minibatches_steps_in_every_update_the_last_of_a_pass_included(
        self, make_trainer: Any, ppo_arm: PPO
    ) -> None:
        trainer = make_trainer(changed(ppo_arm, prompts_per_update=4))  # 12 prompts: update 3 ends a pass
        for update in range(1, 5):
            trainer.update(rollouts_of(trainer, update), update)
            assert trainer.meter.optimizer_steps == update * ppo_arm.num_epochs * ppo_arm.num_minibatches

    @pytest.mark.parametrize("num_minibatches", [1, 2])
    def test_at_learning_rate_0_the_ratio_is_exactly_1_in_every_step(
        self, make_trainer: Any, ppo_arm: PPO, num_minibatches: int
    ) -> None:
        trainer = make_trainer(changed(ppo_arm, learning_rate=1e-300, num_minibatches=num_minibatches))
        rollouts = rollouts_of(trainer)
        seen: list[float] = []
        original = trainer._backward

        def spy(rollouts: Rollouts, micro: Microbatch, *rest: Any) -> Any:
            stats = original(rollouts, micro, *rest)
            new = response_logprobs(trainer.policy, micro.batch, 1.0).logp_BT.detach()
            seen.append(float((ppo.log_ratio(new, micro.cut(rollouts.logp_NT)).exp() - 1).abs().max()))
            return stats

        trainer._backward = spy  # type: ignore[method-assign]
        losses = trainer.update(rollouts, 1)
        assert len(seen) >= 2 * num_minibatches
        assert set(seen) == {0.0}
        assert losses["ppo/approx_kl"] == losses["ppo/clip_fraction"] == 0

    def test_in_bfloat16_the_ratio_starts_at_1_and_the_kl_at_0_all_the_same(
        self, make_trainer: Any, ppo_arm: PPO, tiny: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models, "arithmetic", lambda model: torch.bfloat16)
        arm = changed(ppo_arm, learning_rate=1e-300)
        trainer = make_trainer(arm, model=tiny.model_copy(update={"dtype": "bfloat16"}))
        rollouts = rollouts_of(trainer)
        assert trainer.policy.dtype == torch.bfloat16
        assert torch.equal(rollouts.logp_NT, rollouts.ref_logp_NT)
        assert rollouts.sampler_gap < 0.05
        losses = trainer.update(rollouts, 1)
        assert losses["ppo/approx_kl"] == losses["ppo/clip_fraction"] == 0
        assert losses["train/gradient_norm"] > 0

    @pytest.mark.parametrize("budget", [50, 150, 10**6])
    def test_the_gradient_does_not_depend_on_micro_batches_or_padding(
        self, make_trainer: Any, ppo_arm: PPO, tiny64: Model, budget: int
    ) -> None:
        arm = changed(ppo_arm, max_gradient_norm=1e9)
        found = []
        for size, pad_id in ((10**6, 7), (budget, None)):  # any pad token, and pad = eos
            trainer = make_trainer(arm, model=tiny64)
            perturb(trainer)
            responses = mixed_endings(trainer.tokens.eos_ids[0])
            found.append(gradients(trainer, estimated(trainer, responses, pad_id, size)))
        assert max(float(g.abs().max()) for g in found[0]) > 1e-6
        for whole, cut in zip(*found, strict=True):
            torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max()))

    @pytest.mark.parametrize("budget", [10**6, 100])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_first_pass_as_the_old_one_gives_the_gradient_of_two_passes(
        self, make_trainer: Any, ppo_arm: PPO, monkeypatch: pytest.MonkeyPatch, budget: int, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr(models, "arithmetic", lambda model: dtype)
        trainer = make_trainer(changed(ppo_arm, max_gradient_norm=1e9))
        perturb(trainer)
        state = deepcopy(trainer.optimizer.state_dict()), [p.detach().clone() for p in trainer.policy_parameters]
        rollouts = estimated(trainer, mixed_endings(trainer.tokens.eos_ids[0]), budget=budget)
        assert (len(rollouts.states) > 1) == (budget == 100)
        assert (rollouts.shared_pass is None) == (dtype == torch.float32)
        first = [g.clone() for g in gradients(trainer, rollouts)]
        trainer.optimizer.load_state_dict(state[0])
        for parameter, value in zip(trainer.policy_parameters, state[1], strict=True):
            parameter.data.copy_(value)
        trainer.step(rollouts, minibatch(rollouts))
        own = [p.grad for p in trainer.policy_parameters]
        assert all(torch.equal(a, b) for a, b in zip(first, own, strict=False))

    @pytest.mark.parametrize(("num_minibatches", "expected"), [(1, 3), (2, 2 + 3 * 2)])
    def test_no_pass_is_made_twice(
        self, make_trainer: Any, ppo_arm: PPO, monkeypatch: pytest.MonkeyPatch, num_minibatches: int, expected: int
    ) -> None:
        arm = changed(ppo_arm, num_minibatches=num_minibatches, num_epochs=3, tokens_per_microbatch=10**6)
        trainer, passes = make_trainer(arm), []

        def spy(model: Any, *rest: Any) -> Any:
            passes.append(model.get_base_model().base_model.layers[0].self_attn.q_proj.disable_adapters)
            return response_logprobs(model, *rest)

        monkeypatch.setattr("experiments.arms.ppo.response_logprobs", spy)
        rollouts = rollouts_of(trainer)
        if num_minibatches == 1:
            assert torch.equal(rollouts.logp_NT, rollouts.sampled_logp_NT)
        trainer.update(rollouts, 1)
        assert passes.count(True) == num_minibatches  # the reference
        assert passes.count(False) == expected
        assert 0 < rollouts.sampler_gap < 1e-5
        assert (rollouts.entropy_NT[rollouts.mask_NT.bool()] > 0).all()

    def test_nothing_after_the_end_of_sequence_has_any_gradient(
        self, make_trainer: Any, ppo_arm: PPO, tiny64: Model
    ) -> None:
        trainer = make_trainer(ppo_arm, model=tiny64)
        perturb(trainer)
        rollouts = estimated(trainer, mixed_endings(trainer.tokens.eos_ids[0]))
        embeddings: list[torch.Tensor] = []
        decoder = trainer.policy.get_base_model().base_model

        def keep(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            embeddings.append(output.detach().requires_grad_())
            return embeddings[-1]

        handle = decoder.embed_tokens.register_forward_hook(keep)
        trainer._backward(rollouts, *minibatch(rollouts)[0], None, torch.tensor(1.0), True)
        handle.remove()
        gradient = embeddings[-1].grad
        assert gradient is not None
        batch = minibatch(rollouts)[0][0].batch
        of_response_RL = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
        of_response_RL.view(-1)[batch.states[:, 1:][batch.response_mask.bool()]] = True
        seen_RL = (batch.attention_mask[:, 0] & of_response_RL[:, :, None]).any(dim=1)
        assert not seen_RL.all()
        assert (gradient[~seen_RL] == 0).all()  # padding
        assert (gradient.flatten(0, 1)[batch.states[:, -1]] == 0).all()  # the last token: nothing is predicted from it
        assert (gradient[seen_RL] != 0).any()

    def test_changes_the_policy_and_nothing_else(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(ppo_arm)
        before = {name: p.detach().clone() for name, p in trainer.policy.named_parameters()}
        for update in (1, 2):
            trainer.update(rollouts_of(trainer, update), update)
        moved = {name for name, p in trainer.policy.named_parameters() if not torch.equal(p, before[name])}
        assert all("lora_" in name and ".default." in name for name in moved)
        assert len(moved) > 0.99 * len([name for name in before if ".default." in name])

    def test_the_gradient_is_clipped(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(changed(ppo_arm, max_gradient_norm=1e-6))
        rollouts = rollouts_of(trainer)
        reported = trainer.step(rollouts, minibatch(rollouts))["train/gradient_norm"]
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in trainer.policy_parameters))
        assert reported > 1e-6
        assert norm == pytest.approx(1e-6, rel=1e-2)

    def test_policy_and_critic_have_their_own_rates_and_clipping(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(changed(ppo_arm, value_learning_rate=7e-3, max_gradient_norm=1e-6))
        policy, critic = trainer.optimizer.param_groups
        assert (policy["lr"], critic["lr"]) == (ppo_arm.learning_rate, 7e-3)
        assert {id(p) for p in policy["params"]} == {id(p) for p in trainer.policy_parameters}
        assert {id(p) for p in critic["params"]} == {id(p) for p in trainer.value.parameters()}
        rollouts = rollouts_of(trainer)
        rollouts.returns_NT.add_(100.0)  # a wild critic must not shrink the policy's step
        trainer.step(rollouts, minibatch(rollouts))
        norms = [
            math.sqrt(sum(float((p.grad**2).sum()) for p in group["params"] if p.grad is not None))
            for group in (policy, critic)
        ]
        assert norms == pytest.approx([1e-6, 1e-6], rel=1e-2)

    def test_only_the_first_epoch_of_a_single_minibatch_takes_its_own_log_probs_for_the_old_ones(
        self, make_trainer: Any, ppo_arm: PPO
    ) -> None:
        seen: dict[int, list[bool]] = {1: [], 2: []}
        for num_minibatches, flags in seen.items():
            trainer = make_trainer(changed(ppo_arm, num_minibatches=num_minibatches, num_epochs=2))
            original = trainer.step

            def spy(
                rollouts: Rollouts, minibatch: Any, first_pass: bool, flags: Any = flags, original: Any = original
            ) -> Any:
                flags.append(first_pass)
                return original(rollouts, minibatch, first_pass)

            trainer.step = spy
            assert trainer.update(rollouts_of(trainer), 1)["ppo/approx_kl"] > 0  # later steps see a policy that moved
        assert seen == {1: [True, False], 2: [False] * 4}

    def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted(
        self, make_trainer: Any, ppo_arm: PPO
    ) -> None:
        trainer = make_trainer(changed(ppo_arm, max_skipped_steps=1))
        rollouts = rollouts_of(trainer)
        before = [p.detach().clone() for p in trainer.policy_parameters]
        rollouts.advantages_NT.fill_(math.nan)
        trainer.step(rollouts, minibatch(rollouts))
        assert trainer.num_skipped_steps == 1
        assert all(torch.equal(p, old) for p, old in zip(trainer.policy_parameters, before, strict=True))
        with pytest.raises(DivergedError, match=r"arm ppo: 2 optimizer steps .*max_skipped_steps=1"):
            trainer.step(rollouts, minibatch(rollouts))


class TestAdaptiveKL:
    def test_arithmetic(self) -> None:
        assert kl.adapted_coefficient(0.1, kl=6.0, target=6.0, num_prompts=64, horizon_prompts=6400) == 0.1
        assert kl.adapted_coefficient(0.1, 6.6, 6.0, 64, 6400) == pytest.approx(0.1 * (1 + 0.1 * 0.01))
        assert kl.adapted_coefficient(0.1, 600.0, 6.0, 64, 6400) == pytest.approx(0.1 * (1 + 0.2 * 0.01))
        assert kl.adapted_coefficient(0.1, 0.0, 6.0, 64, 6400) == pytest.approx(0.1 * (1 - 0.2 * 0.01))

    def test_rollouts_without_a_finite_kl_leave_the_coefficient(self, make_trainer: Any, ppo_arm: PPO) -> None:
        arm = changed(ppo_arm, adaptive_kl=AdaptiveKL(target=1.0, horizon_prompts=8), max_skipped_steps=10)
        trainer = make_trainer(arm)
        rollouts = rollouts_of(trainer)
        rollouts.ref_logp_NT.fill_(math.nan)
        trainer.update(rollouts, 1)
        assert trainer.kl_coefficient == 0.05

    def test_the_coefficient_moves_after_the_update_it_was_used_in(self, make_trainer: Any, ppo_arm: PPO) -> None:
        trainer = make_trainer(changed(ppo_arm, adaptive_kl=AdaptiveKL(target=1.0, horizon_prompts=8)))
        rollouts = rollouts_of(trainer)
        trainer.update(rollouts, 1)  # KL is 0, far below the target
        assert trainer.kl_coefficient == pytest.approx(0.05 * 0.8)


class TestTruncation:
    score, value = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])
    mask = torch.ones(2, 3)
    ended = torch.tensor([True, False])

    def treated(self, how: Any) -> list[list[Any]]:
        return [x.tolist() for x in treat_truncation(how, -1.0, self.score, self.value, self.mask, self.ended)]

    def test_terminal_takes_the_score_as_it_is(self) -> None:
        assert self.treated("terminal") == [[1, 2], [0, 0], [[1, 1, 1]] * 2]

    def test_a_penalty_replaces_the_score_of_truncated_rows_only(self) -> None:
        assert self.treated("penalty") == [[1, -1], [0, 0], [[1, 1, 1]] * 2]

    def test_bootstrap_puts_the_critics_value_in_place_of_the_score(self) -> None:
        assert self.treated("bootstrap") == [[1, 0], [0, 6], [[1, 1, 1]] * 2]

    def test_mask_takes_truncated_rows_out_of_the_losses(self) -> None:
        assert self.treated("mask") == [[1, 2], [0, 0], [[1, 1, 1], [0, 0, 0]]]

    def test_with_bootstrap_a_constant_value_and_no_reward_give_no_advantage(self) -> None:
        constant, mask = torch.full((1, 4), 3.0), torch.tensor([[1.0, 1, 1, 0]])
        advantages, _ = ppo.generalised_advantages(torch.zeros(1, 4), constant, mask, 1.0, 0.95, torch.tensor([3.0]))
        assert (advantages == 0).all()
        terminal, _ = ppo.generalised_advantages(torch.zeros(1, 4), constant, mask, 1.0, 0.95)
        assert (terminal[0, :3] < 0).all()

    def test_the_value_after_the_last_token_is_what_bootstraps(
        self, make_trainer: Any, ppo_arm: PPO, tiny64: Model
    ) -> None:
        """A cut row's last TD error is the critic's change from the state before its last token to the one after."""
        arm = changed(ppo_arm, truncation="bootstrap", gae_lambda=0.0, kl_coefficient=0.0)
        trainer = make_trainer(arm, model=tiny64)
        perturb(trainer)
        rollouts = estimated(trainer, mixed_endings(trainer.tokens.eos_ids[0]))
        ((micro, _),) = minibatch(rollouts)
        features = trainer.reward.features(micro.batch)
        with torch.no_grad():
            values = trainer.value(features, trainer.reward.prefix_scores(micro.batch, features))
        raw = rollouts.returns_NT - rollouts.values_NT
        for row, cut in enumerate((~rollouts.ended_N).tolist()):
            last = int(rollouts.mask_NT[row].sum()) - 1
            after = values[row, last + 1] if cut else rollouts.score_N[row]
            assert raw[row, last].item() == pytest.approx(float(after - values[row, last]), abs=1e-12)

    def test_masked_rows_take_no_part_in_whitening(self, make_trainer: Any, ppo_arm: PPO, tiny64: Model) -> None:
        trainer = make_trainer(changed(ppo_arm, truncation="mask"), model=tiny64)
        rollouts = estimated(trainer, mixed_endings(trainer.tokens.eos_ids[0]))
        assert 0 < rollouts.trained_NT.sum() < rollouts.mask_NT.sum()
        assert (rollouts.advantages_NT[~rollouts.ended_N] == 0).all()
        assert ppo.masked_mean(rollouts.advantages_NT**2, rollouts.trained_NT).item() == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("how", ["terminal", "penalty", "bootstrap", "mask"])
    def test_trains_on_rollouts_that_are_all_truncated(self, make_trainer: Any, ppo_arm: PPO, how: Any) -> None:
        trainer = make_trainer(changed(ppo_arm, truncation=how, truncation_score=-1.0 if how == "penalty" else None))
        responses = [Response([40, 41, 42], [-5.0] * 3, "length") for _ in range(8)]
        losses = trainer.step(rollouts := estimated(trainer, responses), minibatch(rollouts))
        assert math.isfinite(losses["train/loss"])
        assert (losses["train/gradient_norm"] == 0) is (how == "mask")


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

    def test_every_row_carries_growing_axes_and_finite_numbers(self, trained: tuple[Path, Any]) -> None:
        _, recorder = trained
        axes = [axes for _, _, axes, _ in recorder.rows]
        assert [a.prompts_seen for a in axes] == [8, 16]
        assert [a.optimizer_steps for a in axes] == [4, 8]
        assert axes[1].tokens_trained > axes[0].tokens_trained > axes[0].tokens_generated > 0
        assert axes[1].wall_seconds > axes[0].wall_seconds > 0
        assert axes[0].peak_memory_bytes > 0
        assert all(math.isfinite(value) for _, values, _, _ in recorder.rows for value in values.values())
        assert recorder.values("ppo/kl")[0] == 0

    def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(
        self,
        trained: tuple[Path, Any],
        ppo_arm: PPO,
        arm_job: Any,
        artifacts: dict[str, Path],
        cache_dir: Path,
        tmp_path: Path,
        make_recorder: Any,
    ) -> None:
        folders = [trained[0], tmp_path / "b", tmp_path / "c"]
        recorders = [trained[1], make_recorder(), make_recorder()]
        for folder, recorder, seed in zip(folders[1:], recorders[1:], (0, 1), strict=True):
            self.run(ppo_arm, arm_job, artifacts, cache_dir, folder, recorder, seed=seed)
        values = [[values for _, values, _, _ in recorder.rows] for recorder in recorders]
        assert values[0] == values[1] != values[2]
        weights = [(folder / "adapters/point_2/adapter_model.safetensors").read_bytes() for folder in folders]
        assert weights[0] == weights[1] != weights[2]

    def test_the_kept_adapters_load_with_peft_alone(
        self, trained: tuple[Path, Any], cache_dir: Path, tiny: Model
    ) -> None:
        adapters = trained[0] / "adapters"
        assert sorted(p.name for p in adapters.iterdir()) == ["point_1", "point_2"]
        model = PeftModel.from_pretrained(load_base(tiny, cache_dir), adapters / "point_2")
        with torch.no_grad():
            tuned = model(input_ids=torch.tensor([[1, 2, 3]])).logits
            with model.disable_adapter():
                assert not torch.equal(tuned, model(input_ids=torch.tensor([[1, 2, 3]])).logits)

    def test_ppo_raises_the_reward_it_is_given(
        self,
        ppo_arm: PPO,
        arm_job: Any,
        artifacts: dict[str, Path],
        cache_dir: Path,
        tmp_path: Path,
        make_recorder: Any,
    ) -> None:
        """Against an arm that draws the same prompts with the same random numbers, and does not move."""
        eager = {"kl_coefficient": 0.0, "prompts_per_update": 32, "tokens_per_microbatch": 4096}
        moves, stays = {"learning_rate": 1e-2, "num_epochs": 4}, {"learning_rate": 1e-12, "num_epochs": 1}
        recorders = [make_recorder(), make_recorder()]
        for name, recorder, more in zip(("moves", "stays"), recorders, (moves, stays), strict=True):
            arm = changed(ppo_arm, **eager, **more)
            self.run(arm, arm_job, artifacts, cache_dir, tmp_path / name, recorder, num_prompts=960)
        scores = [np.array(recorder.values("ppo/score_mean")[10:]) for recorder in recorders]
        gains = scores[0] - scores[1]  # of 20 updates, each a mean over the same 32 prompts
        assert gains.mean() > 3 * gains.std(ddof=1) / len(gains) ** 0.5
        assert sum(recorders[0].values("ppo/kl")[-5:]) > 0
