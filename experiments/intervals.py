"""95 % confidence intervals of the shared artifacts' quality metrics, over independent prompts or texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, t

NUM_RESAMPLES = 1000


def with_interval(
    name: str, num_groups: int, statistic: Callable[[NDArray[np.intp]], float], generator: np.random.Generator
) -> dict[str, float]:
    """Metrics ``name``, ``name_low`` and ``name_high``; the interval is a percentile bootstrap over groups.

    Args:
        name: of the metric.
        num_groups: number of independent units; everything in one unit is resampled together.
        statistic: maps indices of groups, with repetitions, to a number.
        generator: draws the resamples.
    """
    resampled = [statistic(generator.integers(num_groups, size=num_groups)) for _ in range(NUM_RESAMPLES)]
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return {name: statistic(np.arange(num_groups)), f"{name}_low": float(low), f"{name}_high": float(high)}


def share(hits: Sequence[int], totals: Sequence[int]) -> Callable[[NDArray[np.intp]], float]:
    """The statistic "hits over totals" of groups that each have a number of hits and a total."""
    hit, total = np.array(hits), np.array(totals)
    return lambda groups: float(hit[groups].sum() / max(total[groups].sum(), 1))


def share_with_exact_interval(name: str, hits: Sequence[int], totals: Sequence[int]) -> dict[str, float]:
    """Metrics ``name``, ``name_low`` and ``name_high`` of hits over totals; valid with few groups too.

    This is Clopper and Pearson's interval for the effective number of independent trials: as many as would vary as much
    as the groups do (Korn and Graubard 1998, Survey Methodology 24). With three groups that are all hits, a bootstrap
    interval would have no width.

    Args:
        name: of the metric.
        hits: of each group.
        totals: trials of each group; at least 1 in all.
    """
    hit, total = np.array(hits, float), np.array(totals, float)
    value, num_trials, num_groups = hit.sum() / total.sum(), total.sum(), len(total)
    if num_groups < 2:
        return {name: value, f"{name}_low": 0.0, f"{name}_high": 1.0}
    variance = num_groups / (num_groups - 1) * np.square(hit - value * total).sum() / num_trials**2
    effective = value * (1 - value) / variance if variance else num_trials
    if value in {0, 1}:
        effective = num_groups  # the data does not show whether the trials of a group differ
    few_groups = (t.ppf(0.975, num_trials - 1) / t.ppf(0.975, num_groups - 1)) ** 2  # the variance is an estimate
    trials = min(effective * few_groups, num_trials)
    right = value * trials
    low = beta.ppf(0.025, right, trials - right + 1) if right else 0.0
    high = beta.ppf(0.975, right + 1, trials - right) if right < trials else 1.0
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
