from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import scores
from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.stability import curves


def test_base_sd_is_over_prompt_means(make_ledger):
    ledger = make_ledger()
    gold = ledger.numbers("base", "score/gold")[0]
    assert scores.base_sd(ledger) == pytest.approx(np.std(gold.mean(axis=1), ddof=1))


def test_base_without_spread_is_refused(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "shared/base_evaluation/samples/point_0.parquet"
    pd.read_parquet(path).assign(**{"score/gold": 0.5}).to_parquet(path)
    with pytest.raises(LedgerError, match="same gold score on every prompt"):
        scores.base_sd(load_ledger(sweep.folder))


def test_curve_of_several_seeds_starts_at_the_base(make_ledger):
    ledger = make_ledger(seeds=(0, 1, 2))
    curve = ledger.curve("ppo", "score/gold")
    assert curve.shape == (3, 3, 12)
    assert np.array_equal(curve[0, 0], curve[2, 0])


def test_noise_variance_by_hand():
    values = np.array([[1.0, 3.0], [2.0, 6.0]])  # two steps, two prompts; means 2 and 4
    # deviations -1, 1 and -2, 2; the variance over steps is 0.5 for both prompts, over P - 1 = 1
    assert curves.noise_variance(values) == 0.5


def test_noise_variance_makes_the_variance_of_steps_unbiased():
    """Neighbouring steps share a point, so the noise in their variance is not just twice that of a point."""
    rng, true = np.random.default_rng(0), np.array([0.0, 0.5, 0.3, 0.9])
    found = []
    for _ in range(3000):
        steps = np.diff(true[:, None] + rng.standard_normal((4, 20)), axis=0)
        found.append(steps.mean(axis=1).var(ddof=1) - curves.noise_variance(steps))
    assert np.mean(found) == pytest.approx(np.diff(true).var(ddof=1), abs=3 * np.std(found) / 3000**0.5)


def test_noise_is_taken_out_around_the_mean():
    values = np.array([1.0, 2.0, 6.0])  # mean 3, variance 7
    quiet = curves.take_noise_out(values, 3.0)
    assert (quiet.mean(), quiet.var(ddof=1)) == (pytest.approx(3), pytest.approx(4))
    assert curves.take_noise_out(values, 8.0) == pytest.approx([3, 3, 3])
    assert curves.take_noise_out(np.ones(3), 0.0) == pytest.approx([1, 1, 1])


def test_quiet_curve_keeps_its_ends():
    curve = np.array([1.0, 5.0, 2.0, 4.0])
    quiet = curves.steps_without_noise(curve, 3.0)
    assert quiet[[0, -1]] == pytest.approx(curve[[0, -1]])
    assert np.ptp(quiet) < np.ptp(curve)


def test_bias_of_an_extreme_of_noise():
    errors = np.random.default_rng(0).standard_normal((4000, 9))
    bias = curves.bias_of(lambda values: values.max(axis=-1), np.zeros(9), errors)
    assert bias == pytest.approx(1.485, abs=0.05)  # mean of the largest of nine normals


def test_simultaneous_band_is_wider_than_a_single_interval_and_zero_without_noise():
    draws = np.random.default_rng(0).standard_normal((8000, 10))
    half = curves.simultaneous_half_widths(np.zeros(10), draws, 10**6)
    sidak = stats.norm.ppf((1 + 0.95 ** (1 / 10)) / 2)  # exact for independent differences
    assert half == pytest.approx(np.full(10, sidak), rel=0.05)
    assert curves.simultaneous_half_widths(np.ones(2), np.ones((50, 2)), 5).tolist() == [0, 0]


def test_seeds_are_averaged_and_from_three_on_add_their_t_interval():
    numbers = [curves.SeedNumber(value, value - 0.3, value + 0.4) for value in (1.0, 2.0, 3.0)]
    two, three = curves.over_seeds(numbers[:2], "base SD", 9), curves.over_seeds(numbers, "base SD", 9)
    assert (two.low, two.value, two.high) == (pytest.approx(1.2), 1.5, pytest.approx(1.9))
    seeds = 4.302653 / 3**0.5  # t at 97.5 %, two degrees of freedom; the SD is 1
    assert three.low == pytest.approx(2 - np.hypot(0.3, seeds))
    assert three.high == pytest.approx(2 + np.hypot(0.4, seeds))
    assert curves.over_seeds(numbers, "base SD", 9, minimum=0).low == 0
