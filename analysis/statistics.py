"""Bootstrap intervals and their companions: pure functions, randomness passed in.

The unit of resampling is the prompt, because several samples of one prompt are not independent (Miller 2024,
arXiv:2411.00640). All numbers of a report share one set of resamples, so that differences between them are paired.

Shapes: S seeds, P prompts, M samples of a prompt, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 2000
DECIMALS = 12  # kept of every number
MIN_SEEDS_FOR_METHOD = 3  # below this the seeds are averaged, and the interval speaks of these checkpoints only


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. `n` prompts and `num_seeds` seeds went into it."""

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
        seeds: number of seeds k -> `[B, k]`, rows sum to 1; all equal below `MIN_SEEDS_FOR_METHOD`.
        swaps: `[B, P]` of 0 or 1, for the label swaps of the noise floor.
    """

    prompts: FloatArray
    seeds: Mapping[int, FloatArray]
    swaps: FloatArray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, num_prompts: int, max_seeds: int, num_resamples: int = NUM_RESAMPLES
    ) -> Resamples:
        """Draw the weights: prompts always, seeds from three on (crossed, since every seed sees the same prompts)."""
        return cls(
            prompts=multinomial_weights(rng, num_prompts, num_resamples),
            seeds={count: _seed_weights(rng, count, num_resamples) for count in range(1, max_seeds + 1)},
            swaps=rng.integers(0, 2, size=(num_resamples, num_prompts)).astype(np.float64),
        )

    def average_seeds(self, draws: FloatArray) -> FloatArray:
        """`[B, S]` per seed -> `[B]`, with the seed weights of each resample."""
        return np.asarray((draws * self.seeds[draws.shape[1]]).sum(axis=1))


def multinomial_weights(rng: np.random.Generator, num_units: int, num_resamples: int) -> FloatArray:
    """Weights of the ordinary bootstrap: how often each unit is drawn in n draws with replacement, over n. `[B, n]`."""
    counts = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=num_resamples)
    return counts / num_units


def _seed_weights(rng: np.random.Generator, num_seeds: int, num_resamples: int) -> FloatArray:
    if num_seeds < MIN_SEEDS_FOR_METHOD:
        return np.full((num_resamples, num_seeds), 1 / num_seeds)
    return multinomial_weights(rng, num_seeds, num_resamples)


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
    return Estimate(round(value, DECIMALS), low, high, float(np.std(draws)), unit, n, num_seeds)


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
    """Bootstrap values `[B]` of the mean over seeds and prompts (two-level and crossed where there are three seeds)."""
    return resamples.average_seeds(resamples.prompts @ values_SP.T)


def mean_estimate(values_SP: FloatArray, resamples: Resamples, unit: str) -> Estimate:
    """Mean over seeds and prompts with its interval."""
    num_seeds, num_prompts = values_SP.shape
    draws = mean_draws(values_SP, resamples)
    return estimate_from_draws(float(values_SP.mean()), draws, unit, num_prompts, num_seeds)


def ratio_estimate(numerator_SP: FloatArray, denominator_SP: FloatArray, resamples: Resamples, unit: str) -> Estimate:
    """Ratio of two means (such as nats per token: total nats over total tokens) with its interval."""
    num_seeds, num_prompts = numerator_SP.shape
    draws = mean_draws(numerator_SP, resamples) / mean_draws(denominator_SP, resamples)
    value = float(numerator_SP.mean() / denominator_SP.mean())
    return estimate_from_draws(value, draws, unit, num_prompts, num_seeds)


def sign_test(differences_P: FloatArray) -> float:
    """Two-sided exact p-value that prompts lean neither way; prompts with no difference are left out.

    Args:
        differences_P: one signed difference per prompt.
    """
    positive, negative = int(np.sum(differences_P > 0)), int(np.sum(differences_P < 0))
    if positive + negative == 0:
        return 1.0
    return float(stats.binomtest(positive, positive + negative, 0.5).pvalue)


def minimum_detectable_effect(standard_error: float) -> float:
    """True effect found with 80 % power at two-sided 5 %: (1.96 + 0.84) SE = 2.80 SD / sqrt(n)."""
    return 2.80 * standard_error


def split_halves(digests: list[str]) -> tuple[list[int], list[int]]:
    """Positions of two disjoint halves, taken in the order of a hash of each unit, so that nobody chose them."""
    order = sorted(range(len(digests)), key=lambda position: digests[position])
    middle = (len(order) + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])
