from __future__ import annotations

import numpy as np
import pytest

from analysis import stability
from analysis.stability import over_samples
from analysis.statistics.bootstrap import Resamples


def test_within_prompt_sd_by_hand():
    assert over_samples.within_prompt_sd(np.array([[[1.0, 3.0], [2.0, 2.0]]])) == pytest.approx(
        np.array([[np.sqrt(2), 0]])
    )


def test_lower_tail_by_hand():
    values, even = np.array([[1.0, 9.0], [2.0, 3.0]]), np.array([[0.5, 0.5]])
    assert over_samples.lower_tail_mean(values, even, 0.25) == pytest.approx([1])
    assert over_samples.lower_tail_mean(values, even, 0.5) == pytest.approx([1.5])
    assert over_samples.lower_tail_mean(values, even, 0.3) == pytest.approx([(1 * 0.25 + 2 * 0.05) / 0.3])


def test_weighted_lower_tail_is_that_of_the_drawn_prompts():
    rng = np.random.default_rng(0)
    values, drawn = rng.standard_normal((6, 5)), rng.integers(0, 6, size=6)
    weights = np.bincount(drawn, minlength=6)[None] / 6
    worst = np.sort(values[drawn].ravel())[:3]  # a tenth of thirty
    assert over_samples.lower_tail_mean(values, weights, 0.1) == pytest.approx([worst.mean()])


def test_worst_of_a_prompt_and_levels():
    resamples = Resamples.draw(np.random.default_rng(0), 2, 1, 50)
    found = over_samples.spread_over_samples(np.array([[[1.0, 3.0], [0.0, 2.0]]]), resamples, 0.25)
    assert found.worst_of_prompt.value == 0.5
    assert found.worst_responses.value == 0
    assert found.num_samples == 2
    assert found.too_narrow  # one response is the tail


def test_needs_two_samples(make_ledger, resamples_for):
    ledger = make_ledger(num_samples=1)
    assert stability.stability_of(ledger, "ppo", resamples_for(ledger)).samples is None
