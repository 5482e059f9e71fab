"""Estimators of KL(pi || pi_ref) from samples of pi (Schulman 2020, "Approximating KL divergence")."""

from __future__ import annotations

from torch import Tensor


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """The log-ratio log(pi / pi_ref): unbiased, can be negative. Summed over a response: its KL, in nats."""
    return logp - ref_logp


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """R - 1 - log r with r = pi_ref / pi: unbiased, never negative, for logging only (biased as a reward or a loss)."""
    log_r = ref_logp - logp
    return log_r.exp() - 1 - log_r
