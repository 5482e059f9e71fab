"""LoRA layers whose forward and backward pass are one function each: PEFT's parameters and files, our arithmetic.

PEFT's layer casts its input to float32 and adds two products and a scaled sum, each of which autograd remembers. Here
the update is added in place, in the base's precision, and what the backward pass needs (the layer's input, which the
base layer's neighbours share, and the rank-r product) is all that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn.functional import linear

from experiments.model_spec import Lora


def lora_config(lora: Lora, task_type: str = "CAUSAL_LM") -> LoraConfig:
    """PEFT's configuration of the shared LoRA settings; no dropout, so that two forward passes agree."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        lora_dropout=0.0,
        bias="none",
        task_type=task_type,
    )
    config._register_custom_module({nn.Linear: LoraLinear})  # PEFT's documented way to bring one's own layers
    return config


class LoraLinear(PeftLinear):  # type: ignore[misc]
    """`y = x W^T + s (x A^T) B^T` (arXiv:2106.09685, equation 3) for the one adapter that is active."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the active adapter's update, in the precision of `x`."""
        if self.disable_adapters:
            return self.base_layer(x)  # type: ignore[no-any-return]
        return updated([self], x, self.base_layer.weight, self.base_layer.bias)


def low_rank(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A [R, I] and s B [O, R] of a linear layer's active adapter; of rank 0 where it has none."""
    a_RI, b_OR, scale = _factors(layer)
    return a_RI, b_OR * scale


def updated(layers: Sequence[nn.Module], x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The outputs, one after the other, of layers that read `x`, with the active adapters of those that have one.

    Args:
        layers: one or several, O outputs in all.
        x: [..., I].
        weight_OI: the bases' weights as one, frozen.
        bias_O: the bases' biases as one, frozen.
    """
    downs, ups, scales = zip(*(_factors(layer) for layer in layers), strict=True)
    result: Tensor = _Lora.apply(x, weight_OI, bias_O, scales, *downs, *ups)  # type: ignore[no-untyped-call]
    return result


def _factors(layer: nn.Module) -> tuple[Tensor, Tensor, float]:
    """A [R, I], B [O, R] and s."""
    if isinstance(layer, LoraLinear) and not layer.disable_adapters:
        (name,) = layer.active_adapters
        return layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    weight: Any = layer.weight
    return weight.new_zeros(0, weight.shape[1]), weight.new_zeros(weight.shape[0], 0), 1.0


class _Lora(torch.autograd.Function):
    """Forward: N x I inputs to N x O outputs of G layers, of ranks R that add up to S."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, scales: Sequence[float], *factors: Tensor
    ) -> Tensor:
        downs, ups = factors[: len(scales)], factors[len(scales) :]
        x_NI = x.reshape(-1, x.shape[-1])
        down_SI = torch.cat(downs).to(x.dtype)
        low_NS = x_NI @ down_SI.T
        y_NO = linear(x_NI, weight_OI, bias_O)
        for y, low, up_OR, scale in zip(_cut(y_NO, ups, 0), _cut(low_NS, ups, 1), ups, scales, strict=True):
            y.addmm_(low, up_OR.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(x, low_NS, weight_OI, *factors)
        ctx.scales = scales
        # Not a view for autograd, which forbids a caller to add to a view in place, as Falcon's layers do.
        return torch.ops.aten._unsafe_view.default(y_NO, [*x.shape[:-1], y_NO.shape[1]])  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, low_NS, weight_OI, *factors = ctx.saved_tensors
        downs, ups = factors[: len(ctx.scales)], factors[len(ctx.scales) :]
        x_NI, grad_NO = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, len(weight_OI))
        parts = list(zip(_cut(grad_NO, ups, 0), ups, ctx.scales, strict=True))
        grad_low_NS = torch.cat([(grad @ up_OR.to(grad.dtype)).mul_(scale) for grad, up_OR, scale in parts], dim=1)
        grad_x: Tensor | None = None
        grad_factors: list[Tensor | None] = [None] * len(factors)
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NO @ weight_OI).addmm_(grad_low_NS, torch.cat(downs).to(x.dtype)).view(x.shape)
        if any(ctx.needs_input_grad[4:]):
            grad_downs = (grad_low_NS.T @ x_NI).to(downs[0].dtype).split([len(down) for down in downs])
            # low^T grad and not its transpose: products with few rows are faster than those with few columns
            grad_ups = [
                (low.T @ grad).to(up.dtype).mul_(scale).T
                for low, (grad, up, scale) in zip(_cut(low_NS, ups, 1), parts, strict=True)
            ]
            grad_factors = [*grad_downs, *grad_ups]
        return grad_x, None, None, None, *grad_factors


def _cut(joint: Tensor, ups: Sequence[Tensor], dim: int) -> tuple[Tensor, ...]:
    """The layers' columns, as many as their B [O, R] has in a dimension."""
    return torch.split_with_sizes(joint, [up_OR.shape[dim] for up_OR in ups], dim=1)
