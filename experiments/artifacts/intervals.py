"""95 % intervals of what the shared artifacts report of themselves: percentile bootstrap over prompts or texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000


def with_interval(
    name: str, num_groups: int, statistic: Callable[[NDArray[np.intp]], float], generator: np.random.Generator
) -> dict[str, float]:
    """Metrics ``name``, ``name_low`` and ``name_high``.

    Args:
        name: of the metric.
        num_groups: independent units; what belongs to one unit is resampled together.
        statistic: indices of groups, with repetitions, to a number.
        generator: draws the resamples.
    """
    resampled = [statistic(generator.integers(num_groups, size=num_groups)) for _ in range(NUM_RESAMPLES)]
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return {name: statistic(np.arange(num_groups)), f"{name}_low": float(low), f"{name}_high": float(high)}


def share(hits: Sequence[int], totals: Sequence[int]) -> Callable[[NDArray[np.intp]], float]:
    """The statistic "hits over totals", where each group brings some of both."""
    hit, total = np.array(hits), np.array(totals)
    return lambda groups: float(hit[groups].sum() / max(total[groups].sum(), 1))
