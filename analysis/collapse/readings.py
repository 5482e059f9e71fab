"""What a collapse detector says of one evaluation point of an arm: value, threshold, reply, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.answers import Reply
from analysis.stability.over_time import Measured
from analysis.statistics.bootstrap import Estimate, FloatArray

SEVERITY: dict[Reply, int] = {"not assessable": 0, "no": 1, "inconclusive": 2, "yes": 3}


@dataclass(frozen=True)
class Detector:
    """What is looked at. `signed`: the number is a difference from the base."""

    name: str
    label: str
    meaning: str
    signed: bool = False


@dataclass(frozen=True)
class Reading:
    """One detector at one evaluation point: that of the seed which comes off worst.

    Attributes:
        seed: that seed; None if nothing could be measured.
        threshold: the detector fires if the number is beyond it.
        reply: whether the detector fires; inconclusive if only part of the evidence says so, which is worth watching.
        why: what makes it inconclusive or not assessable; empty if the number speaks for itself.
    """

    point: int
    seed: int | None
    number: Estimate | Measured | None
    threshold: Measured | None
    reply: Reply
    why: str


@dataclass(frozen=True)
class Detection:
    """One detector of one arm: a reading for each evaluation point after the base, and the worst of them."""

    detector: Detector
    readings: tuple[Reading, ...]
    worst: Reading


def detection(detector: Detector, readings: Sequence[Reading]) -> Detection:
    """The worst reading is the first of the most severe ones."""
    worst = max(readings, key=lambda reading: SEVERITY[reading.reply])
    return Detection(detector, tuple(readings), worst)


def not_assessable(detector: Detector, points: Sequence[int], why: str) -> Detection:
    """Nothing measured at any point."""
    return detection(detector, [Reading(point, None, None, None, "not assessable", why) for point in points])


def judge_interval(estimate: Estimate, threshold: float, above: bool) -> Reply:
    """Yes if the whole interval lies beyond the threshold, inconclusive if only the value does."""
    value, near = (estimate.value, estimate.low) if above else (-estimate.value, -estimate.high)
    limit = threshold if above else -threshold
    return "yes" if near > limit else "inconclusive" if value > limit else "no"


def worst_seed(readings: Sequence[Reading], above: bool) -> Reading:
    """Of one point's readings by seed, the most severe; of equals the most extreme."""

    def key(reading: Reading) -> tuple[int, float]:
        number = reading.number
        size = 0.0 if number is None else number.value if isinstance(number, Estimate) else number.exact
        return SEVERITY[reading.reply], size if above else -size

    return max(readings, key=key)


def estimates(value_SN: FloatArray, draws_BSN: FloatArray, unit: str, n: int) -> Iterator[list[Estimate]]:
    """For each of N points, one estimate a seed, with percentile intervals."""
    low_SN, high_SN = np.quantile(draws_BSN, [0.025, 0.975], axis=0)
    error_SN = draws_BSN.std(axis=0)
    for point in range(value_SN.shape[1]):
        yield [
            Estimate(
                float(value_SN[seed, point]),
                float(min(low_SN[seed, point], value_SN[seed, point])),
                float(max(high_SN[seed, point], value_SN[seed, point])),
                float(error_SN[seed, point]),
                unit,
                n,
            )
            for seed in range(value_SN.shape[0])
        ]
