"""Gain as a function of the distance to the base, and where that curve peaks.

The form is that of Gao, Schulman & Hilton 2022 (arXiv:2210.10760, equation 2) for reinforcement learning; Rafailov et
al. 2024 (arXiv:2406.02900) find it for DPO too:

    R(d) − R(0) = d (α − β ln d),  d = √KL(π ‖ base),  peak at d* = exp(α/β − 1)

It is linear in α and β, so a weighted least-squares fit on [d, −d ln d] without intercept is exact. The form breaks
near d = 0, where its slope is infinite, so points near the base are left out. A peak is only called a finding
("turnover") if three things hold. The run went past the whole interval of the peak, because an extrapolated peak is
not a measurement. The measure measurably rises to it and falls behind it, because the form has a peak for any curve
that levels off. And the points follow the curve.

Shapes: S seeds, C evaluation points with the base first, P prompts, B resamples, N = S x used points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.statistics.bootstrap import (
    CONFIDENCE_LEVEL,
    DECIMALS,
    MIN_SEEDS_FOR_METHOD,
    Estimate,
    FloatArray,
    Resamples,
    recentred_estimate,
)
from experiments.rules import ScalingLawRules

SINGULAR = 1e-12  # all points at one distance: a straight line is all that can be fitted
MIN_VARIANCE_SHARE = 1e-3  # of the mean variance; a point without any noise may not take all the weight
SURE = 0.99  # one-sided; at 97.5 % a curve that levels off was called a turnover in 4 % of simulations
SLOPE = "base SD per √nat"


@dataclass(frozen=True)
class Fit:
    """The curve fitted to one arm.

    Attributes:
        used: evaluation points in the fit.
        distance_N, gain_N: the points as observed, seed by seed.
        distance_BN, gain_BN, weight_BN: the same in every resample.
        coefficients_2, coefficients_B2: α and β, as observed and in every resample.
    """

    used: npt.NDArray[np.int64]
    distance_N: FloatArray
    gain_N: FloatArray
    distance_BN: FloatArray
    gain_BN: FloatArray
    weight_BN: FloatArray
    coefficients_2: FloatArray
    coefficients_B2: FloatArray

    @property
    def residual(self) -> float:
        """Root mean square distance of the points, mean over seeds, to the curve, base SD."""
        off_C = self._over_seeds(self.gain_N - curve(self.coefficients_2, self.distance_N))
        return round(float(np.sqrt(np.mean(off_C**2))), DECIMALS)

    @property
    def noise(self) -> float:
        """Root mean square standard error of the points, mean over seeds, base SD."""
        return round(float(np.sqrt(np.mean(self._over_seeds(self.gain_BN).var(axis=0)))), DECIMALS)

    def _over_seeds(self, values_N: FloatArray) -> FloatArray:
        """`[..., S x C]` -> `[..., C]`."""
        return np.asarray(values_N.reshape(*values_N.shape[:-1], -1, len(self.used)).mean(axis=-2))


@dataclass(frozen=True)
class Law:
    """What the fitted curve of one arm says.

    Attributes:
        why: why there is or is not a peak, in words.
        num_points: evaluation points in the fit.
        alpha, beta: of the curve; None if nothing was fitted.
        first, last: the range of d that was fitted, √nats.
        residual, noise: see `Fit`.
        peak: d*, √nats; None unless the arm is shown to have passed it (a turnover).
    """

    why: str
    num_points: int
    alpha: Estimate | None = None
    beta: Estimate | None = None
    first: float | None = None
    last: float | None = None
    residual: float | None = None
    noise: float | None = None
    peak: Estimate | None = None


# ------------------------------------------------------------------------------------------------------ pure statistics
def least_squares(distance_BN: FloatArray, gain_BN: FloatArray, weight_BN: FloatArray) -> FloatArray:
    """α and β by weighted least squares, one fit for each row. `[B, 2]`.

    Args:
        distance_BN: d, √nats, above 0.
        gain_BN: R(d) − R(0).
        weight_BN: inverse variances, in any unit.
    """
    linear_BN, bent_BN = distance_BN, -distance_BN * _logarithm(distance_BN)
    ll_B, lb_B, bb_B, lg_B, bg_B = (
        (weight_BN * one_BN * two_BN).sum(axis=-1)
        for one_BN, two_BN in (
            (linear_BN, linear_BN), (linear_BN, bent_BN), (bent_BN, bent_BN), (linear_BN, gain_BN), (bent_BN, gain_BN)
        )
    )  # fmt: skip
    determinant_B = ll_B * bb_B - lb_B**2
    solvable = determinant_B > SINGULAR * ll_B * bb_B
    determinant_B = np.where(solvable, determinant_B, 1.0)
    alpha_B = np.where(solvable, (bb_B * lg_B - lb_B * bg_B) / determinant_B, lg_B / np.where(ll_B > 0, ll_B, 1.0))
    beta_B = np.where(solvable, (ll_B * bg_B - lb_B * lg_B) / determinant_B, 0.0)
    return np.stack([alpha_B, beta_B], axis=-1)


def curve(coefficients_2: FloatArray, distance_N: FloatArray) -> FloatArray:
    """R(d) − R(0), zero at d = 0. `[..., N]` for coefficients `[..., 2]`."""
    alpha, beta = coefficients_2[..., :1], coefficients_2[..., 1:]
    return np.asarray(distance_N * (alpha - beta * _logarithm(distance_N)))


def peak(coefficients_B2: FloatArray) -> FloatArray:
    """d* of each row; infinite for β ≤ 0, where the curve has no maximum. `[B]`."""
    alpha_B, beta_B = coefficients_B2[..., 0], coefficients_B2[..., 1]
    bent = beta_B > 0
    exponent_B = np.divide(alpha_B, beta_B, out=np.full(beta_B.shape, np.inf), where=bent) - 1
    with np.errstate(over="ignore"):  # a very far peak is as good as none
        return np.asarray(np.where(bent, np.exp(exponent_B), np.inf))


def slope(x_BN: FloatArray, y_BN: FloatArray, weight_BN: FloatArray) -> FloatArray:
    """Slope of a weighted straight line, one for each row. `[B]`."""
    total_B1 = weight_BN.sum(axis=-1, keepdims=True)
    centred_BN = x_BN - (weight_BN * x_BN).sum(axis=-1, keepdims=True) / total_B1
    return np.asarray((weight_BN * centred_BN * y_BN).sum(axis=-1) / (weight_BN * centred_BN**2).sum(axis=-1))


def _logarithm(distance_N: FloatArray) -> FloatArray:
    """Natural logarithm, with 0 ln 0 = 0 in mind."""
    return np.log(np.where(distance_N > 0, distance_N, 1.0))


# -------------------------------------------------------------------------------------------------------------- one arm
def root_kl(nats: FloatArray) -> FloatArray:
    """Square root of a KL estimate, zero if the estimate is negative."""
    return np.sqrt(np.maximum(nats, 0.0))


def weighted_means(values_SCP: FloatArray, resamples: Resamples) -> FloatArray:
    """Bootstrap means over prompts, seed by seed: `[B, S, C]`."""
    draws_BN = resamples.prompts @ values_SCP.reshape(-1, values_SCP.shape[2]).T
    return draws_BN.reshape(-1, *values_SCP.shape[:2])


def fit_curve(gain_SCP: FloatArray, nats_SCP: FloatArray, resamples: Resamples, rules: ScalingLawRules) -> Fit | str:
    """Fit one arm, and again in every resample of prompts and, from three seeds, seeds; or why that is too little.

    Args:
        gain_SCP: gain over the base, base SD.
        nats_SCP: log π − log π_base of the arm's own samples; zero for the base.
        resamples: of these prompts.
        rules: which points count and how many it takes.
    """
    num_seeds, _, num_prompts = gain_SCP.shape
    used = np.flatnonzero(root_kl(nats_SCP.mean(axis=2)).min(axis=0) >= rules.min_root_kl)
    if num_prompts < rules.min_num_prompts:
        return f"there are {num_prompts} prompts; the fit asks for {rules.min_num_prompts}"
    if len(used) < rules.min_num_points:
        points = "1 evaluation point lies" if len(used) == 1 else f"{len(used) or 'no'} evaluation points lie"
        return f"{points} {rules.min_root_kl:g} √nats or more from the base; the fit asks for {rules.min_num_points}"
    gain_SCP, nats_SCP = gain_SCP[:, used], nats_SCP[:, used]
    distance_N, gain_N = root_kl(nats_SCP.mean(axis=2)).ravel(), gain_SCP.mean(axis=2).ravel()
    gain_BN = weighted_means(gain_SCP, resamples).reshape(-1, len(gain_N))
    distance_BN = root_kl(weighted_means(nats_SCP, resamples)).reshape(-1, len(gain_N))
    variance_N = gain_BN.var(axis=0)
    precision_N = 1 / np.maximum(variance_N, max(MIN_VARIANCE_SHARE * float(variance_N.mean()), 1e-30))
    weight_BN = np.repeat(resamples.seeds[num_seeds], len(used), axis=1) * precision_N
    best_2 = least_squares(distance_N, gain_N, precision_N)
    draws_B2 = least_squares(distance_BN, gain_BN, weight_BN)
    return Fit(used, distance_N, gain_N, distance_BN, gain_BN, weight_BN, best_2, draws_B2)


def scaling_law(gain_SCP: FloatArray, nats_SCP: FloatArray, resamples: Resamples, rules: ScalingLawRules) -> Law:
    """Fit one arm and judge its peak. Arguments as in `fit_curve`."""
    found = fit_curve(gain_SCP, nats_SCP, resamples, rules)
    if isinstance(found, str):
        return Law(found, 0)
    num_seeds, _, num_prompts = gain_SCP.shape
    alpha, beta = (
        recentred_estimate(float(found.coefficients_2[k]), found.coefficients_B2[:, k], SLOPE, num_prompts, num_seeds)
        for k in (0, 1)
    )
    law = Law(
        "", len(found.used), alpha, beta, float(found.distance_N.min()),
        float(found.distance_N.max()), found.residual, found.noise,
    )  # fmt: skip
    return _judge(law, found, rules, num_prompts, num_seeds)


def _judge(law: Law, found: Fit, rules: ScalingLawRules, num_prompts: int, num_seeds: int) -> Law:
    """Why there is or is not a peak, and the peak if it is a finding."""
    place = float(peak(found.coefficients_2))
    low, high = peak_interval(place, peak(found.coefficients_B2), num_seeds)
    farthest = float(found.distance_N.max())
    if found.residual > rules.max_misfit * found.noise:
        return replace(
            law,
            why="the points do not follow the curve, so its peak means nothing here; the audit looks for a fall",
        )
    if not high < farthest:
        return replace(
            law, why=f"the interval of the peak does not end inside the range seen, up to {farthest:.1f} √nats"
        )
    if not (_rises_to(place, found) and _falls_behind(place, found)):
        return replace(
            law, why="the curve levels off inside the range seen, without a measurable rise and fall of the measure"
        )
    peak_there = Estimate(
        round(place, DECIMALS), min(low, place), max(high, place), (high - low) / 4, "√nats", num_prompts, num_seeds
    )
    scope = "of these checkpoints" if num_seeds < MIN_SEEDS_FOR_METHOD else f"over {num_seeds} seeds"
    why = f"the measure rises to about {place:.1f} √nats and falls behind it, inside the range seen, {scope}"
    return replace(law, why=why, peak=peak_there)


def peak_interval(place: float, draws_B: FloatArray, num_seeds: int) -> tuple[float, float]:
    """Percentile interval by order statistics, since some peaks may be infinite.

    A bootstrap of k seeds shows (k − 1)/k of their variance; ln d* is stretched by the root of k/(k − 1) for that.
    """
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = (float(end) for end in np.quantile(draws_B, [tail, 1 - tail], method="inverted_cdf"))
    if num_seeds < MIN_SEEDS_FOR_METHOD or not 0 < place < np.inf:
        return low, high
    stretch = np.sqrt(num_seeds / (num_seeds - 1))
    return place * (low / place) ** stretch, place * (high / place) ** stretch


def _rises_to(place: float, found: Fit) -> bool:
    """Whether the fitted measure at the peak is above the base with its whole interval."""
    height_B = curve(found.coefficients_B2, np.array([place]))[:, 0]
    return float(np.quantile(height_B, (1 - CONFIDENCE_LEVEL) / 2)) > 0


def _falls_behind(place: float, found: Fit) -> bool:
    """Whether the slope of the measure from the peak on is surely below zero.

    From the last point before the peak on, or over the last two points if only one lies behind.
    """
    reached = np.unique(found.distance_N)
    start = reached[max(0, min(int(np.searchsorted(reached, place)) - 1, len(reached) - 2))]
    behind = found.distance_N >= start
    draws_B = slope(found.distance_BN[:, behind], found.gain_BN[:, behind], found.weight_BN[:, behind])
    return float(np.quantile(draws_B, SURE)) < 0
