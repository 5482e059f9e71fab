"""The simulation of coverage knows its own truth; in full (minutes): pytest -m slow. Figures: analysis/coverage.md."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from tests.benchmarks import coverage
from tests.benchmarks.coverage import Case


def test_truth_by_hand():
    nothing = Case(1, 10, 1, even=0.0, prompt_sd=0.0, by_length=2.0)
    assert coverage.truth(nothing, np.zeros(1), at_equal_style=False) == pytest.approx(50)  # lengths even out
    longer = Case(1, 10, 1, even=0.0, prompt_sd=0.0, by_length=2.0, longer=3.0)
    assert coverage.truth(longer, np.zeros(1), at_equal_style=True) == pytest.approx(50)
    assert coverage.truth(longer, np.zeros(1), at_equal_style=False) == pytest.approx(100 * expit(2), abs=1)


@pytest.mark.parametrize("num_seeds", [2, 5])
def test_truth_is_of_these_seeds_below_three_and_of_all_from_then_on(num_seeds):
    case = Case(num_seeds, 10, 1, even=0.4, prompt_sd=0.0, seed_sd=0.5)
    drawn = np.full(num_seeds, 1.0)
    of_all = 100 * np.mean(expit(0.4 + 0.5 * np.random.default_rng(0).standard_normal(200_000)))
    expected = 100 * expit(1.4) if num_seeds < 3 else of_all
    assert coverage.truth(case, drawn, at_equal_style=False) == pytest.approx(expected, abs=0.1)


def test_truth_is_the_mean_of_many_draws():
    case = Case(1, 400, 50, prompt_sd=0.8, by_length=1.0, longer=0.5)
    rng = np.random.default_rng(0)
    means = [coverage.draw(case, rng)[0].mean() for _ in range(20)]
    assert 100 * np.mean(means) == pytest.approx(coverage.truth(case, np.zeros(1), at_equal_style=False), abs=1)


def test_both_kinds_of_interval_are_measured_and_shown():
    rng = np.random.default_rng(0)
    raw = coverage.raw_coverage(Case(1, 100, 1), 40, rng)
    controlled = coverage.controlled_coverage(Case(1, 100, 1, by_length=1.0, longer=0.5), 10, rng)
    assert raw.covered >= 0.8
    assert controlled.covered >= 0.7
    assert raw.width < controlled.width
    assert coverage.table_row(raw).count("|") == coverage.HEAD.splitlines()[0].count("|")


@pytest.mark.slow
@pytest.mark.parametrize("case", coverage.RAW)
def test_raw_intervals_cover(case):
    assert_covers(coverage.raw_coverage(case, 1000, np.random.default_rng(3)))


@pytest.mark.slow
@pytest.mark.parametrize("case", coverage.CONTROLLED)
def test_controlled_intervals_cover(case):
    assert_covers(coverage.controlled_coverage(case, 400, np.random.default_rng(4)))


def assert_covers(measured):
    """92 to 97 %, within three standard errors of so few sweeps; three seeds may cover more."""
    error = 3 * (0.95 * 0.05 / measured.num_sweeps) ** 0.5
    most = 1.0 if measured.case.num_seeds == 3 else 0.97 + error
    assert 0.92 - error <= measured.covered <= most
