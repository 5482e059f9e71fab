"""Log-probs of given responses, by the same code path for the policy that trains, its old self and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.algorithms.token_logprobs import token_logprobs
from experiments.inputs.models import decoder_of, language_head, takes_any_mask
from experiments.sampling.batch import Batch, make_batches, tokens_per_pass


class ResponseLogprobs(NamedTuple):
    """Of each response token; exactly 0 on padding, which never reaches the head."""

    logp_BT: Tensor  # nats
    entropy_BT: Tensor  # of the distribution that the token was drawn from, nats; without gradient


def response_logprobs(model: Any, batch: Batch, temperature: float) -> ResponseLogprobs:
    """Log-probs of the response tokens, adapters as they are switched now.

    Args:
        model: a causal language model.
        batch: B rows, T response positions.
        temperature: the one the responses were sampled at; it divides the logits here as it did there.
    """
    real_BT = batch.response_mask.bool()
    hidden_NH = batch.hidden_states(decoder_of(model))[batch.states[:, :-1][real_BT]]
    logp_N, entropy_N = token_logprobs(hidden_NH, batch.response_ids[real_BT], language_head(model), temperature)
    padding_BT = torch.zeros(real_BT.shape, dtype=logp_N.dtype, device=logp_N.device)
    return ResponseLogprobs(padding_BT.masked_scatter(real_BT, logp_N), padding_BT.masked_scatter(real_BT, entropy_N))


@torch.no_grad()
def total_logprobs(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    *,
    temperature: float,
    pad_id: int,
) -> list[float]:
    """Log-prob of each whole response, nats: N floats."""
    totals = [0.0] * len(response_ids)
    device, packed = model.device, takes_any_mask(model)
    for rows, batch in make_batches(prompt_ids, response_ids, tokens_per_pass(device), pad_id, device, packed=packed):
        sums = response_logprobs(model, batch, temperature).logp_BT.sum(dim=1).tolist()
        for row, total in zip(rows, sums, strict=True):
            totals[row] = total
    return totals
