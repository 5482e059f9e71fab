"""Dispersion and risk over seeds (DR and RR of Chan et al. 2020, arXiv:1912.05663): what another run may end like."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from analysis.stability.curves import noise_variance
from analysis.stability.over_time import Measured, interquartile_range
from analysis.statistics.bootstrap import CONFIDENCE_LEVEL, Estimate, FloatArray

MIN_SEEDS_TO_LIST = 3
MIN_SEEDS_TO_SUMMARISE = 5


@dataclass(frozen=True)
class SeedSpread:
    """What the seeds say about the method. `reason` is set if they say too little.

    Attributes:
        values: final gain over the base of each seed, base SD.
        standard_deviation: with its interval, from five seeds on.
        interquartile_range, worst: from five seeds on.
    """

    assessable: bool
    reason: str | None
    values: tuple[float, ...]
    standard_deviation: Estimate | None = None
    interquartile_range: Measured | None = None
    worst: Measured | None = None
    unit: str = "base SD"


def spread_over_seeds(gains_SP: FloatArray) -> SeedSpread:
    """List three or four seeds, summarise five or more, and say "not assessable" below.

    Args:
        gains_SP: final gain over the base on each prompt, base SD.
    """
    gains_S = gains_SP.mean(axis=1)
    count, values = len(gains_S), tuple(float(value) for value in gains_S)
    if count < MIN_SEEDS_TO_LIST:
        have = "one seed" if count == 1 else f"{count} seeds"
        reason = (
            f"not assessable: {have}, and differences between runs of the same arm need at least {MIN_SEEDS_TO_LIST}"
        )
        return SeedSpread(False, reason, values)
    if count < MIN_SEEDS_TO_SUMMARISE:
        return SeedSpread(True, f"listed only: {count} seeds are too few for a spread with an interval", values)
    return SeedSpread(
        True,
        None,
        values,
        standard_deviation(gains_SP),
        Measured(float(interquartile_range(gains_S)), "base SD"),
        Measured(min(values), "base SD"),
    )


def standard_deviation(gains_SP: FloatArray) -> Estimate:
    """SD over seeds, with the evaluation noise taken out of it and of both ends of its interval.

    That of a normal sample: (k - 1) s^2 is sigma^2 + noise times a chi-square with k - 1 degrees. Zero if noise
    explains all of it.
    """
    count, num_prompts = gains_SP.shape
    observed, noise = float(gains_SP.mean(axis=1).var(ddof=1)), float(noise_variance(gains_SP))
    tails = (1 + CONFIDENCE_LEVEL) / 2, (1 - CONFIDENCE_LEVEL) / 2
    ends = (observed * (count - 1) / float(stats.chi2.ppf(tail, count - 1)) for tail in tails)
    value, low, high = (max(0.0, variance - noise) ** 0.5 for variance in (observed, *ends))
    return Estimate(value, low, high, (observed / (2 * (count - 1))) ** 0.5, "base SD", num_prompts, count)
