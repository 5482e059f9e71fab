"""Curves of the mean score over evaluation points, and how evaluation noise is kept apart from movement.

Scale: base SD, see `analysis.scores`. Noise: every point is judged on the same prompts and random numbers, so what is
left of it is estimated from the prompts' paired differences between points.

Shapes: S seeds, C evaluation points (the base first), P prompts, B resamples, K pairs of points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.statistics.bootstrap import CONFIDENCE_LEVEL, MIN_SEEDS_FOR_METHOD, NORMAL_QUANTILE, Estimate, FloatArray


# ------------------------------------------------------------------------------------------------ taking the noise out
def noise_variance(values_NP: FloatArray) -> FloatArray:
    """Evaluation noise in the sample variance, over N, of means over prompts: `[..., N, P]` -> `[...]`.

    E[s^2(observed)] = s^2(true) + this, exactly, whatever the prompts have in common: the mean over prompts of the
    sample variance of a prompt's deviations, over P - 1. For steps it is the 2 SE^2 of a difference of two points, with
    the correlation between neighbouring steps kept.
    """
    deviations = values_NP - values_NP.mean(axis=-1, keepdims=True)
    return np.asarray(deviations.var(axis=-2, ddof=1).mean(axis=-1) / (values_NP.shape[-1] - 1))


def take_noise_out(values: FloatArray, noise: FloatArray | float) -> FloatArray:
    """Shrink numbers (last axis) to their mean until their sample variance is the observed one less the noise.

    The constrained empirical-Bayes estimate (Louis 1984, JASA 79:393): unlike the ordinary one it keeps the spread
    right, which is what a dispersion or an extreme is read from. No spread is left if noise explains all of it.
    """
    middle = values.mean(axis=-1, keepdims=True)
    observed = values.var(axis=-1, ddof=1, keepdims=True)
    true = np.clip(observed - np.asarray(noise)[..., None], 0, None)
    factor = np.sqrt(np.divide(true, observed, out=np.zeros_like(observed), where=observed > 0))
    return np.asarray(middle + factor * (values - middle))


def steps_without_noise(curve: FloatArray, noise: FloatArray | float) -> FloatArray:
    """A curve `[..., C]` whose steps have had the noise taken out; it keeps its first point and its mean step."""
    steps = np.diff(curve, axis=-1)
    steps = take_noise_out(steps, noise) if steps.shape[-1] > 1 else steps
    return np.concatenate([curve[..., :1], curve[..., :1] + np.cumsum(steps, axis=-1)], axis=-1)


def bias_of(statistic: Callable[[FloatArray], FloatArray], quiet_C: FloatArray, errors_BC: FloatArray) -> float:
    """How much noise adds to a statistic of a curve: its mean over the noise-free curve plus errors, less its value.

    A parametric bootstrap of the bias (Efron & Tibshirani 1993, section 10.3), taken at a curve without noise: taken at
    the observed one it would miss most of the bias of an extreme, which has noise in it already.
    """
    return float(statistic(quiet_C + errors_BC).mean() - statistic(quiet_C))


# ------------------------------------------------------------------------------------------------ intervals of extremes
def simultaneous_half_widths(differences_K: FloatArray, draws_BK: FloatArray, n: int) -> FloatArray:
    """Half-widths within which all K differences lie at once with 95 % confidence (max-t; Westfall & Young 1993).

    The bootstrap is too narrow on few prompts: it divides by n instead of n - 1 and knows no Student's t. Both are
    made up for.

    A statistic that rises with each difference, such as a drawdown, has its interval between its values at the lower
    and at the upper ends of such a band: no extreme of noise can pass for an extreme of the curve.
    """
    errors = draws_BK - differences_K
    scale = errors.std(axis=0)
    scaled = np.divide(np.abs(errors), scale, out=np.zeros_like(errors), where=scale > 0)
    small_sample = math.sqrt(n / (n - 1)) * float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, n - 1)) / NORMAL_QUANTILE
    return np.asarray(small_sample * np.quantile(scaled.max(axis=-1), CONFIDENCE_LEVEL) * scale)


@dataclass(frozen=True)
class SeedNumber:
    """A number of one seed with its interval over prompts."""

    value: float
    low: float
    high: float


def over_seeds(
    numbers: Sequence[SeedNumber], unit: str, n: int, minimum: float = -np.inf, maximum: float = np.inf
) -> Estimate:
    """Mean over seeds. From three on the interval speaks of the method: the seeds' t-interval is added in quadrature.

    The band's half-widths are averaged, not divided by the root of the number of seeds, because all seeds are judged on
    the same prompts.
    """
    values = np.array([number.value for number in numbers])
    value = float(values.mean())
    below = float(np.mean([number.value - number.low for number in numbers]))
    above = float(np.mean([number.high - number.value for number in numbers]))
    seeds = 0.0
    if len(values) >= MIN_SEEDS_FOR_METHOD:
        quantile = float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, len(values) - 1))
        seeds = quantile * float(values.std(ddof=1)) / len(values) ** 0.5
    low, high = max(minimum, value - float(np.hypot(below, seeds))), min(maximum, value + float(np.hypot(above, seeds)))
    return Estimate(
        value, min(low, value), max(high, value), (high - low) / (2 * NORMAL_QUANTILE), unit, n, len(values)
    )


def pairs_of_points(num_points: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """All pairs of an earlier and a later point."""
    return np.triu_indices(num_points, 1)
