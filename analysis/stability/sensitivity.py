"""Sensitivity to the knob: how far an algorithm's variants end apart. A wide spread is tuning that a team takes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.ledger import Ledger
from analysis.scores import base_sd, gain_SP
from analysis.stability.curves import bias_of, noise_variance, simultaneous_half_widths, take_noise_out
from analysis.statistics.bootstrap import NORMAL_QUANTILE, Estimate, FloatArray, Resamples, mean_draws, mean_estimate

NAMES = {"name", "algorithm"}


@dataclass(frozen=True)
class Variant:
    """One arm: the knobs in which it differs from its siblings, and its final gain over the base (base SD)."""

    arm: str
    knobs: dict[str, Any]
    gain: Estimate


@dataclass(frozen=True)
class Sensitivity:
    """One algorithm. `spread`: best less worst gain over its variants, base SD; None if there is one variant."""

    algorithm: str
    knobs: tuple[str, ...]
    variants: tuple[Variant, ...]
    spread: Estimate | None
    reason: str | None


def differing(knobs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The knobs whose values are not the same in all arms."""
    keys = dict.fromkeys(key for values in knobs.values() for key in values if key not in NAMES)
    return tuple(key for key in keys if len({repr(values.get(key)) for values in knobs.values()}) > 1)


def spread_of(means_NP: FloatArray, draws_BN: FloatArray, n: int, num_seeds: int) -> Estimate:
    """Highest less lowest of N means, less what noise adds; the interval from a simultaneous band over all pairs.

    Args:
        means_NP: score per prompt of each variant (mean over its seeds).
        draws_BN: bootstrap values of the means.
        n: prompts.
        num_seeds: of each variant.
    """
    observed = means_NP.mean(axis=1)
    one, other = np.triu_indices(len(observed), 1)
    gaps = observed[one] - observed[other]
    half = simultaneous_half_widths(gaps, draws_BN[:, one] - draws_BN[:, other], n)
    low, high = max(0.0, float((np.abs(gaps) - half).max())), float((np.abs(gaps) + half).max())
    quiet = take_noise_out(observed, noise_variance(means_NP))
    value = float(np.ptp(observed)) - bias_of(lambda values: np.ptp(values, axis=-1), quiet, draws_BN - observed)
    error = (high - low) / (2 * NORMAL_QUANTILE)
    return Estimate(float(np.clip(value, low, high)), low, high, error, "base SD", n, num_seeds)


def sensitivities(ledger: Ledger, resamples: Resamples) -> Iterator[Sensitivity]:
    """Of every algorithm of the sweep."""
    knobs_of = {item["arm"]: item["knobs"] for item in ledger.plan["arms"]}
    for algorithm in dict.fromkeys(ledger.algorithm(arm) for arm in ledger.arms):
        arms = [arm for arm in ledger.arms if ledger.algorithm(arm) == algorithm]
        gains = {arm: _gain(ledger, arm) for arm in arms}
        names = differing({arm: knobs_of[arm] for arm in arms})
        variants = tuple(
            Variant(
                arm, {name: knobs_of[arm].get(name) for name in names}, mean_estimate(gains[arm], resamples, "base SD")
            )
            for arm in arms
        )
        if len(arms) == 1:
            yield Sensitivity(algorithm, (), variants, None, "not assessable: one finished variant")
            continue
        means_NP = np.stack([gains[arm].mean(axis=0) for arm in arms])
        draws_BN = np.stack([mean_draws(gains[arm], resamples) for arm in arms], axis=1)
        num_seeds = min(len(gains[arm]) for arm in arms)
        yield Sensitivity(algorithm, names, variants, spread_of(means_NP, draws_BN, means_NP.shape[1], num_seeds), None)


def _gain(ledger: Ledger, arm: str) -> FloatArray:
    return np.asarray(gain_SP(ledger, ledger.measure, arm) / base_sd(ledger))
