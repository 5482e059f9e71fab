"""Linear layers that read the same input, as one: their frozen weights lie side by side, their adapters go along.

Weights lie input-major, so that a decoder can use them as one without a copy, and small products take two thirds of the
time on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from experiments.inputs.lora import LoraLinear, updated

SIDE_BY_SIDE = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def lay_side_by_side(module: nn.Module) -> None:
    """Rearrange the frozen weights of the linear layers that a module holds under the names of the Llama family."""
    for names in SIDE_BY_SIDE:
        layers: list[Any] = [getattr(module, name, None) for name in names]
        if not all(isinstance(layer, nn.Linear) for layer in layers):
            continue
        joint_IO, start = torch.cat([layer.weight.detach().T for layer in layers], dim=1), 0
        for layer in layers:
            stop = start + layer.out_features
            layer.weight = nn.Parameter(joint_IO[:, start:stop].T, requires_grad=False)
            start = stop


def joint_weight(layers: Sequence[Any]) -> Tensor:
    """The weights [I, sum of O] of linear layers with one input: a view where they lie side by side, else a copy."""
    view_IO = _joint_view(layers)
    return torch.cat([layer.weight.T for layer in layers], dim=1) if view_IO is None else view_IO


def project(layers: Sequence[Any], x: Tensor) -> Tensor:
    """The outputs [..., sum of O] of linear layers with one input, with the adapters that are active.

    One product where the weights lie side by side, so that the backward pass finds the gradient of `x` in one product
    too; else (moved to another device, trainable, or layers of another kind) layer by layer.
    """
    bases = [getattr(layer, "base_layer", layer) for layer in layers]
    known = all(type(layer) in {nn.Linear, LoraLinear} for layer in layers)
    weight_IO = _joint_view(bases) if known else None
    if weight_IO is None:
        return torch.cat([layer(x) for layer in layers], dim=-1)
    biases = [base.bias for base in bases if base.bias is not None]
    bias_O = torch.cat(biases) if biases else None
    if any(isinstance(layer, LoraLinear) and not layer.disable_adapters for layer in layers):
        return updated(layers, x, weight_IO.T, bias_O)
    return linear(x, weight_IO.T, bias_O)


def _joint_view(layers: Sequence[Any]) -> Tensor | None:
    """The weights [I, sum of O] without a copy; None where they do not lie side by side, or are trained."""
    views_IO = [layer.weight.T for layer in layers]
    first, step = views_IO[0], views_IO[0].element_size()
    ends = [view.data_ptr() + view.shape[1] * step for view in views_IO]
    adjacent = all(end == view.data_ptr() for end, view in zip(ends, views_IO[1:], strict=False))
    one_storage = len({view.untyped_storage().data_ptr() for view in views_IO}) == 1
    if not adjacent or not one_storage or first.stride(1) != 1 or any(view.requires_grad for view in views_IO):
        return None
    size = (first.shape[0], sum(int(view.shape[1]) for view in views_IO))
    return torch.as_strided(first, size, first.stride())
