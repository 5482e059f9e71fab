"""Sampling by inverse CDF from numbers that were drawn beforehand.

Each row brings one uniform number per step, so its response depends on the model and on these numbers only: not on
the batch it shares (in float32), and two models sampled with the same numbers can be compared pair by pair (common
random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from experiments.sampling.batch import left_pad, mixed_precision, positions
from experiments.seeding import numpy_generator

COMPACT_BELOW = 0.75  # rows that ended leave the batch once fewer than this share is still going


@dataclass(frozen=True)
class Response:
    """One sampled response."""

    token_ids: list[int]  # the end-of-sequence token included, where there is one
    logps: list[float]  # of each token under the sampled distribution, nats
    finish_reason: Literal["eos", "length"]


def common_uniforms(seed: int, stream: int, row_names: Sequence[str], num_steps: int) -> Tensor:
    """Uniform numbers [N, num_steps] in [0, 1), each row's derived from (seed, stream, its name) alone."""
    rows = [numpy_generator(seed, "sample", stream, name).random(num_steps) for name in row_names]
    return torch.from_numpy(np.stack(rows)).to(torch.float32)


@torch.inference_mode()
def sample(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    eos_id: int,
    rows_per_batch: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[Response]:
    """Sample one response per row.

    Args:
        model: a causal language model; its adapters as they are switched now.
        prompt_ids: N prompts, none empty.
        uniforms: [N, T]: one number per row and step; T is the length limit.
        temperature: divides the logits; there is no top-k or top-p.
        eos_id: ends a row; it belongs to the response.
        rows_per_batch: rows decoded together, in the order given.
        on_batch: called with the number of rows done.
    """
    responses: list[Response] = []
    for start in range(0, len(prompt_ids), rows_per_batch):
        stop = start + rows_per_batch
        responses += _sample_batch(model, prompt_ids[start:stop], uniforms[start:stop], temperature, eos_id)
        on_batch(len(responses))
    return responses


def _sample_batch(
    model: Any, prompt_ids: Sequence[Sequence[int]], uniforms: Tensor, temperature: float, eos_id: int
) -> list[Response]:
    device = model.device
    uniforms = uniforms.to(device)
    input_ids, mask = left_pad(prompt_ids, eos_id, device)
    position_ids = positions(mask)
    cache = DynamicCache(config=model.config)
    num_rows, num_steps = uniforms.shape
    tokens = torch.zeros(num_rows, num_steps, dtype=torch.long, device=device)
    logps = torch.zeros(num_rows, num_steps, device=device)
    lengths = torch.full((num_rows,), num_steps, device=device)
    rows = torch.arange(num_rows, device=device)  # rows[i] is the response that line i of the running batch belongs to
    for step in range(num_steps):
        last = torch.tensor(
            [input_ids.shape[1] - 1], device=device
        )  # an index, for the reason in Batch.predicting_positions
        with mixed_precision(model):
            output = model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=last,
            )
        chosen, logp = draw(output.logits[:, -1], uniforms[rows, step], temperature)
        going = lengths[rows] == num_steps
        tokens[rows[going], step], logps[rows[going], step] = chosen[going], logp[going]
        lengths[rows[going & (chosen == eos_id)]] = step + 1
        going = lengths[rows] == num_steps
        if not going.any():
            break
        input_ids, position_ids = chosen[:, None], position_ids[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if going.sum() < COMPACT_BELOW * len(rows):
            kept = going.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, input_ids, position_ids, mask = rows[kept], input_ids[kept], position_ids[kept], mask[kept]
    return [_response(*row, eos_id) for row in zip(tokens.tolist(), logps.tolist(), lengths.tolist(), strict=True)]


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Inverse-CDF sampling: the first token whose cumulative probability exceeds the uniform number.

    Returns:
        Token ids [B] and their log-probs [B] in nats, both in float32 arithmetic.
    """
    logp_BV = torch.log_softmax(logits_BV.float() / temperature, dim=-1)
    cdf_BV = logp_BV.exp().cumsum(dim=-1)
    threshold_B1 = uniform_B[:, None] * cdf_BV[:, -1:]  # the last entry is 1 up to rounding
    token_B1 = torch.searchsorted(cdf_BV, threshold_B1, right=True).clamp_max(logits_BV.shape[-1] - 1)
    return token_B1[:, 0], logp_BV.gather(1, token_B1)[:, 0]


def _response(tokens: list[int], logps: list[float], length: int, eos_id: int) -> Response:
    ended = tokens[length - 1] == eos_id
    return Response(tokens[:length], logps[:length], "eos" if ended else "length")
