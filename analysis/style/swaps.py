"""Random swaps of the two sides of a prompt: what no difference at all would show. And the bootstrap of distances.

Shapes: P prompts, V columns, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from analysis.statistics.bootstrap import CONFIDENCE_LEVEL, FloatArray, Resamples

Between = Callable[[FloatArray, FloatArray], FloatArray]  # sums over prompts, `[V]` or `[B, V]`, to a distance


# ------------------------------------------------------------------------------------------------------ pure statistics
def flipped_means(differences_P: FloatArray, resamples: Resamples) -> FloatArray:
    """Mean difference when the two sides of each prompt are swapped at random, `[B]`."""
    return np.asarray((2 * resamples.swaps - 1) @ differences_P / len(differences_P))


def paired_floor(differences_P: FloatArray, resamples: Resamples) -> float:
    """What |mean difference| stays under in 95 % of random swaps per prompt (the base against itself)."""
    return float(np.quantile(np.abs(flipped_means(differences_P, resamples)), CONFIDENCE_LEVEL))


def swap_p(value: float, swapped_B: FloatArray) -> float:
    """(1 + number of swaps that show as much) / (1 + B): never zero (Phipson & Smyth 2010)."""
    slack = 1e-9 * max(1.0, abs(value))  # the same sum in another order is no smaller
    return float((1 + np.sum(swapped_B >= value - slack)) / (1 + len(swapped_B)))


def prompts_needed(num_measures: int, significance_level: float) -> int:
    """Prompts below which no change whatever could be significant: of 2^P swaps two always show as much."""
    return math.ceil(math.log2(2 * num_measures / significance_level))


def swapped_distances(one_PV: FloatArray, two_PV: FloatArray, between: Between, resamples: Resamples) -> FloatArray:
    """Distances `[B]` when the two sides of each prompt are swapped at random."""
    moved, start, other = one_PV - two_PV, two_PV.sum(axis=0), one_PV.sum(axis=0)
    parts = _blocks(resamples.swaps @ moved)
    return np.concatenate([between(start + part, other - part) for part in parts])


def drawn_distances(one_PV: FloatArray, two_PV: FloatArray, between: Between, resamples: Resamples) -> FloatArray:
    """Bootstrap distances `[B]`: both sides' tables reweighted by prompt, the distance computed again."""
    parts = zip(*(_blocks(len(table) * resamples.prompts @ table) for table in (one_PV, two_PV)), strict=True)
    return np.concatenate([between(one, two) for one, two in parts])


def _blocks(sums_BV: FloatArray) -> list[FloatArray]:
    """Pieces that fit in the processor's cache."""
    return np.array_split(sums_BV, max(1, len(sums_BV) // 128))
