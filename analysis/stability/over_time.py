"""Dispersion and risk along training: how much the curve of one run moves, and how far it falls.

After Chan et al. 2020 (arXiv:1912.05663), with the drawdown as running peak minus value, so that risk is in its upper
tail. Noise alone makes the worst step of a flat curve negative and its drawdown positive; both are corrected for that
bias, and their intervals come from a simultaneous band over all pairs of points. Units: base SD.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.stability.curves import (
    SeedNumber,
    bias_of,
    noise_variance,
    over_seeds,
    pairs_of_points,
    simultaneous_half_widths,
    steps_without_noise,
    take_noise_out,
)
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, percentile_interval

MIN_STEPS_FOR_SPREAD = 2
Reduce = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Measured:
    """A number that describes what was measured, without an interval."""

    exact: float
    unit: str


@dataclass(frozen=True)
class StepSpread:
    """How much the steps between evaluation points differ (DT of Chan et al.), with the evaluation noise taken out.

    Attributes:
        standard_deviation: of the steps, noise taken out: true^2 = observed^2 - noise^2, zero if noise explains all.
        observed_sd, noise_sd: the two that it is made of.
        interquartile_range: noise taken out. Without an interval: the bootstrap's covers as little as 45 % if the
            steps are of two kinds (analysis/coverage.md).
        observed_interquartile_range: the same with the noise in it.
    """

    standard_deviation: Estimate
    observed_sd: Measured
    noise_sd: Measured
    interquartile_range: Measured
    observed_interquartile_range: Measured


@dataclass(frozen=True, kw_only=True)
class OverTime:
    """One arm. Base SD, unless the unit says otherwise.

    Attributes:
        drawdown: largest fall below the running peak.
        observed_drawdown: before the correction for noise.
        drawdown_tail: mean of the deepest `num_tail_points` points below the running peak.
        under_water: percent of the points after the base that lie below the running peak; the interval runs from those
            that are shown to lie below it to those that may.
        final_over_peak: percent of the peak's measure that the final model keeps.
        worst_step: mean of the worst `num_tail_steps` steps (CVaR); the worst step if that is one.
        step_spread: None if there is one step.
    """

    drawdown: Estimate
    observed_drawdown: Measured
    drawdown_tail: Estimate
    num_tail_points: int
    under_water: Estimate
    final_over_peak: Estimate
    worst_step: Estimate
    num_tail_steps: int
    step_spread: StepSpread | None


@dataclass(frozen=True, kw_only=True)
class ResampledOverTime(OverTime):
    """The same with what the report does not show.

    Attributes:
        drawdown_draws: `[B]`, the resampled drawdowns around the corrected value.
        drawdown_per_seed: corrected, one number a seed.
        prompt_variance: of one seed's drawdown over resamples of prompts, mean over seeds.
    """

    drawdown_draws: FloatArray
    drawdown_per_seed: tuple[float, ...]
    prompt_variance: float


# ------------------------------------------------------------------------------------------------------ pure statistics
def drawdown_path(curve: FloatArray) -> FloatArray:
    """Running peak minus value at every point, over the last axis."""
    return np.asarray(np.maximum.accumulate(curve, axis=-1) - curve)


def drawdown(curve: FloatArray) -> FloatArray:
    """Largest fall below the running peak, over the last axis. Zero for a curve that never falls."""
    return np.asarray(drawdown_path(curve).max(axis=-1))


def path_of_drops(drops_K: FloatArray, num_points: int) -> FloatArray:
    """`drawdown_path` `[C]` from the drops of all pairs of points (earlier minus later)."""
    path = np.zeros(num_points)
    _, later = pairs_of_points(num_points)
    np.maximum.at(path, later, drops_K)
    return path


def tail_size(num: int, share: float) -> int:
    """How many of `num` values are the tail of that share: at least one."""
    return max(1, math.ceil(round(share * num, 9)))


def upper_tail_mean(values: FloatArray, size: int) -> FloatArray:
    """Mean of the `size` largest values of the last axis (CVaR, Rockafellar & Uryasev 2000)."""
    return np.asarray(np.sort(values, axis=-1)[..., -size:].mean(axis=-1))


def share_under_water(path: FloatArray) -> FloatArray:
    """Percent of the points after the first that lie below the running peak."""
    return np.asarray(100 * (path[..., 1:] > 0).mean(axis=-1))


def interquartile_range(values: FloatArray) -> FloatArray:
    """Over the last axis."""
    low, high = np.quantile(values, [0.25, 0.75], axis=-1)
    return np.asarray(high - low)


# ------------------------------------------------------------------------------------------------------------- one seed
@dataclass(frozen=True)
class SeedCurve:
    """One seed's curve with its resamples. `[C]`, `[B, C]`; `quiet`: the noise taken out. `n` prompts."""

    observed: FloatArray
    draws: FloatArray
    quiet: FloatArray
    n: int

    @classmethod
    def of(cls, curve_CP: FloatArray, prompts_BP: FloatArray) -> SeedCurve:
        """From the score per prompt."""
        observed = curve_CP.mean(axis=1)
        noise = noise_variance(np.diff(curve_CP, axis=0)) if len(curve_CP) > MIN_STEPS_FOR_SPREAD else 0.0
        return cls(observed, prompts_BP @ curve_CP.T, steps_without_noise(observed, noise), curve_CP.shape[1])

    def debiased(self, statistic: Reduce) -> float:
        """A statistic of the curve less what noise adds to it."""
        return float(statistic(self.observed)) - bias_of(statistic, self.quiet, self.draws - self.observed)

    def of_path(self, reduce: Reduce) -> SeedNumber:
        """A statistic of the drawdown path."""
        num_points = len(self.observed)
        earlier, later = pairs_of_points(num_points)
        drops = self.observed[earlier] - self.observed[later]
        half = simultaneous_half_widths(drops, self.draws[:, earlier] - self.draws[:, later], self.n)
        low, high = (float(reduce(path_of_drops(ends, num_points))) for ends in (drops - half, drops + half))
        value = self.debiased(lambda curve: reduce(drawdown_path(curve)))
        return SeedNumber(float(np.clip(value, low, high)), low, high)

    def of_steps(self, reduce: Reduce) -> SeedNumber:
        """A statistic of the steps that rises with each of them."""
        steps = np.diff(self.observed)
        half = simultaneous_half_widths(steps, np.diff(self.draws, axis=-1), self.n)
        low, high = float(reduce(steps - half)), float(reduce(steps + half))
        value = self.debiased(lambda curve: reduce(np.diff(curve, axis=-1)))
        return SeedNumber(float(np.clip(value, low, high)), low, high)


# -------------------------------------------------------------------------------------------------------------- one arm
def spread_over_time(curve_SCP: FloatArray, resamples: Resamples, tail_share: float) -> ResampledOverTime:
    """Dispersion and risk over evaluation points.

    Args:
        curve_SCP: score per prompt, base SD.
        resamples: of prompts and seeds.
        tail_share: of the steps, and of the points, that are the tail.
    """
    _, num_points, n = curve_SCP.shape
    curves = [SeedCurve.of(curve_CP, resamples.prompts) for curve_CP in curve_SCP]
    num_tail_points, num_tail_steps = (tail_size(num, tail_share) for num in (num_points, num_points - 1))

    def of_path(reduce: Reduce, unit: str = "base SD") -> Estimate:
        return over_seeds([curve.of_path(reduce) for curve in curves], unit, n, minimum=0)

    falls = [curve.of_path(lambda path: path.max(axis=-1)) for curve in curves]
    deepest = over_seeds(falls, "base SD", n, minimum=0)
    raw_BS = np.stack([drawdown(curve.draws) for curve in curves], axis=1)
    centred_BS = raw_BS - raw_BS.mean(axis=0) + [fall.value for fall in falls]
    return ResampledOverTime(
        drawdown=deepest,
        drawdown_draws=resamples.average_seeds(centred_BS),
        drawdown_per_seed=tuple(fall.value for fall in falls),
        prompt_variance=float(raw_BS.var(axis=0).mean()),
        observed_drawdown=Measured(float(np.mean([drawdown(curve.observed) for curve in curves])), "base SD"),
        drawdown_tail=of_path(lambda path: upper_tail_mean(path, num_tail_points)),
        num_tail_points=num_tail_points,
        under_water=over_seeds([curve.of_path(share_under_water) for curve in curves], "percent", n, 0, 100),
        final_over_peak=_final_over_peak(curves, n),
        worst_step=over_seeds(
            [curve.of_steps(lambda steps: -upper_tail_mean(-steps, num_tail_steps)) for curve in curves], "base SD", n
        ),
        num_tail_steps=num_tail_steps,
        step_spread=step_spread(curve_SCP, resamples) if num_points > MIN_STEPS_FOR_SPREAD else None,
    )


def _final_over_peak(curves: list[SeedCurve], n: int) -> Estimate:
    """100 (1 - final drop / peak), with the peak taken as known: its error is small beside the drop's."""
    kept = []
    for curve in curves:
        drop, peak = curve.of_path(lambda path: path[..., -1]), float(curve.observed.max())
        value, high, low = (100 * (1 - fall / peak) for fall in (drop.value, drop.low, drop.high))
        kept.append(SeedNumber(value, low, high))
    return over_seeds(kept, "percent", n, maximum=100)


def step_spread(curve_SCP: FloatArray, resamples: Resamples) -> StepSpread:
    """Spread of the steps of a run, mean over seeds.

    A resample has the noise of the evaluation and that of the resampling in it, so it is taken out twice.
    """
    steps_SKP = np.diff(curve_SCP, axis=1)
    noise_S, steps_SK = noise_variance(steps_SKP), steps_SKP.mean(axis=2)
    observed_S = steps_SK.var(axis=1, ddof=1)
    draws_BSK = np.einsum("bp,skp->bsk", resamples.prompts, steps_SKP, optimize=True)
    variances = resamples.average_seeds(draws_BSK.var(axis=2, ddof=1) - 2 * noise_S)
    draws, value = np.sqrt(np.clip(variances, 0, None)), _root(float((observed_S - noise_S).mean()))
    low, high = percentile_interval(draws)
    num_seeds, _, n = steps_SKP.shape
    return StepSpread(
        Estimate(value, min(low, value), max(high, value), float(draws.std()), "base SD", n, num_seeds),
        Measured(_root(float(observed_S.mean())), "base SD"),
        Measured(_root(float(noise_S.mean())), "base SD"),
        Measured(float(interquartile_range(take_noise_out(steps_SK, noise_S)).mean()), "base SD"),
        Measured(float(interquartile_range(steps_SK).mean()), "base SD"),
    )


def _root(variance: float) -> float:
    return math.sqrt(max(0.0, variance))
