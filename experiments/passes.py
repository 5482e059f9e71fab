"""How much goes through a model at a time. This changes how much memory is used, never what is computed.

A job that ran out of memory is started once more with smaller passes. Then micro-batches are smaller, and activations
are computed again in the backward pass instead of kept. The gradient is the same except for the order of its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_divisor = ContextVar("passes are smaller by this factor", default=1)


@contextmanager
def divided(divisor: int) -> Iterator[None]:
    """Inside the block, passes are `divisor` times smaller than the settings and the device imply."""
    token = _divisor.set(divisor)
    try:
        yield
    finally:
        _divisor.reset(token)


def smaller(size: int) -> int:
    """A number of rows or tokens divided by the current divisor, rounded up."""
    return -(-size // _divisor.get())


def recompute_in_backward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` itself or, if passes are smaller, a form that keeps only its inputs and runs again in the backward."""
    if _divisor.get() == 1:
        return forward
    from torch.utils.checkpoint import checkpoint  # planning loads no torch

    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False)
