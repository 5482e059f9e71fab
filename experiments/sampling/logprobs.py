"""Log-probs of given responses, by the same code path for the policy that trains, its old self and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.sampling.batch import Batch, make_batch, mixed_precision
from experiments.sampling.sampler import Response


def log_distribution(model: Any, batch: Batch, temperature: float) -> Tensor:
    """Log pi(. | prefix) at each response position, [B, T, V] in nats; adapters as they are switched now.

    Only these positions go through the head, and the softmax is in float32 (or more) whatever the model's dtype.

    Args:
        model: a causal language model.
        batch: B rows, T response positions.
        temperature: the one the responses were sampled at; it divides the logits here as it did there.
    """
    with mixed_precision(model):
        logits_BTV: Tensor = model(
            **batch.model_inputs, use_cache=False, logits_to_keep=batch.predicting_positions
        ).logits
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    return torch.log_softmax(logits_BTV if temperature == 1 else logits_BTV / temperature, dim=-1)


def response_logps(model: Any, batch: Batch, temperature: float) -> Tensor:
    """Log-probs [B, T] of the response's tokens, nats. Padding positions hold numbers without meaning; mask them."""
    return of_response(log_distribution(model, batch, temperature), batch)


def of_response(logp_BTV: Tensor, batch: Batch) -> Tensor:
    """The entries of a log-distribution that belong to the response's tokens: [B, T]."""
    return logp_BTV.gather(2, batch.response_ids[:, :, None])[:, :, 0]


def entropy(logp_BTV: Tensor) -> Tensor:
    """Entropy [B, T] of each distribution, nats."""
    mean_logp_BT: Tensor = torch.linalg.vecdot(logp_BTV.exp(), logp_BTV)
    return -mean_logp_BT


@torch.no_grad()
def total_logps(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    responses: Sequence[Response],
    *,
    temperature: float,
    pad_id: int,
    rows_per_batch: int,
) -> list[float]:
    """Log-prob of each whole response, nats: N floats."""
    totals: list[float] = []
    for start in range(0, len(responses), rows_per_batch):
        rows = slice(start, start + rows_per_batch)
        batch = make_batch(prompt_ids[rows], [r.token_ids for r in responses[rows]], pad_id, model.device)
        totals += (response_logps(model, batch, temperature) * batch.response_mask).sum(dim=1).tolist()
    return totals
