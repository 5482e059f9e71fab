"""PPO: roll out, score, estimate advantages, update. One base carries every role.

policy     LoRA adapter, float32, trained reference  the base with adapters off reward     the reward model's LoRA
adapter, frozen, and its scalar head value      the reward model's score of the prefix plus a trained head on its
hidden states. These are causal, so the pass that scores
           the response computes them anyway: the critic costs no pass of its own, and it starts as the reward model's
           own estimate (an initialisation in the spirit of arXiv:2403.17031) without sharing a weight with the
           policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from experiments.algorithms import kl, ppo
from experiments.arms import checkpoints
from experiments.artifacts.ranking import RankedPrompt
from experiments.artifacts.ranking import load as load_ranking
from experiments.artifacts.reward_scorer import RewardScorer
from experiments.evaluation.scorers import GoldScorer
from experiments.inputs.models import decode, load_base, load_tokenizer, reference, with_policy
from experiments.meter import Meter
from experiments.records import Recorder
from experiments.sampling.batch import Batch, make_batch
from experiments.sampling.logprobs import entropy, log_distribution, of_response, response_logps
from experiments.sampling.sampler import Response, common_uniforms, sample
from experiments.seeding import derive_seed, numpy_generator
from experiments.spec import PPO, ArmJobSpec, evaluation_updates

ADAM_EPSILON = 1e-5  # arXiv:2403.17031, detail 18: 1e-8 makes the early steps larger
VALUE_HIDDEN = 128


class ValueHead(nn.Module):
    """What the critic adds to the reward model's score of a prefix: nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(VALUE_HIDDEN, 1)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, VALUE_HIDDEN), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features_BTH: Tensor, prefix_scores_BT: Tensor) -> Tensor:
        """Values [B, T] in reward units."""
        correction_BT: Tensor = self.layers(features_BTH)[..., 0]
        return prefix_scores_BT + correction_BT


@dataclass(frozen=True)
class Rollouts:
    """One batch of N responses with everything the update needs; all tensors detached."""

    batches: list[Batch]  # micro-batches of fixed composition, so that the old and the new pass see the same shapes
    features: list[Tensor]  # per micro-batch [b, T, H], of the state before each token
    prefix_scores: list[Tensor]  # per micro-batch [b, T], likewise
    score_N: Tensor
    mask_NT: Tensor
    logp_NT: Tensor  # under the policy that sampled
    ref_logp_NT: Tensor
    entropy_NT: Tensor
    values_NT: Tensor
    rewards_NT: Tensor
    advantages_NT: Tensor  # whitened
    returns_NT: Tensor
    ended: int
    texts: list[str]


def train(
    spec: ArmJobSpec,
    ranking_folder: Path,
    reward_folder: Path,
    gold_folder: Path,
    folder: Path,
    cache_dir: Path,
    recorder: Recorder,
) -> None:
    """Train one PPO arm; gold is recorded on the rollouts for the reader, never used."""
    assert isinstance(spec.arm, PPO)
    meter = Meter()
    trainer = PPOTrainer(spec, spec.arm, ranking_folder, reward_folder, cache_dir, meter)
    gold = GoldScorer.load(gold_folder)
    num_updates = spec.num_prompts // spec.arm.prompts_per_update
    points = evaluation_updates(num_updates, spec.num_points)
    for update, prompts in enumerate(trainer.prompt_batches(num_updates), start=1):
        rollouts = trainer.roll_out(prompts, update)
        losses = trainer.update(rollouts, update)
        values = {
            **losses,
            **describe(rollouts, spec.arm.kl_coefficient),
            "ppo/gold_mean": _mean(gold.score(rollouts.texts)),
        }
        recorder.metrics("train", values, meter.axes())
        recorder.progress("PPO", update, num_updates, "updates")
        if update in points:
            checkpoints.save(trainer.policy, folder, points.index(update) + 1, meter.axes())


class PPOTrainer:
    """The models of one PPO arm and the two halves of an update: `roll_out` and `update`."""

    def __init__(
        self, spec: ArmJobSpec, arm: PPO, ranking_folder: Path, reward_folder: Path, cache_dir: Path, meter: Meter
    ) -> None:
        self.arm, self.data, self.seed, self.meter = arm, spec.data, spec.seed, meter
        self.tokenizer = load_tokenizer(spec.model, cache_dir)
        self.prompts = load_ranking(ranking_folder)
        base = load_base(spec.model, cache_dir)
        self.policy: PeftModel = with_policy(base, spec.model.lora, derive_seed(spec.seed, "adapter"))
        self.reward = RewardScorer.attach(self.policy, spec.model, reward_folder, self.tokenizer.eos_token_id)
        torch.manual_seed(derive_seed(spec.seed, "value head"))
        self.value = ValueHead(self.reward.weight.shape[0]).to(self.policy.device)
        self.policy_parameters = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.policy_parameters, "lr": arm.learning_rate},
                {"params": list(self.value.parameters()), "lr": arm.value_learning_rate},
            ],
            eps=ADAM_EPSILON,
            weight_decay=0.0,
        )

    def prompt_batches(self, num_updates: int) -> Iterator[list[RankedPrompt]]:
        """`prompts_per_update` prompts for each update; every prompt once before any comes again."""
        order: list[int] = []
        for _ in range(num_updates):
            while len(order) < self.arm.prompts_per_update:
                passes = numpy_generator(self.seed, "prompts", self.meter.prompts_seen + len(order))
                order += passes.permutation(len(self.prompts)).tolist()
            batch, order = order[: self.arm.prompts_per_update], order[self.arm.prompts_per_update :]
            yield [self.prompts[index] for index in batch]

    def roll_out(self, prompts: Sequence[RankedPrompt], update: int) -> Rollouts:
        """Sample one response per prompt, score it, and estimate advantages."""
        prompt_ids = [prompt.prompt_ids for prompt in prompts]
        responses = sample(
            self.policy,
            prompt_ids,
            common_uniforms(
                self.seed, update, [f"rollout/{row}" for row in range(len(prompts))], self.data.max_new_tokens
            ),
            temperature=self.data.temperature,
            eos_id=self.tokenizer.eos_token_id,
            rows_per_batch=len(prompts),
        )
        self.meter.prompts_seen += len(prompts)
        self.meter.tokens_generated += sum(len(response.token_ids) for response in responses)
        texts = [
            prompt.prompt + decode(self.tokenizer, response.token_ids)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return self._estimate(self._micro_batches(prompt_ids, responses), responses, texts)

    def update(self, rollouts: Rollouts, update: int) -> dict[str, float]:
        """`num_epochs` passes of `num_minibatches` optimizer steps; each rollout once a pass. Means over steps."""
        steps: list[dict[str, float]] = []
        size = len(rollouts.batches) // self.arm.num_minibatches
        for epoch in range(self.arm.num_epochs):
            order = numpy_generator(self.seed, "minibatches", update, epoch).permutation(len(rollouts.batches))
            for start in range(0, len(order), size):
                steps.append(self._step(rollouts, order[start : start + size].tolist()))
        return {name: _mean([step[name] for step in steps]) for name in steps[0]}

    def _micro_batches(self, prompt_ids: Sequence[Sequence[int]], responses: Sequence[Response]) -> list[Batch]:
        rows = self.arm.rows_per_microbatch
        width = max(len(response.token_ids) for response in responses)
        return [
            make_batch(
                prompt_ids[start : start + rows],
                [response.token_ids for response in responses[start : start + rows]],
                self.tokenizer.eos_token_id,
                self.policy.device,
                width,
            )
            for start in range(0, len(responses), rows)
        ]

    @torch.no_grad()
    def _estimate(self, batches: list[Batch], responses: Sequence[Response], texts: list[str]) -> Rollouts:
        """Score, log-probs, values, rewards and advantages of given responses."""
        temperature = self.data.temperature
        logps, entropies, ref_logps, scores, features, prefix_scores = [], [], [], [], [], []
        for batch in batches:
            logp_BTV = log_distribution(self.policy, batch, temperature)
            logps.append(of_response(logp_BTV, batch))
            entropies.append(entropy(logp_BTV))
            with reference(self.policy):
                ref_logps.append(response_logps(self.policy, batch, temperature))
            hidden_BTH = self.reward.features(batch)
            scores_BT = self.reward.prefix_scores(batch, hidden_BTH)
            scores.append(scores_BT[:, -1])
            features.append(hidden_BTH[:, :-1])
            prefix_scores.append(scores_BT[:, :-1])
        mask_NT = torch.cat([batch.response_mask for batch in batches])
        logp_NT, ref_logp_NT, score_N = torch.cat(logps), torch.cat(ref_logps), torch.cat(scores)
        values_NT = torch.cat([self.value(*state) for state in zip(features, prefix_scores, strict=True)])
        rewards_NT = ppo.token_rewards(score_N, logp_NT, ref_logp_NT, mask_NT, self.arm.kl_coefficient)
        advantages_NT, returns_NT = ppo.generalised_advantages(
            rewards_NT, values_NT, mask_NT, self.arm.discount, self.arm.gae_lambda
        )
        return Rollouts(
            batches=batches,
            features=features,
            prefix_scores=prefix_scores,
            score_N=score_N,
            mask_NT=mask_NT,
            logp_NT=logp_NT,
            ref_logp_NT=ref_logp_NT,
            entropy_NT=torch.cat(entropies),
            values_NT=values_NT,
            rewards_NT=rewards_NT,
            advantages_NT=ppo.whiten(advantages_NT, mask_NT),
            returns_NT=returns_NT,
            ended=sum(response.finish_reason == "eos" for response in responses),
            texts=texts,
        )

    def _step(self, rollouts: Rollouts, chosen: list[int]) -> dict[str, float]:
        """One optimizer step on the micro-batches `chosen`: summed gradients over the token count of them all."""
        arm, rows = self.arm, self.arm.rows_per_microbatch
        num_tokens = sum(rollouts.batches[index].response_mask.sum() for index in chosen)
        totals: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for index in chosen:
            batch, here = rollouts.batches[index], slice(index * rows, (index + 1) * rows)
            mask_BT, old_logp_BT = batch.response_mask, rollouts.logp_NT[here]
            logp_BT = response_logps(self.policy, batch, self.data.temperature)
            values_BT = self.value(rollouts.features[index], rollouts.prefix_scores[index])
            policy_loss = (
                ppo.policy_loss_sum(logp_BT, old_logp_BT, rollouts.advantages_NT[here], mask_BT, arm.clip_range)
                / num_tokens
            )
            value_loss = (
                ppo.value_loss_sum(
                    values_BT, rollouts.values_NT[here], rollouts.returns_NT[here], mask_BT, arm.value_clip_range
                )
                / num_tokens
            )
            (policy_loss + value_loss).backward()  # type: ignore[no-untyped-call]
            share = mask_BT.sum() / num_tokens
            with torch.no_grad():
                parts = {
                    "ppo/policy_loss": policy_loss.detach(),
                    "ppo/value_loss": value_loss.detach(),
                    "ppo/clip_fraction": share * ppo.clip_fraction(logp_BT, old_logp_BT, mask_BT, arm.clip_range),
                    "ppo/approx_kl": share * ppo.masked_mean(kl.k3(logp_BT, old_logp_BT), mask_BT),
                }
            totals = {name: totals.get(name, torch.zeros(())) + value.cpu() for name, value in parts.items()}
            self.meter.tokens_trained += batch.num_tokens
        norm = nn.utils.clip_grad_norm_(self.policy_parameters, arm.max_gradient_norm)
        nn.utils.clip_grad_norm_(self.value.parameters(), arm.max_gradient_norm)
        self.optimizer.step()
        self.meter.optimizer_steps += 1
        stats = {name: float(value) for name, value in totals.items()}
        return {
            "train/loss": stats["ppo/policy_loss"] + stats["ppo/value_loss"],
            "train/gradient_norm": float(norm),
            "train/learning_rate": arm.learning_rate,
            **stats,
        }


def describe(rollouts: Rollouts, kl_coefficient: float) -> dict[str, float]:
    """What the rollouts of one update look like, before the update."""
    mask_NT = rollouts.mask_NT
    kl_N = (kl.k1(rollouts.logp_NT, rollouts.ref_logp_NT) * mask_NT).sum(dim=1)
    figures: dict[str, Any] = {
        "ppo/score_mean": rollouts.score_N.mean(),
        "ppo/score_std": rollouts.score_N.std(),
        "ppo/kl": kl_N.mean(),
        "ppo/kl_per_token": kl_N.sum() / mask_NT.sum(),
        "ppo/reward_mean": (rollouts.score_N - kl_coefficient * kl_N).mean(),
        "ppo/entropy": ppo.masked_mean(rollouts.entropy_NT, mask_NT),
        "ppo/explained_variance": ppo.explained_variance(rollouts.values_NT, rollouts.returns_NT, mask_NT),
        "ppo/response_tokens": mask_NT.sum(dim=1).mean(),
        "ppo/eos_fraction": rollouts.ended / len(mask_NT),
    }
    return {name: float(value) for name, value in figures.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
