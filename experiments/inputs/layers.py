"""The Llama family's layers, arranged to be fast: the same parameters and the same mathematics.

Norms and gates are one function each: fewer passes over memory, half of what autograd keeps. Layers that read the same
input are one product (`projections.py`), in the attention too (`attention.py`).

The library's norm also computes in float32 on a float64 base; here such a base is float64 throughout, so that tests can
compare to twelve digits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from experiments.inputs.attention import ATTENTIONS, attend
from experiments.inputs.projections import lay_side_by_side, project

GATED = {"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"}


def fuse_layers(model: nn.Module) -> None:
    """Rearrange the weights of a frozen model, and replace the forward passes of layers of a known kind."""
    for module in model.modules():
        lay_side_by_side(module)
        if type(module).__name__.endswith("RMSNorm") and _is_plain_norm(module):
            module.forward = partial(_norm, module)
        elif type(module).__name__ in GATED and type(module.act_fn).__name__.startswith("SiLU"):
            module.forward = partial(_gated, module)
        elif type(module).__name__ in ATTENTIONS:
            module.forward = partial(attend, module)


def _is_plain_norm(module: Any) -> bool:
    """Whether it computes w * x / rms(x): some families add 1 to the weight, or multiply before rounding."""
    if not hasattr(module, "variance_epsilon"):
        return False
    probe = torch.linspace(-2, 3, 2 * len(module.weight)).view(2, -1).to(module.weight)
    with torch.no_grad():
        return torch.allclose(module(probe), _norm(module, probe), rtol=1e-2, atol=1e-2)


def _norm(module: Any, x: Tensor) -> Tensor:
    result: Tensor = _RMSNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return result


def _gated(module: Any, x: Tensor) -> Tensor:
    gated: Tensor = _SwiGLU.apply(project([module.gate_proj, module.up_proj], x))  # type: ignore[no-untyped-call]
    return module.down_proj(gated)  # type: ignore[no-any-return]


class _RMSNorm(torch.autograd.Function):
    """w * x / sqrt(mean(x^2) + epsilon), in float32 at least (arXiv:1910.07467, equation 4); w is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight_H, inverse)
        normed: Tensor = (x * inverse).to(x.dtype)
        return normed.mul_(weight_H)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight_H, inverse = ctx.saved_tensors
        wide, gradient = x.to(inverse.dtype), (gradients[0] * weight_H).to(inverse.dtype)
        along = torch.linalg.vecdot(gradient, wide)[..., None].mul_(inverse.pow(3)).div_(x.shape[-1])
        return gradient.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype), None, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up (arXiv:2002.05202, equation 6) of [..., gate and up], remembering only that."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        of_gate, of_up = result.chunk(2, dim=-1)
        torch.mul(gradients[0], up, out=of_gate)
        torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        torch.ops.aten.silu.out(gate, out=of_up).mul_(gradients[0])
        return result
