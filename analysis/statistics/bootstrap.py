"""Bootstrap intervals and their companions: pure functions, randomness passed in.

The unit of resampling is the prompt, because several samples of one prompt are not independent (Miller 2024,
arXiv:2411.00640). All numbers of a report share one set of resamples, so that differences between them are paired.

Shapes: S seeds, P prompts, M samples of a prompt, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 2000
DECIMALS = 12  # kept of every number
NORMAL_QUANTILE = float(stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2))  # 1.96
MIN_PROMPTS = 2  # below which there is nothing to resample
MIN_SEEDS_FOR_METHOD = 3  # below this the seeds are averaged, and the interval speaks of these checkpoints only


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. `n` prompts and `num_seeds` seeds went into it.

    `standard_error` is the SD of the resamples; from three seeds on half the interval over 1.96, what a normal estimate
    with such an interval would have, because the SD of a t distribution with so few degrees of freedom may be infinite.
    """

    value: float
    low: float
    high: float
    standard_error: float
    unit: str
    n: int
    num_seeds: int = 1

    def excludes(self, reference: float) -> bool:
        """Whether the interval lies on one side of `reference`."""
        return not self.low <= reference <= self.high

    @property
    def minimum_detectable_effect(self) -> float:
        """The smallest true effect that this many prompts and seeds would show in four of five repetitions."""
        return minimum_detectable_effect(self.standard_error)

    def as_dict(self) -> dict[str, Any]:
        """For report.json."""
        return {**asdict(self), "level": CONFIDENCE_LEVEL}


@dataclass(frozen=True)
class Resamples:
    """One set of bootstrap weights for everything.

    Attributes:
        prompts: `[B, P]`, rows sum to 1.
        seeds: number of seeds k -> `[B, k]`, rows sum to 1; all equal below `MIN_SEEDS_FOR_METHOD`. For what cannot be
            computed for one seed; a mean over seeds is better served by `average_seeds`.
        swaps: `[B, P]` of 0 or 1, for the label swaps of the noise floor.
        pivots: number of seeds k -> `[2, B]`, standard normal values and χ² values over their k − 1 degrees of freedom.
    """

    prompts: FloatArray
    seeds: Mapping[int, FloatArray]
    swaps: FloatArray
    pivots: Mapping[int, FloatArray] = field(default_factory=dict)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, num_prompts: int, max_seeds: int, num_resamples: int = NUM_RESAMPLES
    ) -> Resamples:
        """Draw the weights: prompts always, seeds from three on (crossed, since every seed sees the same prompts)."""
        return cls(
            prompts=multinomial_weights(rng, num_prompts, num_resamples),
            seeds={count: _seed_weights(rng, count, num_resamples) for count in range(1, max_seeds + 1)},
            swaps=rng.integers(0, 2, size=(num_resamples, num_prompts)).astype(np.float64),
            pivots={
                count: _seed_pivots(rng, count, num_resamples) for count in range(MIN_SEEDS_FOR_METHOD, max_seeds + 1)
            },
        )

    def of_prompts(self, chosen: npt.NDArray[Any] | Sequence[int]) -> Resamples:
        """The same for some of the prompts; equal weights if a resample drew none of them.

        Args:
            chosen: their positions, or one Boolean for each prompt.
        """
        weights = self.prompts[:, chosen]
        totals = weights.sum(axis=1, keepdims=True)
        even = np.full_like(weights, 1 / weights.shape[1])
        return replace(
            self, prompts=np.divide(weights, totals, out=even, where=totals > 0), swaps=self.swaps[:, chosen]
        )

    def average_seeds(self, draws_BS: FloatArray) -> FloatArray:
        """Resamples of prompts for each seed, `[B, S]` -> resamples of the mean over seeds, `[B]`.

        From three seeds on they carry what other seeds would have given. Drawing the seeds again would not do: it
        understates their variance by (S − 1) / S, knows nothing of how uncertain so few leave it, and counts the
        noise of prompts up to three times (Owen 2007, arXiv:0712.1111). Instead, with V = s² / S the variance of the
        mean by the spread of the seeds, and N the part of it that is noise of prompts within a seed, which is in the
        resamples already, the variance between seeds is drawn from its generalised pivotal quantity
        max(0, V (S − 1) / χ² − N) (Weerahandi 1993; Krishnamoorthy & Mathew 2004). If seeds dominate this is
        Student's t with S − 1 degrees of freedom; if they spread no more than noise explains, V ≤ N, nothing is
        added. analysis/coverage.md has the measured coverage.

        The spread is that of the given quantity: take differences and ratios for each seed, before averaging.

        Args:
            draws_BS: all resamples or the first of them.
        """
        num_resamples, num_seeds = draws_BS.shape
        mean_B = draws_BS.mean(axis=1)
        if num_seeds < MIN_SEEDS_FOR_METHOD:
            return np.asarray(mean_B)
        between = draws_BS.mean(axis=0).var(ddof=1) / num_seeds
        noise = (draws_BS - mean_B[:, None]).var(axis=0).sum() / (num_seeds * (num_seeds - 1))
        if between <= noise:
            return np.asarray(mean_B)
        normal_B, chi_square_B = self.pivots[num_seeds][:, :num_resamples]
        return np.asarray(mean_B + normal_B * np.sqrt(np.maximum(0, between / chi_square_B - noise)))


def multinomial_weights(rng: np.random.Generator, num_units: int, num_resamples: int) -> FloatArray:
    """Weights of the ordinary bootstrap: how often each unit is drawn in n draws with replacement, over n. `[B, n]`."""
    counts = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=num_resamples)
    return counts / num_units


def _seed_weights(rng: np.random.Generator, num_seeds: int, num_resamples: int) -> FloatArray:
    if num_seeds < MIN_SEEDS_FOR_METHOD:
        return np.full((num_resamples, num_seeds), 1 / num_seeds)
    return multinomial_weights(rng, num_seeds, num_resamples)


def _seed_pivots(rng: np.random.Generator, num_seeds: int, num_resamples: int) -> FloatArray:
    """Every quantile once, in random order: less chance in the ends of an interval than from free draws. `[2, B]`."""
    quantiles = (np.arange(num_resamples) + 0.5) / num_resamples
    normal_B = stats.norm.ppf(rng.permutation(quantiles))
    chi_square_B = stats.chi2.ppf(rng.permutation(quantiles), num_seeds - 1) / (num_seeds - 1)
    return np.stack([normal_B, chi_square_B])


def percentile_interval(draws: FloatArray, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Percentile interval (Efron & Tibshirani 1993, section 13.3) of bootstrap values `[B]`."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate_from_draws(value: float, draws: FloatArray, unit: str, n: int, num_seeds: int = 1) -> Estimate:
    """An estimate with its percentile interval from bootstrap values `[B]`.

    The last bits are rounded away: they depend on the order of summation, and an interval of width zero must contain
    its own value.
    """
    low, high = percentile_interval(np.round(draws, DECIMALS))
    of_checkpoints = num_seeds < MIN_SEEDS_FOR_METHOD
    standard_error = float(np.std(draws)) if of_checkpoints else (high - low) / (2 * NORMAL_QUANTILE)
    return Estimate(round(value, DECIMALS), low, high, standard_error, unit, n, num_seeds)


def recentred_estimate(
    value: float,
    draws: FloatArray,
    unit: str,
    n: int,
    num_seeds: int = 1,
    minimum: float = -math.inf,
    maximum: float = math.inf,
) -> Estimate:
    """An estimate whose bootstrap values are shifted to the observed value before the interval is taken.

    For distances and extremes: they grow when prompts are drawn twice, so the plain percentile interval may miss the
    value itself (bootstrap bias, Efron & Tibshirani 1993, section 10.4). The interval is cut to the possible range.
    """
    moved = estimate_from_draws(value, draws - float(np.mean(draws)) + value, unit, n, num_seeds)
    low, high = (float(np.clip(bound, minimum, maximum)) for bound in (moved.low, moved.high))
    return replace(moved, low=low, high=high)


def mean_draws(values_SP: FloatArray, resamples: Resamples) -> FloatArray:
    """Bootstrap values `[B]` of the mean over seeds and prompts, see `Resamples.average_seeds`."""
    return resamples.average_seeds(resamples.prompts @ values_SP.T)


def mean_estimate(values_SP: FloatArray, resamples: Resamples, unit: str) -> Estimate:
    """Mean over seeds and prompts with its interval."""
    num_seeds, num_prompts = values_SP.shape
    draws = mean_draws(values_SP, resamples)
    return estimate_from_draws(float(values_SP.mean()), draws, unit, num_prompts, num_seeds)


def ratio_draws(numerator_SP: FloatArray, denominator_SP: FloatArray, resamples: Resamples) -> FloatArray:
    """Bootstrap values `[B]` of the ratio of two means.

    r + mean(numerator − r denominator) / mean(denominator) is the ratio itself in every resample of prompts, and makes
    the spread of seeds that of the ratio, not of its two parts.
    """
    ratio = numerator_SP.mean() / denominator_SP.mean()
    denominator_BS = resamples.prompts @ denominator_SP.T
    excess_B = resamples.average_seeds(resamples.prompts @ numerator_SP.T - ratio * denominator_BS)
    return np.asarray(ratio + excess_B / denominator_BS.mean(axis=1))


def ratio_estimate(numerator_SP: FloatArray, denominator_SP: FloatArray, resamples: Resamples, unit: str) -> Estimate:
    """Ratio of two means (such as nats per token: total nats over total tokens) with its interval."""
    num_seeds, num_prompts = numerator_SP.shape
    draws = ratio_draws(numerator_SP, denominator_SP, resamples)
    value = float(numerator_SP.mean() / denominator_SP.mean())
    return estimate_from_draws(value, draws, unit, num_prompts, num_seeds)


def judged_mean(values_SPM: FloatArray, resamples: Resamples) -> tuple[Estimate, FloatArray] | None:
    """Mean in percent of what may be missing, with its resamples `[B]`; None if fewer than two prompts have any.

    First over the samples of a prompt that have a value, then over the prompts, seed by seed, that have one. A prompt
    that only some seeds have counts for those; one that no seed has is left out, and so is it of the resamples.

    Args:
        values_SPM: percent, NaN if missing.
        resamples: of all prompts.
    """
    there_P = np.asarray(np.isfinite(values_SPM).any(axis=(0, 2)))
    if there_P.sum() < MIN_PROMPTS:
        return None
    values_SPM, resamples = values_SPM[:, there_P], resamples.of_prompts(there_P)
    num_judged_SP = np.isfinite(values_SPM).sum(axis=2)
    mean_SP = np.nansum(values_SPM, axis=2) / np.maximum(1, num_judged_SP)
    judged_SP = np.minimum(1.0, num_judged_SP)
    num_seeds, num_prompts = judged_SP.shape
    draws_B = ratio_draws(mean_SP, judged_SP, resamples)
    value = float(mean_SP.mean() / judged_SP.mean())
    return estimate_from_draws(value, draws_B, "percent", num_prompts, num_seeds), draws_B


def two_sided_p(draws: FloatArray, reference: float) -> float:
    """p-value that belongs to the percentile interval: twice the smaller share of resamples on either side.

    With one added to both counts (Davison & Hinkley 1997, section 4.2.3), so that no p is below 2 / (B + 1).

    Args:
        draws: bootstrap values `[B]`.
        reference: the value that stands for no difference.
    """
    draws = np.round(draws, DECIMALS)
    fewer = min(int(np.sum(draws <= reference)), int(np.sum(draws >= reference)))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false claim in the family at the level (Holm 1979).

    The i-th smallest of m is multiplied by m − i + 1, and none may be smaller than one before it.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(p_values)[order]))
    return [float(p) for p in adjusted]


def simultaneous(num_intervals: int, significance_level: float = 1 - CONFIDENCE_LEVEL) -> float:
    """How much wider than one of 95 % intervals are that hold all together (Bonferroni, normal quantiles).

    Args:
        num_intervals: at least 1.
        significance_level: chance that any of them misses its truth.
    """
    return float(stats.norm.isf(significance_level / (2 * num_intervals)) / NORMAL_QUANTILE)


def sign_test(differences_P: FloatArray) -> float:
    """Two-sided exact p-value that prompts lean neither way; prompts with no difference are left out.

    With one pair of yes-or-no outcomes for each prompt this is McNemar's exact test: the pairs left over are the
    discordant ones. Several pairs of one prompt are not independent, so a prompt counts once, by its mean.

    Args:
        differences_P: one signed difference per prompt.
    """
    positive, negative = int(np.sum(differences_P > 0)), int(np.sum(differences_P < 0))
    if positive + negative == 0:
        return 1.0
    return float(stats.binomtest(positive, positive + negative, 0.5).pvalue)


def minimum_detectable_effect(standard_error: float, wider: float = 1.0) -> float:
    """True effect found with 80 % power at two-sided 5 %: (1.96 + 0.84) SE = 2.80 SD / sqrt(n).

    `wider` is that of `simultaneous`, if the effect has to stand a correction.
    """
    return (1.96 * wider + 0.84) * standard_error


def split_halves(digests: list[str]) -> tuple[list[int], list[int]]:
    """Positions of two disjoint halves, taken in the order of a hash of each unit, so that nobody chose them."""
    order = sorted(range(len(digests)), key=lambda position: digests[position])
    middle = (len(order) + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])
