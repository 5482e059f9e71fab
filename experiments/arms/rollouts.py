"""One batch of PPO's rollouts: its micro-batches, and everything that is estimated from it.

Shape suffixes: N responses of the batch, T positions of the longest response in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from experiments.algorithms import kl, ppo
from experiments.sampling.batch import Batch, make_batches
from experiments.sampling.logprobs import ResponseLogprobs
from experiments.sampling.sampler import Response
from experiments.spec import PPO


@dataclass(frozen=True)
class Microbatch:
    """Responses that share every pass. They never change, so that the old and the new pass have the same shapes."""

    rows: list[int]
    batch: Batch

    def cut(self, x_NT: Tensor) -> Tensor:
        """This micro-batch's part of a tensor of the whole batch."""
        return x_NT[self.rows, : self.batch.response_mask.shape[1]]

    def paste(self, x_NT: Tensor, part_BT: Tensor) -> None:
        """Put this micro-batch's part into a tensor of the whole batch."""
        x_NT[self.rows, : part_BT.shape[1]] = part_BT.to(x_NT.dtype)


@dataclass(frozen=True)
class Rollouts:
    """N responses with everything that the update needs; all tensors are detached except `shared_pass`."""

    minibatches: list[list[Microbatch]]
    shared_pass: ResponseLogprobs | None  # the first micro-batch's, with its graph, if the first step can use it
    states: list[tuple[Tensor, Tensor]]  # by micro-batch: features [B, T, H] and prefix scores [B, T] before each token
    score_N: Tensor
    mask_NT: Tensor
    trained_NT: Tensor  # the positions in the losses: `mask_NT` without what truncation excludes
    sampled_logp_NT: Tensor  # as the sampler computed it
    logp_NT: Tensor  # under the policy that sampled; the sampler's until a training pass overwrites them
    ref_logp_NT: Tensor
    entropy_NT: Tensor  # from the same pass
    values_NT: Tensor
    rewards_NT: Tensor
    advantages_NT: Tensor  # whitened
    returns_NT: Tensor
    ended_N: Tensor  # whether the response ended with an end-of-sequence token
    texts: list[str]  # prompts and responses

    @property
    def sampler_gap(self) -> float:
        """Mean |log-prob while sampling - log-prob in training|, nats a token."""
        return float(ppo.masked_mean((self.sampled_logp_NT - self.logp_NT).abs(), self.mask_NT))

    @property
    def kl_per_response(self) -> Tensor:
        """KL of each response to the base, [N] nats."""
        return (kl.k1(self.logp_NT, self.ref_logp_NT) * self.mask_NT).sum(dim=1)


def cut_into_minibatches(
    prompt_ids: Sequence[Sequence[int]],
    responses: Sequence[Response],
    arm: PPO,
    pad_id: int,
    device: torch.device,
    packed: bool,
    generator: np.random.Generator,
) -> list[list[Microbatch]]:
    """Assign rows to minibatches at random, and group the rows of each by length.

    Every pass over the rollouts uses the same minibatches, in another order. So a row's log-prob is always computed in
    the same batch, and the ratio is exactly 1 until the policy changes.
    """
    dealt = np.array_split(generator.permutation(len(responses)), arm.num_minibatches)
    minibatches = []
    for rows in map(np.ndarray.tolist, dealt):
        texts = [prompt_ids[row] for row in rows], [responses[row].token_ids for row in rows]
        batches = make_batches(*texts, arm.tokens_per_microbatch, pad_id, device, packed=packed)
        minibatches.append([Microbatch([rows[i] for i in group], batch) for group, batch in batches])
    return minibatches


def treat_truncation(
    how: Literal["terminal", "penalty", "bootstrap", "mask"],
    truncation_score: float,
    score_N: Tensor,
    final_value_N: Tensor,
    mask_NT: Tensor,
    ended_N: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Treat responses that were cut at the length limit; those that ended themselves do not change.

    Args:
        how: "terminal": as if finished. "penalty": `truncation_score` instead of the score (arXiv:2403.17031, detail
            3). "bootstrap": no score, but the value of the state after the last token, as for any episode that ended
            by a time limit (Pardo et al. 2018, arXiv:1712.00378). "mask": excluded from the losses (DAPO's overlong
            filtering, arXiv:2503.14476, section 3.4).
        truncation_score: reward units.
        score_N: scores of all responses.
        final_value_N: critic's value of the state after each response.
        mask_NT: response mask.
        ended_N: whether a response ended itself.

    Returns:
        Scores [N], values after the last token [N] (0 if the episode is over), and the mask [N, T] of the losses.
    """
    zero_N = torch.zeros_like(score_N)
    if how == "penalty":
        return torch.where(ended_N, score_N, truncation_score), zero_N, mask_NT
    if how == "bootstrap":
        return torch.where(ended_N, score_N, zero_N), torch.where(ended_N, zero_N, final_value_N), mask_NT
    if how == "mask":
        return score_N, zero_N, mask_NT * ended_N[:, None]
    return score_N, zero_N, mask_NT


def describe(rollouts: Rollouts, kl_coefficient: float) -> dict[str, float]:
    """Metrics of the rollouts of one update, before the update."""
    mask_NT, kl_N = rollouts.mask_NT, rollouts.kl_per_response
    figures: dict[str, Tensor | float] = {
        "ppo/score_mean": rollouts.score_N.mean(),
        "ppo/score_std": rollouts.score_N.std(),
        "ppo/kl": kl_N.mean(),
        "ppo/kl_per_token": kl_N.sum() / mask_NT.sum(),
        "ppo/kl_coefficient": kl_coefficient,
        "ppo/reward_mean": rollouts.rewards_NT.sum(dim=1).mean(),
        "ppo/entropy": ppo.masked_mean(rollouts.entropy_NT, mask_NT),
        "ppo/explained_variance": ppo.explained_variance(rollouts.values_NT, rollouts.returns_NT, rollouts.trained_NT),
        "ppo/response_tokens": mask_NT.sum(dim=1).mean(),
        "ppo/eos_fraction": rollouts.ended_N.double().mean(),
        "ppo/sampler_gap": rollouts.sampler_gap,
    }
    return {name: float(value) for name, value in figures.items()}
