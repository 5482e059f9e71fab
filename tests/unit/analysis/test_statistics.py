from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics import (
    Estimate,
    Resamples,
    mean_draws,
    mean_estimate,
    minimum_detectable_effect,
    multinomial_weights,
    percentile_interval,
    ratio_estimate,
    recentred_estimate,
    sign_test,
    split_halves,
)


def slow_bootstrap(values: np.ndarray, num_resamples: int, seed: int) -> tuple[float, float]:
    """Draw prompts with replacement, one at a time, and take the mean: no weights, no matrices."""
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(num_resamples):
        drawn = [values[generator.integers(len(values))] for _ in range(len(values))]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * num_resamples)], means[int(0.975 * num_resamples)]


def test_interval_agrees_with_a_slow_independent_bootstrap():
    values = np.random.default_rng(1).beta(2, 1, size=40)
    resamples = Resamples.draw(np.random.default_rng(2), 40, 1, num_resamples=4000)
    fast = mean_estimate(values[None], resamples, "percent")
    low, high = slow_bootstrap(values, 4000, 3)
    assert fast.value == pytest.approx(values.mean())
    assert fast.low == pytest.approx(low, abs=0.01)
    assert fast.high == pytest.approx(high, abs=0.01)
    assert fast.standard_error == pytest.approx(values.std() / np.sqrt(40), rel=0.05)


def test_two_level_interval_agrees_with_a_slow_one_and_is_wider_where_seeds_differ():
    generator = np.random.default_rng(4)
    values = generator.normal(size=(3, 30)) * 0.2 + np.array([[0.0], [1.0], [2.0]])
    resamples = Resamples.draw(np.random.default_rng(5), 30, 3, num_resamples=4000)
    slow = []
    for _ in range(4000):
        seeds, prompts = generator.integers(3, size=3), generator.integers(30, size=30)
        slow.append(np.mean([[values[seed, prompt] for prompt in prompts] for seed in seeds]))
    estimate = mean_estimate(values, resamples, "percent")
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.06)
    two_seeds = Resamples.draw(np.random.default_rng(5), 30, 2)
    assert (
        mean_estimate(values[:2], two_seeds, "percent").high - mean_estimate(values[:2], two_seeds, "percent").low < 0.5
    )


def test_two_seeds_are_averaged_not_resampled():
    resamples = Resamples.draw(np.random.default_rng(0), 10, 2)
    constant = np.array([np.zeros(10), np.ones(10)])
    assert mean_draws(constant, resamples) == pytest.approx(0.5)


def test_nominal_95_percent_covers_the_truth_about_that_often():
    generator = np.random.default_rng(6)
    weights = multinomial_weights(generator, 64, 500)
    covered = 0
    for _ in range(400):
        scores = generator.choice([0, 0.5, 1.0], p=[0.3, 0.1, 0.6], size=64)
        low, high = percentile_interval(weights @ scores)
        covered += low <= 0.65 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_same_generator_seed_gives_the_same_numbers():
    first, second = (Resamples.draw(np.random.default_rng(9), 8, 3, 50) for _ in range(2))
    assert np.array_equal(first.prompts, second.prompts)
    assert np.array_equal(first.seeds[3], second.seeds[3])
    assert np.array_equal(first.swaps, second.swaps)


def test_recentred_interval_contains_the_value_and_stays_in_range():
    biased = np.random.default_rng(0).normal(0.5, 0.1, size=1000)
    estimate = recentred_estimate(0.05, biased, "base SD", 64, minimum=0)
    assert estimate.low == 0
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.high == pytest.approx(0.05 + 0.196, abs=0.03)


def test_ratio_is_of_totals_not_a_mean_of_ratios():
    resamples = Resamples.draw(np.random.default_rng(0), 2, 1)
    estimate = ratio_estimate(np.array([[1.0, 9.0]]), np.array([[1.0, 3.0]]), resamples, "nats per token")
    assert estimate.value == pytest.approx(10 / 4)


def test_sign_test_by_hand():
    # 5 of 6 non-tied prompts lean one way: p = 2 (C(6,5) + C(6,6)) / 2^6 = 14 / 64
    assert sign_test(np.array([1, 2, 0.5, 0.1, 3, -1, 0, 0])) == pytest.approx(14 / 64)
    assert sign_test(np.zeros(5)) == 1.0


def test_minimum_detectable_effect_matches_the_published_table():
    assert minimum_detectable_effect(0.45 / np.sqrt(100)) == pytest.approx(0.126)
    assert minimum_detectable_effect(0.35 / np.sqrt(500)) == pytest.approx(0.044, abs=0.0005)


def test_excludes_is_strict_at_the_ends():
    assert not Estimate(1, 0, 2, 0.5, "gold points", 4).excludes(0)
    assert Estimate(1, 0.1, 2, 0.5, "gold points", 4).excludes(0)


def test_halves_are_disjoint_complete_and_follow_the_hash():
    first, second = split_halves(["d", "a", "c", "b", "e"])
    assert first == [1, 2, 3]  # a, c, b
    assert sorted(first + second) == [0, 1, 2, 3, 4]
