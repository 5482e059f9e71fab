from __future__ import annotations

import numpy as np
import pytest

from analysis.stability import over_seeds


@pytest.mark.parametrize(("num_seeds", "assessable"), [(1, False), (2, False), (3, True), (4, True)])
def test_few_seeds_are_listed_or_not_assessable(num_seeds, assessable):
    spread = over_seeds.spread_over_seeds(np.ones((num_seeds, 10)))
    assert spread.assessable is assessable
    assert spread.standard_deviation is None
    assert spread.interquartile_range is None
    assert spread.reason


def test_five_seeds_have_a_spread_and_a_worst():
    spread = over_seeds.spread_over_seeds(np.repeat([[10.0], [20.0], [30.0], [40.0], [50.0]], 10, axis=1))
    assert (spread.interquartile_range.exact, spread.worst.exact) == (20.0, 10.0)
    sd = spread.standard_deviation
    assert (sd.low / sd.value, sd.high / sd.value) == (pytest.approx(0.60, abs=0.005), pytest.approx(2.87, abs=0.01))
    assert sd.value == pytest.approx(np.sqrt(250))


def test_noise_of_the_evaluation_is_no_spread_of_seeds():
    """Seeds 0.3 apart with noise of 0.2 each, and seeds that are all the same: the mean over many evaluations."""
    rng = np.random.default_rng(0)
    noise = 2 * rng.standard_normal((400, 5, 100))
    seeds = 0.3 * rng.standard_normal((400, 5, 1))
    variances = [over_seeds.standard_deviation(item).value ** 2 for item in seeds + noise]
    assert np.mean(variances) == pytest.approx(0.3**2, rel=0.15)  # 0.13 with the noise; cut off at zero, so above 0.09
    assert np.mean([over_seeds.standard_deviation(item).low == 0 for item in noise]) > 0.9
