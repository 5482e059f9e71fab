"""The attention of the Llama family with one product for queries, keys and values, and their rotation one function.

What attends, and how masks and caches are read, is transformers': the interface that the model's settings choose.

Shape suffixes: B rows, L positions, N heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from experiments.inputs.projections import project

ATTENTIONS = {"LlamaAttention", "MistralAttention", "Qwen2Attention"}


def attend(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The forward pass of an attention module of `ATTENTIONS`: its arguments, and what it returns."""
    joint = project([module.q_proj, module.k_proj, module.v_proj], hidden_states)
    heads = joint.view(*joint.shape[:-1], -1, module.head_dim)
    query, key, value = _Rotary.apply(  # type: ignore[no-untyped-call]
        heads, *position_embeddings, module.num_key_value_groups
    )
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, module.layer_idx)
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    attended, weights = interface(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=module.attention_dropout if module.training else 0.0,
        scaling=module.scaling,
        sliding_window=getattr(module, "sliding_window", getattr(module.config, "sliding_window", None)),
        **kwargs,
    )
    return module.o_proj(attended.flatten(2)), weights


class _Rotary(torch.autograd.Function):
    """Heads [B, L, N, D] of queries, keys and values to these three [B, N, L, D], queries and keys rotated.

    Rotary position embedding (arXiv:2104.09864, equation 34); the two halves of a head are turned by the same angles.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos_BLD: Tensor, sin_BLD: Tensor, num_groups: int) -> tuple[Tensor, ...]:
        num_kv = heads.shape[2] // (num_groups + 2)
        ctx.save_for_backward(cos_BLD, sin_BLD)
        ctx.sizes = (num_groups * num_kv, num_kv, num_kv)
        result = torch.empty_like(heads)
        _rotate(heads[:, :, :-num_kv], cos_BLD, sin_BLD, out=result[:, :, :-num_kv])
        result[:, :, -num_kv:] = heads[:, :, -num_kv:]
        return tuple(part.transpose(1, 2) for part in torch.split_with_sizes(result, ctx.sizes, dim=2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos_BLD, sin_BLD = ctx.saved_tensors
        query, key, value = (gradient.transpose(1, 2) for gradient in gradients)
        result = query.new_empty(*query.shape[:2], sum(ctx.sizes), query.shape[-1])
        to_query, to_key, to_value = torch.split_with_sizes(result, ctx.sizes, dim=2)
        _rotate(query, cos_BLD, -sin_BLD, out=to_query)
        _rotate(key, cos_BLD, -sin_BLD, out=to_key)
        to_value.copy_(value)
        return result, None, None, None


def _rotate(x_BLND: Tensor, cos_BLD: Tensor, sin_BLD: Tensor, *, out: Tensor) -> None:
    half = x_BLND.shape[-1] // 2
    sin = sin_BLD[:, :, None, :half]
    torch.mul(x_BLND, cos_BLD[:, :, None], out=out)
    out[..., :half].addcmul_(x_BLND[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x_BLND[..., :half], sin)
