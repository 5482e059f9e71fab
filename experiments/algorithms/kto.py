"""KTO's loss as one pure function: what TRL's trainer must agree with (tests/contract/test_kto_trainer.py)."""

from __future__ import annotations

import torch
from torch import Tensor


def kto_loss(
    desirable_ratio_D: Tensor,
    undesirable_ratio_U: Tensor,
    mismatched_ratio_N: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Mean of weight · (1 - value), with the values of Kahneman and Tversky (arXiv:2402.01306, equation 7).

        value = sigmoid(beta · (ratio - z)) of a desirable response, sigmoid(beta · (z - ratio)) of an undesirable one

    z = max(0, mean of the mismatched ratios) estimates KL(policy ‖ reference), and no gradient goes through it.

    Args:
        desirable_ratio_D: log policy - log reference of each desirable response, nats, summed over its tokens.
        undesirable_ratio_U: the same of the undesirable ones.
        mismatched_ratio_N: the same of responses that were drawn for another prompt.
        beta: strength of the pull to the reference.
        desirable_weight: lambda_D.
        undesirable_weight: lambda_U.

    Returns:
        Scalar; half the mean weight if policy and reference agree.
    """
    z = mismatched_ratio_N.mean().clamp(min=0).detach()
    desirable_D = desirable_weight * (1 - torch.sigmoid(beta * (desirable_ratio_D - z)))
    undesirable_U = undesirable_weight * (1 - torch.sigmoid(beta * (z - undesirable_ratio_U)))
    return torch.cat([desirable_D, undesirable_U]).mean()
