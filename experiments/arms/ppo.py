"""PPO: roll out, score, estimate advantages, update. All roles share one frozen base.

policy     LoRA adapter, float32, trained
reference  the base with adapters off
reward     the reward model's LoRA adapter, frozen, and its scalar head; or a function of the text
value      a head on the reward adapter's hidden states (critic.py); on the base's, if the reward has no adapter

Every random number is derived from the seed and the number of the update, so a checkpoint holds no generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn

from experiments.algorithms import kl, ppo
from experiments.arms.critic import Critic
from experiments.arms.pathologies import TrainingFlags
from experiments.arms.resume import Checkpoints, State, load_training_tensors, training_tensors
from experiments.arms.rollouts import Microbatch, Rollouts, cut_into_minibatches, describe, treat_truncation
from experiments.artifacts.ranking import RankedPrompt
from experiments.artifacts.ranking import load as load_ranking
from experiments.artifacts.text_reward import attach
from experiments.errors import DivergedError
from experiments.inputs import adapters as checkpoints
from experiments.inputs.models import (
    adapter_seed,
    language_head,
    load_base,
    precision,
    reference,
    takes_any_mask,
    with_policy,
)
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.records import Axes, Recorder
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import ResponseLogprobs, response_logprobs
from experiments.sampling.sampler import Response, common_uniforms, sample
from experiments.seeding import derive_seed, numpy_generator, presentation_order
from experiments.spec import PPO, ArmJobSpec, evaluation_updates
from experiments.tasks import task_of
from experiments.training_signs import PPO_SIGNS

ADAM_EPSILON = 1e-5  # arXiv:2403.17031, detail 18: 1e-8 makes the early steps larger


def train(
    spec: ArmJobSpec,
    ranking_folder: Path,
    reward_folder: Path,
    measure_folder: Path,
    folder: Path,
    cache_dir: Path,
    recorder: Recorder,
) -> None:
    """Train one PPO arm; resume from its last checkpoint if there is one.

    The task's measure of the rollouts is recorded for people to read. Training never uses it.

    Raises:
        DivergedError: more than `max_skipped_steps` optimizer steps had no finite gradient.
    """
    assert isinstance(spec.arm, PPO)
    trainer = PPOTrainer(spec, spec.arm, ranking_folder, reward_folder, cache_dir, Meter())
    task, flags, resume = task_of(spec.data), TrainingFlags(PPO_SIGNS), Checkpoints(folder, spec)
    measure = task.work.scorers(measure_folder)[task.measure]
    num_updates = spec.num_prompts // spec.arm.prompts_per_update
    points = evaluation_updates(num_updates, spec.num_points)
    done = trainer.restore(resume.load(), flags)
    recorder.rewind(done)
    for update in range(done + 1, num_updates + 1):
        kl_coefficient = trainer.kl_coefficient
        rollouts = trainer.roll_out(trainer.prompts_of(update), update)
        losses = trainer.update(rollouts, update)
        values = {
            **losses,
            **describe(rollouts, kl_coefficient),
            f"ppo/{task.measure}_mean": _mean(measure(rollouts.texts)),
        }
        recorder.metrics("train", flags.with_flags(values), trainer.meter.axes())
        recorder.progress("PPO", update, num_updates, "updates")
        if update in points:
            checkpoints.save(trainer.policy, folder, points.index(update) + 1, trainer.meter.axes())
        resume.save_if_due(partial(trainer.state, update, flags))
    resume.remove()


class PPOTrainer:
    """The models of one PPO arm and the two halves of an update: `roll_out` and `update`."""

    def __init__(
        self, spec: ArmJobSpec, arm: PPO, ranking_folder: Path, reward_folder: Path, cache_dir: Path, meter: Meter
    ) -> None:
        self.arm, self.data, self.seed, self.meter = arm, spec.data, spec.seed, meter
        self.tokens = Tokens.load(spec.model, cache_dir)
        self.prompts, self.render = load_ranking(ranking_folder), task_of(spec.data).work.render
        base = load_base(spec.model, cache_dir)
        self.policy: PeftModel = with_policy(base, spec.model.lora, adapter_seed(spec.seed))
        self.reward = attach(self.policy, spec.model, reward_folder, self.tokens.eos_ids)
        self.value = Critic(language_head(base).weight_VH.shape[1], derive_seed(spec.seed, "value head"))
        self.value.to(self.policy.device, precision(self.policy.dtype))
        self.policy_parameters = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.policy_parameters, "lr": arm.learning_rate},
                {"params": list(self.value.parameters()), "lr": arm.value_learning_rate},
            ],
            eps=ADAM_EPSILON,
            weight_decay=0.0,
        )
        self.kl_coefficient = arm.kl_coefficient
        self.num_skipped_steps = 0

    # ------------------------------------------------------------------------------------------------- training state
    def state(self, update: int, flags: TrainingFlags) -> State:
        """Everything that `restore` needs after `update` updates."""
        tensors = training_tensors({"policy": self.policy, "value": self.value}, self.optimizer)
        numbers = {
            "update": update,
            "kl_coefficient": self.kl_coefficient,
            "num_skipped_steps": self.num_skipped_steps,
            "axes": asdict(self.meter.axes()),
            "rows": flags.rows,
        }
        return State(tensors, numbers)

    def restore(self, state: State | None, flags: TrainingFlags) -> int:
        """Load a state; returns the number of finished updates, 0 without a state."""
        if state is None:
            return 0
        load_training_tensors(state.tensors, {"policy": self.policy, "value": self.value}, self.optimizer)
        self.kl_coefficient = state.numbers["kl_coefficient"]
        self.num_skipped_steps = state.numbers["num_skipped_steps"]
        self.meter.resume_from(Axes(**state.numbers["axes"]))
        flags.rows = state.numbers["rows"]
        return int(state.numbers["update"])

    def prompts_of(self, update: int) -> list[RankedPrompt]:
        """The prompts of an update: every prompt is used once before any is used again."""
        size = self.arm.prompts_per_update
        order = presentation_order(self.seed, "prompts", len(self.prompts), (update - 1) * size, size)
        return [self.prompts[index] for index in order]

    # ------------------------------------------------------------------------------------------------------ rolling out
    def roll_out(self, prompts: Sequence[RankedPrompt], update: int) -> Rollouts:
        """Sample one response per prompt, score it, and estimate advantages."""
        prompt_ids = [prompt.prompt_ids for prompt in prompts]
        names = [f"rollout/{row}" for row in range(len(prompts))]
        responses = sample(
            self.policy,
            prompt_ids,
            common_uniforms(self.seed, update, names, self.data.max_new_tokens),
            temperature=self.data.temperature,
            eos_ids=self.tokens.eos_ids,
            rows_per_batch=len(prompts),
        )
        self.meter.prompts_seen += len(prompts)
        self.meter.tokens_generated += sum(len(response.token_ids) for response in responses)
        minibatches = cut_into_minibatches(
            prompt_ids,
            responses,
            self.arm,
            PAD_ID,
            self.policy.device,
            takes_any_mask(self.policy),
            numpy_generator(self.seed, "minibatches", update),
        )
        texts = self.tokens.response_texts(prompt_ids, [response.token_ids for response in responses])
        whole = [self.render(prompt.prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        return self.estimate(minibatches, responses, whole)

    def estimate(
        self, minibatches: list[list[Microbatch]], responses: Sequence[Response], texts: list[str]
    ) -> Rollouts:
        """Score, log-probs, values, rewards and advantages of given responses.

        A forward pass of the policy is needed here in two cases. With several minibatches, the update has no pass whose
        log-probs are the old ones (`first_pass` in `step`). In half precision the sampler's log-probs differ from those
        of a pass, and the KL penalty needs the latter.
        """
        arm, shape = self.arm, (len(responses), max(len(response.token_ids) for response in responses))
        dtype = precision(self.policy.dtype)
        mask, sampled, ref_logp, entropy, values = (
            torch.zeros(shape, dtype=dtype, device=self.policy.device) for _ in range(5)
        )
        for row, response in enumerate(responses):
            sampled[row, : len(response.logps)] = torch.tensor(response.logps, dtype=dtype)
        logp = sampled.clone()
        score_N, final_value_N = torch.zeros_like(mask[:, 0]), torch.zeros_like(mask[:, 0])
        microbatches = [micro for minibatch in minibatches for micro in minibatch]
        shared_pass, states = None, []
        needs_pass = len(minibatches) > 1 or self.policy.dtype != dtype
        for micro in microbatches:
            micro.paste(mask, micro.batch.response_mask)
            if needs_pass:
                shared = len(minibatches) == 1 and micro is microbatches[0]
                with torch.set_grad_enabled(shared):
                    new = response_logprobs(self.policy, micro.batch, self.data.temperature)
                shared_pass = new if shared else shared_pass
                micro.paste(logp, new.logp_BT.detach())
                micro.paste(entropy, new.entropy_BT)
            with torch.no_grad(), reference(self.policy):
                micro.paste(ref_logp, response_logprobs(self.policy, micro.batch, self.data.temperature).logp_BT)
            features_BTH = self.reward.features(micro.batch)
            prefix_BT = self.reward.prefix_scores(micro.batch, features_BTH, [texts[row] for row in micro.rows])
            with torch.no_grad():
                values_BT = self.value(features_BTH, prefix_BT)
            micro.paste(values, values_BT[:, :-1])
            score_N[micro.rows] = prefix_BT[:, -1]
            last = micro.batch.response_mask.sum(dim=1, keepdim=True).long()
            final_value_N[micro.rows] = values_BT.gather(1, last)[:, 0]
            states.append((features_BTH[:, :-1], prefix_BT[:, :-1]))
        ended_N = torch.tensor([response.finish_reason == "eos" for response in responses], device=mask.device)
        paid_N, after_N, trained = treat_truncation(
            arm.truncation, arm.truncation_score or 0.0, score_N, final_value_N, mask, ended_N
        )
        rewards = ppo.token_rewards(paid_N, logp, ref_logp, mask, self.kl_coefficient)
        advantages, returns = ppo.generalised_advantages(rewards, values, mask, arm.discount, arm.gae_lambda, after_N)
        return Rollouts(
            minibatches=minibatches,
            shared_pass=shared_pass,
            states=states,
            score_N=score_N,
            mask_NT=mask,
            trained_NT=trained,
            logp_NT=logp,
            ref_logp_NT=ref_logp,
            entropy_NT=entropy,
            values_NT=values,
            rewards_NT=rewards,
            advantages_NT=ppo.whiten(advantages, trained),
            returns_NT=returns,
            sampled_logp_NT=sampled,
            ended_N=ended_N,
            texts=texts,
        )

    # --------------------------------------------------------------------------------------------------------- updating
    def update(self, rollouts: Rollouts, update: int) -> dict[str, float]:
        """Make `num_epochs` passes over the rollouts, of `num_minibatches` optimizer steps each.

        Returns:
            Metrics, means over the steps.
        """
        arm, steps = self.arm, []
        states = iter(rollouts.states)
        minibatches = [[(micro, next(states)) for micro in minibatch] for minibatch in rollouts.minibatches]
        for epoch in range(arm.num_epochs):
            order = numpy_generator(self.seed, "order of minibatches", update, epoch).permutation(len(minibatches))
            for number in order:
                steps.append(self.step(rollouts, minibatches[number], first_pass=epoch == 0 and len(minibatches) == 1))
        mean_kl = float(rollouts.kl_per_response.mean())
        if arm.adaptive_kl is not None and math.isfinite(mean_kl):
            target, horizon = arm.adaptive_kl.target, arm.adaptive_kl.horizon_prompts
            self.kl_coefficient = kl.adapted_coefficient(
                self.kl_coefficient, mean_kl, target, len(rollouts.kl_per_response), horizon
            )
        means = {name: _mean([step[name] for step in steps]) for name in steps[0]}
        return means | {"train/skipped_steps": float(self.num_skipped_steps)}

    def step(
        self,
        rollouts: Rollouts,
        minibatch: Sequence[tuple[Microbatch, tuple[Tensor, Tensor]]],
        first_pass: bool = False,
    ) -> dict[str, float]:
        """Make one optimizer step: gradients are summed over micro-batches and divided by the minibatch's tokens.

        `first_pass` says that the policy is still the one that sampled, so that its log-probs here are the old ones.
        """
        self.optimizer.zero_grad(set_to_none=True)
        num_tokens = sum(micro.cut(rollouts.trained_NT).sum() for micro, _ in minibatch)
        parts = [
            self._backward(rollouts, micro, state, own_pass, torch.as_tensor(num_tokens).clamp_min(1), first_pass)
            for (micro, state), own_pass in zip_longest(minibatch, [rollouts.shared_pass] if first_pass else [])
        ]
        self.meter.tokens_trained += sum(micro.batch.num_tokens for micro, _ in minibatch)
        norm = float(nn.utils.clip_grad_norm_(self.policy_parameters, self.arm.max_gradient_norm))
        value_norm = float(nn.utils.clip_grad_norm_(self.value.parameters(), self.arm.max_gradient_norm))
        if math.isfinite(norm + value_norm):
            self.optimizer.step()
        else:
            self.num_skipped_steps += 1
            DivergedError.if_too_many(self.arm.name, self.num_skipped_steps, self.arm.max_skipped_steps)
        self.meter.optimizer_steps += 1
        stats = {name: float(sum(part[name] for part in parts)) for name in parts[0]}
        return {
            "train/loss": stats["ppo/policy_loss"] + stats["ppo/value_loss"],
            "train/gradient_norm": norm,
            "train/learning_rate": self.arm.learning_rate,
            **stats,
        }

    def _backward(
        self,
        rollouts: Rollouts,
        micro: Microbatch,
        state: tuple[Tensor, Tensor],
        own_pass: ResponseLogprobs | None,
        num_tokens: Tensor,
        first_pass: bool,
    ) -> dict[str, Tensor]:
        """Add one micro-batch's share to the gradients; returns its share of the logged metrics."""
        arm, mask_BT = self.arm, micro.cut(rollouts.trained_NT)
        new = own_pass or response_logprobs(self.policy, micro.batch, self.data.temperature)
        if first_pass:
            micro.paste(rollouts.logp_NT, new.logp_BT.detach())
            micro.paste(rollouts.entropy_NT, new.entropy_BT)
        old_logp_BT = micro.cut(rollouts.logp_NT)
        policy_loss = ppo.policy_loss_sum(
            new.logp_BT, old_logp_BT, micro.cut(rollouts.advantages_NT), mask_BT, arm.clip_range
        )
        value_loss = ppo.value_loss_sum(
            self.value(*state), micro.cut(rollouts.values_NT), micro.cut(rollouts.returns_NT), mask_BT,
            arm.value_clip_range,
        )  # fmt: skip
        ((policy_loss + value_loss) / num_tokens).backward()  # type: ignore[no-untyped-call]
        share = mask_BT.sum() / num_tokens
        with torch.no_grad():
            return {
                "ppo/policy_loss": policy_loss.detach() / num_tokens,
                "ppo/value_loss": value_loss.detach() / num_tokens,
                "ppo/clip_fraction": share * ppo.clip_fraction(new.logp_BT, old_logp_BT, mask_BT, arm.clip_range),
                "ppo/approx_kl": share * ppo.approximate_kl(new.logp_BT, old_logp_BT, mask_BT),
            }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
