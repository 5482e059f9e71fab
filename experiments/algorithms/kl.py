"""Estimators of KL(pi || pi_ref) from samples of pi (Schulman 2020, "Approximating KL divergence")."""

from __future__ import annotations

from torch import Tensor


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """The log-ratio log(pi / pi_ref): unbiased, can be negative. Summed over a response: its KL, in nats."""
    return logp - ref_logp


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """The estimate r - 1 - log r with r = pi_ref / pi: unbiased, never negative. As a reward or a loss it is biased."""
    log_r = ref_logp - logp
    return log_r.exp() - 1 - log_r


def adapted_coefficient(coefficient: float, kl: float, target: float, num_prompts: int, horizon_prompts: int) -> float:
    """The KL coefficient after one batch of rollouts (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    Args:
        coefficient: beta that the rollouts were rewarded with.
        kl: mean KL of the rollouts, nats a response.
        target: KL to hold, nats a response.
        num_prompts: rollouts in the batch.
        horizon_prompts: the coefficient changes by at most a fifth over this number of prompts.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * num_prompts / horizon_prompts)
