"""Log-probs of given tokens from hidden states, in tiles over the vocabulary: no [N, V] tensor, forward or backward.

The softmax is accumulated tile by tile (online softmax), as attention kernels do (Milakov and Gimelshein 2018,
arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135). The head's rows W are both keys and values: the gradient of a
log-prob with respect to the hidden state is W[token] - sum_v p_v W[v], so the weighted sum of rows is accumulated
beside the normaliser. Forward and backward together cost two matrix products, and none is done twice.

Shape suffixes: N tokens, R of them in one tile, V vocabulary, T of it in one tile, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

ROWS_PER_TILE = 512
TOKENS_PER_TILE = 4096  # with 512 rows a tile takes 8 MiB in float32: the fastest size tried on two cores


class TokenLogprobs(NamedTuple):
    """What one pass over the vocabulary yields; only `logp_N` carries a gradient."""

    logp_N: Tensor  # nats
    entropy_N: Tensor  # of the whole distribution, nats


@dataclass(frozen=True)
class Head:
    """The frozen map from hidden states to logits: softcap(scale * (h W^T + b))."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None  # c * tanh(logit / c): Gemma 2 (arXiv:2408.00118, section 2)

    def logits(self, hidden_RH: Tensor, tokens: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """Logits [R, T] of a part of the vocabulary, and the softcap's derivatives [R, T] (None without a softcap).

        The matrix product rounds to the weights' precision; everything after it is float32 or more.
        """
        bias_T = None if self.bias_V is None else self.bias_V[tokens]
        logits_RT = _at_least_float32(linear(hidden_RH, self.weight_VH[tokens], bias_T))
        logits_RT = logits_RT if self.scale == 1 else logits_RT * self.scale
        if self.softcap is None:
            return logits_RT, None
        bent_RT = torch.tanh(logits_RT / self.softcap)
        return self.softcap * bent_RT, 1 - bent_RT**2


def token_logprobs(hidden_NH: Tensor, token_N: Tensor, head: Head, temperature: float) -> TokenLogprobs:
    """Log-prob of each token given the hidden state that predicts it, and the entropy of its distribution.

    Args:
        hidden_NH: hidden states in the head's precision; they receive a gradient, the head does not.
        token_N: token ids.
        head: the language-model head.
        temperature: divides the logits.
    """
    logp_N, entropy_N = _TokenLogprobs.apply(hidden_NH, token_N, head, temperature)  # type: ignore[no-untyped-call]
    return TokenLogprobs(logp_N, entropy_N)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, token_N: Tensor, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
        with_gradient: bool = ctx.needs_input_grad[0]
        rows = zip(torch.split(hidden_NH, ROWS_PER_TILE), torch.split(token_N, ROWS_PER_TILE), strict=True)
        tiles = [_of_rows(hidden_RH, token_R, head, temperature, with_gradient) for hidden_RH, token_R in rows]
        logp_N, entropy_N, slope_NH = (torch.cat(parts) for parts in zip(*tiles, strict=True))
        ctx.save_for_backward(slope_NH)
        ctx.mark_non_differentiable(entropy_N)
        return logp_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope_NH,) = ctx.saved_tensors
        return gradients[0].to(slope_NH.dtype)[:, None] * slope_NH, None, None, None


def _of_rows(
    hidden_RH: Tensor, token_R: Tensor, head: Head, temperature: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-prob [R], entropy [R] and d log-prob / d hidden [R, H] (empty if no gradient is wanted)."""
    own_R, own_slope_R, mass_R, weighted_R = (_at_least_float32(hidden_RH.new_zeros(len(token_R))) for _ in range(4))
    peak_R = torch.full_like(own_R, -torch.inf)
    pull_RH = hidden_RH.new_zeros(hidden_RH.shape if with_gradient else (0, hidden_RH.shape[1]), dtype=own_R.dtype)
    for start in range(0, len(head.weight_VH), TOKENS_PER_TILE):
        tokens = slice(start, start + TOKENS_PER_TILE)
        logits_RT, slope_RT = head.logits(hidden_RH, tokens)
        logits_RT = logits_RT if temperature == 1 else logits_RT / temperature
        own_R = _entry(logits_RT, token_R - start, own_R)  # from the same rounded logits as the normaliser
        if slope_RT is not None:
            own_slope_R = _entry(slope_RT, token_R - start, own_slope_R)
        before_R, peak_R = peak_R, torch.maximum(peak_R, logits_RT.amax(dim=1))
        shrink_R = (before_R - peak_R).exp()
        mass_RT = (logits_RT - peak_R[:, None]).exp_()
        mass_R = mass_R * shrink_R + mass_RT.sum(dim=1)
        weighted_R = weighted_R * shrink_R + torch.linalg.vecdot(mass_RT, logits_RT)
        if with_gradient:
            weight_TH = head.weight_VH[tokens]
            pulling_RT = mass_RT if slope_RT is None else mass_RT.mul_(slope_RT)
            pull_RH = pull_RH.mul_(shrink_R[:, None]).add_(pulling_RT.to(weight_TH.dtype) @ weight_TH)
    normaliser_R = peak_R + mass_R.log()
    if with_gradient:
        own_RH = _at_least_float32(head.weight_VH[token_R])
        own_RH = own_RH if head.softcap is None else own_RH * own_slope_R[:, None]
        pull_RH = (own_RH - pull_RH / mass_R[:, None]).mul_(head.scale / temperature)
    return own_R - normaliser_R, normaliser_R - weighted_R / mass_R, pull_RH.to(hidden_RH.dtype)


def _entry(x_RT: Tensor, column_R: Tensor, otherwise_R: Tensor) -> Tensor:
    """Each row's entry in its column; its entry of `otherwise_R` if the column is outside this tile."""
    inside_R = (column_R >= 0) & (column_R < x_RT.shape[1])
    found_R1 = x_RT.gather(1, column_R.clamp(0, x_RT.shape[1] - 1)[:, None])
    return torch.where(inside_R, found_R1[:, 0], otherwise_R)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
