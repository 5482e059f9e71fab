"""Our attention against the library's, which is still there as the class's own forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.autograd import gradcheck
from transformers import DynamicCache

from experiments.inputs.attention import _Rotary
from experiments.inputs.layers import fuse_layers

FAMILIES = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def model_of(name: str, implementation: str = "sdpa") -> Any:
    base_class = getattr(transformers, name)
    config = base_class.config_class(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=32, attn_implementation=implementation,
    )  # fmt: skip
    torch.manual_seed(0)
    model = base_class(config).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases start at 0, where a forgotten one would go unnoticed
            parameter.data += torch.randn_like(parameter)
    fuse_layers(model)
    return model


def both(model: Any, mask: Tensor | None, position_ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Output and gradient of the input, of our attention and of the library's."""
    attention, results = model.model.layers[0].self_attn, []
    assert attention.forward.func.__name__ == "attend"
    for forward in (attention.forward, lambda *args: type(attention).forward(attention, *args)):
        x = random(2, 7, 24, seed=1).requires_grad_()
        output, _ = forward(x, model.model.rotary_emb(x, position_ids), mask)
        (output * random(*output.shape, seed=2)).sum().backward()
        assert x.grad is not None
        results.append((output.detach(), x.grad))
    return results


def causal(num_rows: int, length: int, *, hidden: int) -> Tensor:
    """A mask [B, 1, L, L] in which the last row does not see its first `hidden` positions."""
    mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(num_rows, 1, 1, 1)
    mask[-1, :, hidden:, :hidden] = False
    return mask


def test_gradients_are_those_of_finite_differences() -> None:
    angles = random(2, 3, 2).repeat(1, 1, 2)
    heads = random(2, 3, 5, 4, seed=1).requires_grad_()  # three query heads and one of keys and of values
    assert gradcheck(lambda heads: _Rotary.apply(heads, angles.cos(), angles.sin(), 3), (heads,))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("masked", [False, True])
def test_output_and_gradient_are_those_of_the_library(family: str, masked: bool) -> None:
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [3, 5, 6, 7, 8, 4, 5]])
    mask = causal(2, 7, hidden=2) if masked else None
    ours, theirs = both(model_of(family), mask, positions)
    for mine, expected in zip(ours, theirs, strict=True):
        assert (mine - expected).norm() <= 1e-12 * expected.norm()
    if masked:  # the mask matters
        assert (both(model_of(family), None, positions)[0][0] - ours[0]).norm() > 1e-3 * ours[0].norm()


def test_the_settings_choose_what_attends() -> None:
    """Eager attention adds its mask, gives its weights back, and computes its softmax in float32."""
    model = model_of("LlamaForCausalLM", "eager")
    mask = torch.zeros(2, 1, 7, 7, dtype=torch.float64).masked_fill(~causal(2, 7, hidden=2), -torch.inf)
    ours, theirs = both(model, mask, torch.arange(7)[None])
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
    x = random(2, 7, 24)
    _, weights = model.model.layers[0].self_attn(x, model.model.rotary_emb(x, torch.arange(7)[None]), mask)
    assert weights.shape == (2, 6, 7, 7)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_gives_what_the_whole_text_gives(family: str) -> None:
    model, ids = model_of(family), torch.arange(14).view(2, 7)
    cache = DynamicCache(config=model.config)
    parts = [model.model(part, past_key_values=cache, use_cache=True).last_hidden_state for part in ids.split(3, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.model(ids).last_hidden_state, rtol=1e-5, atol=1e-6)
