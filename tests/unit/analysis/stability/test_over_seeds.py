from __future__ import annotations

import numpy as np
import pytest

from analysis.stability import over_seeds


@pytest.mark.parametrize(("num_seeds", "assessable"), [(1, False), (2, False), (3, True), (4, True)])
def test_few_seeds_are_listed_or_not_assessable(num_seeds, assessable):
    spread = over_seeds.assess(np.ones(num_seeds), 10)
    assert spread.assessable is assessable
    assert spread.standard_deviation is None
    assert spread.interquartile_range is None
    assert spread.reason


def test_five_seeds_have_a_spread_and_a_worst():
    spread = over_seeds.assess(np.array([10.0, 20.0, 30.0, 40.0, 50.0]), 10)
    assert (spread.interquartile_range.exact, spread.worst.exact) == (20.0, 10.0)
    sd = spread.standard_deviation
    assert (sd.low / sd.value, sd.high / sd.value) == (pytest.approx(0.60, abs=0.005), pytest.approx(2.87, abs=0.01))
