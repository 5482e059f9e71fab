"""How much goes through a model at a time. Decides about memory, never about what is computed.

A job that ran out of memory is started once more with smaller passes: sums over micro-batches are then taken in more
parts, and what a trainer would keep of a forward pass for the backward pass is computed again. The gradient is the same
but for the order in which its terms are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_divisor = ContextVar("passes are smaller by this factor", default=1)


@contextmanager
def divided(divisor: int) -> Iterator[None]:
    """Within it, passes are `divisor` times smaller than the settings and the device would have them."""
    token = _divisor.set(divisor)
    try:
        yield
    finally:
        _divisor.reset(token)


def smaller(size: int) -> int:
    """What becomes of a number of rows or tokens: a part of it, rounded up."""
    return -(-size // _divisor.get())


def recompute_in_backward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` as it is or, where passes are smaller, in a form that keeps its inputs only and runs again later."""
    if _divisor.get() == 1:
        return forward
    from torch.utils.checkpoint import checkpoint  # planning loads no torch

    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False)
