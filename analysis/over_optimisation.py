"""Gold and proxy over the square root of the KL to the base: what the reward says beside what the gold scorer says.

The axes are those of Gao, Schulman & Hilton 2022 (arXiv:2210.10760). Nothing is fitted and nothing is judged here. KL
is comparable within an arm, not across algorithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.load import BASE, Ledger
from analysis.stability import base_sd
from analysis.statistics import Estimate, Resamples, mean_estimate
from analysis.style_drift import divergence


@dataclass(frozen=True)
class Gain:
    """One evaluation point of one arm; gains over the base in base SD of the score in question.

    Attributes:
        root_kl: sqrt of the mean KL per response (nats); zero where the estimate is negative.
        proxy: None where the sweep has no reward model.
    """

    point: int
    root_kl: float
    kl: Estimate
    gold: Estimate
    proxy: Estimate | None


def gains(ledger: Ledger, arm: str, resamples: Resamples) -> list[Gain]:
    """Gold and proxy gain at every evaluation point after the base."""
    return [_gain(ledger, arm, point, resamples) for point in range(1, ledger.final_point + 1)]


def _gain(ledger: Ledger, arm: str, point: int, resamples: Resamples) -> Gain:
    kl = divergence(ledger, arm, resamples, point).per_response
    proxy = score_gain(ledger, arm, "proxy", point, resamples) if ledger.has("proxy") else None
    return Gain(point, float(np.sqrt(max(0.0, kl.value))), kl, score_gain(ledger, arm, "gold", point, resamples), proxy)


def score_gain(ledger: Ledger, arm: str, column: str, point: int, resamples: Resamples) -> Estimate:
    """Mean paired gain of a score over the base, in base SD of that score."""
    difference = ledger.numbers(arm, column, point) - ledger.numbers(BASE, column)
    return mean_estimate(difference.mean(axis=2) / base_sd(ledger, column), resamples, "base SD")
