"""How steadily an arm got where it ended: over its evaluation points, over the samples of one prompt, and over seeds.

Scale: one base SD is the standard deviation over prompts of the base's mean gold per prompt, so that arms and tasks can
be compared. After Chan et al. 2020 (arXiv:1912.05663), with the drawdown as running peak minus value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.load import BASE, Ledger, LedgerError
from analysis.statistics import Estimate, FloatArray, Resamples, mean_estimate, recentred_estimate

MIN_SEEDS_TO_LIST = 3
MIN_SEEDS_TO_SUMMARISE = 5


@dataclass(frozen=True)
class SeedSpread:
    """What the seeds say about the method. `reason` is set where they say too little.

    Attributes:
        values: final mean gold of each seed, gold points.
        interquartile_range: gold points, from five seeds on.
        worst: gold points, from five seeds on.
    """

    assessable: bool
    reason: str | None
    values: tuple[float, ...]
    interquartile_range: float | None = None
    worst: float | None = None
    unit: str = "gold points"


@dataclass(frozen=True)
class Stability:
    """One arm. Drawdown and step in base SD; `final_over_peak` in percent; the spreads within a prompt in base SD."""

    drawdown: Estimate
    worst_step: Estimate
    final_over_peak: Estimate
    within_prompt: Estimate | None
    within_prompt_base: Estimate | None
    seeds: SeedSpread


def base_sd(ledger: Ledger, column: str = "gold") -> float:
    """SD over prompts of the base's mean score per prompt; the unit "base SD".

    Raises:
        LedgerError: the base scores the same on every prompt, so that there is no such unit.
    """
    spread = float(np.std(ledger.numbers(BASE, column).mean(axis=2)[0], ddof=1))
    if spread == 0:
        raise LedgerError(f"the base has the same {column} score on every prompt, so nothing can be measured by it")
    return spread


def drawdown(curve: FloatArray) -> FloatArray:
    """Largest fall below the running peak, over the last axis. Zero for a curve that never falls."""
    falls = np.maximum.accumulate(curve, axis=-1) - curve
    return np.asarray(falls.max(axis=-1))


def worst_step(curve: FloatArray) -> FloatArray:
    """Smallest change between successive points, over the last axis; negative if the curve ever fell."""
    return np.asarray(np.diff(curve, axis=-1).min(axis=-1))


def final_over_peak(curve: FloatArray) -> FloatArray:
    """Last value over the highest, in percent, over the last axis."""
    return np.asarray(100 * curve[..., -1] / curve.max(axis=-1))


def within_prompt_sd(values_SPM: FloatArray) -> FloatArray:
    """SD over the samples of one prompt, `[S, P]`."""
    return np.asarray(values_SPM.std(axis=2, ddof=1))


def spread_over_seeds(values: list[float]) -> SeedSpread:
    """List three or four seeds, summarise five or more, and say "not assessable" below."""
    if len(values) < MIN_SEEDS_TO_LIST:
        have = "one seed" if len(values) == 1 else f"{len(values)} seeds"
        reason = (
            f"not assessable: {have}, and differences between runs of the same arm need at least {MIN_SEEDS_TO_LIST}"
        )
        return SeedSpread(False, reason, tuple(values))
    if len(values) < MIN_SEEDS_TO_SUMMARISE:
        reason = f"listed only: {len(values)} seeds are too few for a spread with an interval"
        return SeedSpread(True, reason, tuple(values))
    low, high = np.quantile(values, [0.25, 0.75])
    return SeedSpread(True, None, tuple(values), float(high - low), min(values))


def gold_curve(ledger: Ledger, arm: str) -> FloatArray:
    """Mean gold per prompt at every evaluation point, the base first: `[S, C, P]`."""
    num_seeds = len(ledger.seeds(arm))
    points = [ledger.numbers(arm, "gold", point).mean(axis=2) for point in range(ledger.final_point + 1)]
    return np.stack(
        [np.repeat(values, num_seeds, axis=0) if len(values) < num_seeds else values for values in points], axis=1
    )


def assess(ledger: Ledger, arm: str, resamples: Resamples) -> Stability:
    """Stability of one arm."""
    curve_SCP, scale = gold_curve(ledger, arm), base_sd(ledger)
    curve_SC = curve_SCP.mean(axis=2)
    draws_BSC = np.einsum("bp,scp->bsc", resamples.prompts, curve_SCP)
    num_seeds, _, n = curve_SCP.shape

    def over_seeds(draws_BS: FloatArray) -> FloatArray:
        return resamples.average_seeds(draws_BS)

    return Stability(
        drawdown=recentred_estimate(
            float(drawdown(curve_SC).mean()) / scale,
            over_seeds(drawdown(draws_BSC)) / scale,
            "base SD",
            n,
            num_seeds,
            minimum=0,
        ),
        worst_step=recentred_estimate(
            float(worst_step(curve_SC).mean()) / scale,
            over_seeds(worst_step(draws_BSC)) / scale,
            "base SD",
            n,
            num_seeds,
        ),
        final_over_peak=recentred_estimate(
            float(final_over_peak(curve_SC).mean()),
            over_seeds(final_over_peak(draws_BSC)),
            "percent",
            n,
            num_seeds,
            maximum=100,
        ),
        within_prompt=_within_prompt(ledger, arm, scale, resamples),
        within_prompt_base=_within_prompt(ledger, BASE, scale, resamples),
        seeds=spread_over_seeds([float(value) for value in 100 * curve_SC[:, -1]]),
    )


def _within_prompt(ledger: Ledger, arm: str, scale: float, resamples: Resamples) -> Estimate | None:
    values = ledger.numbers(arm, "gold")
    if values.shape[2] == 1:
        return None
    return mean_estimate(within_prompt_sd(values) / scale, resamples, "base SD")
