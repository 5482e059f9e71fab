"""LoRA layers whose forward and backward pass are one function each: PEFT's parameters and files, our arithmetic.

PEFT's layer casts its input to float32 and adds two products and a scaled sum, each of which autograd remembers. Here
the update is added in place, in the base's precision, and what the backward pass needs (the layer's input, which the
base layer's neighbours share, and the rank-r product) is all that is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn.functional import linear

from experiments.spec import Lora


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
        (name,) = self.active_adapters
        return _lora(
            x,
            self.base_layer.weight,
            self.base_layer.bias,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
        )


def low_rank(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A [R, I] and s B [O, R] of a linear layer's active adapter; of rank 0 where it has none."""
    if isinstance(layer, LoraLinear) and not layer.disable_adapters:
        (name,) = layer.active_adapters
        return layer.lora_A[name].weight, layer.lora_B[name].weight * layer.scaling[name]
    weight: Any = layer.weight
    return weight.new_zeros(0, weight.shape[1]), weight.new_zeros(weight.shape[0], 0)


class _Lora(torch.autograd.Function):
    """Forward: N x I inputs to N x O outputs. The base's weight and bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
    ) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        low_NR = x_NI @ a_RI.to(x.dtype).T
        y_NO = linear(x_NI, weight_OI, bias_O).addmm_(low_NR, b_OR.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(x, low_NR, weight_OI, a_RI, b_OR)
        ctx.scale = scale
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, low_NR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        x_NI, grad_NO = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, len(weight_OI))
        grad_low_NR = (grad_NO @ b_OR.to(grad_NO.dtype)).mul_(ctx.scale)
        grad_x = grad_a_RI = grad_b_OR = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NO @ weight_OI).addmm_(grad_low_NR, a_RI.to(grad_NO.dtype)).view(x.shape)
        if ctx.needs_input_grad[3]:
            grad_a_RI = (grad_low_NR.T @ x_NI).to(a_RI.dtype)
            grad_b_OR = (grad_NO.T @ low_NR).to(b_OR.dtype).mul_(ctx.scale)
        return grad_x, None, None, grad_a_RI, grad_b_OR, None


def _lora(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    result: Tensor = _Lora.apply(x, weight_OI, bias_O, a_RI, b_OR, scale)  # type: ignore[no-untyped-call]
    return result
