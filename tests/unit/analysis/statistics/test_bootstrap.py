from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics.bootstrap import (
    Estimate,
    Resamples,
    holm,
    judged_mean,
    mean_draws,
    mean_estimate,
    minimum_detectable_effect,
    multinomial_weights,
    percentile_interval,
    ratio_draws,
    ratio_estimate,
    recentred_estimate,
    sign_test,
    simultaneous,
    split_halves,
    two_sided_p,
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


def test_where_only_seeds_differ_the_interval_is_students_t():
    """Seed means 1, 2 and 3, every prompt alike: 2 ± t(2 df) × 1 / √3, from the tables 4.303."""
    values = np.array([[1.0], [2.0], [3.0]]) * np.ones(30)
    resamples = Resamples.draw(np.random.default_rng(5), 30, 3, num_resamples=20_000)
    estimate = mean_estimate(values, resamples, "percent")
    assert (estimate.low, estimate.high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=0.12)
    assert estimate.minimum_detectable_effect == pytest.approx(2.80 * 2.484 / 1.96, rel=0.06)


def test_where_seeds_do_not_differ_their_number_adds_nothing():
    values = np.tile(np.random.default_rng(4).normal(size=50), (3, 1))
    resamples = Resamples.draw(np.random.default_rng(5), 50, 3)
    assert mean_draws(values, resamples) == pytest.approx(mean_draws(values[:1], resamples))


def test_noise_of_prompts_within_a_seed_is_counted_once():
    """Independent noise alone: the mean has variance 1 / (S P); drawing seeds and prompts again gives thrice that."""
    generator, resamples = np.random.default_rng(4), Resamples.draw(np.random.default_rng(5), 60, 8)
    variances, drawn_again = [], []
    for _ in range(60):
        per_seed = resamples.prompts @ generator.normal(size=(8, 60)).T
        variances.append(resamples.average_seeds(per_seed).var())
        drawn_again.append((per_seed * resamples.seeds[8]).sum(axis=1).var())
    assert 1.0 < np.mean(variances) * 480 < 1.7
    assert np.mean(drawn_again) * 480 > 2.5


def test_first_resamples_may_be_used_alone():
    resamples = Resamples.draw(np.random.default_rng(0), 10, 3)
    draws = np.random.default_rng(1).normal(size=(2000, 3))
    assert resamples.average_seeds(draws[:200]).shape == (200,)


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


def test_ratio_draws_are_the_ratio_of_every_resample_and_seeds_that_agree_in_it_add_nothing():
    generator, resamples = np.random.default_rng(1), Resamples.draw(np.random.default_rng(0), 20, 3)
    numerator, denominator = generator.normal(3, 1, size=(1, 20)), generator.uniform(1, 2, size=(1, 20))
    expected = (resamples.prompts @ numerator[0]) / (resamples.prompts @ denominator[0])
    assert ratio_draws(numerator, denominator, resamples) == pytest.approx(expected)
    tripled = np.array([[1.0], [2.0], [3.0]])  # seeds of different size and one ratio
    draws = ratio_draws(numerator * tripled, denominator * tripled, resamples)
    assert percentile_interval(draws) == pytest.approx(percentile_interval(expected), rel=1e-3)


def test_p_belongs_to_the_percentile_interval():
    draws = np.arange(1, 100) / 100.0  # 0.01 to 0.99
    assert two_sided_p(draws, 0.03) == pytest.approx(2 * 4 / 100)  # three draws at or below, one added
    assert two_sided_p(draws, 0.5) == 1.0
    assert two_sided_p(draws, 2.0) == pytest.approx(2 / 100)
    assert two_sided_p(np.full(99, 50.0), 50.0) == 1.0


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04 -> the last may not be below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_test_by_hand():
    # 5 of 6 non-tied prompts lean one way: p = 2 (C(6,5) + C(6,6)) / 2^6 = 14 / 64
    assert sign_test(np.array([1, 2, 0.5, 0.1, 3, -1, 0, 0])) == pytest.approx(14 / 64)
    assert sign_test(np.zeros(5)) == 1.0


def test_minimum_detectable_effect_matches_the_published_table():
    assert minimum_detectable_effect(0.45 / np.sqrt(100)) == pytest.approx(0.126)
    assert minimum_detectable_effect(0.35 / np.sqrt(500)) == pytest.approx(0.044, abs=0.0005)


def test_an_effect_that_must_stand_a_correction_is_larger():
    assert simultaneous(1) == 1
    assert simultaneous(3, 0.02) == pytest.approx(2.7131 / 1.95996, abs=1e-4)  # 1 % of a third of 2 % on either side
    assert minimum_detectable_effect(1, simultaneous(3, 0.02)) == pytest.approx(2.7131 + 0.84, abs=1e-3)


def test_excludes_is_strict_at_the_ends():
    assert not Estimate(1, 0, 2, 0.5, "points", 4).excludes(0)
    assert Estimate(1, 0.1, 2, 0.5, "points", 4).excludes(0)


def test_halves_are_disjoint_complete_and_follow_the_hash():
    first, second = split_halves(["d", "a", "c", "b", "e"])
    assert first == [1, 2, 3]  # a, c, b
    assert sorted(first + second) == [0, 1, 2, 3, 4]


class TestJudgedMean:
    def test_agrees_with_a_slow_one(self):
        """Mean over the samples that are there, then over every prompt of every seed that has one."""
        rng = np.random.default_rng(0)
        values = np.where(rng.random((3, 20, 4)) < 0.6, np.nan, rng.random((3, 20, 4)))
        cells = [
            np.mean([value for value in values[seed, prompt] if np.isfinite(value)])
            for seed in range(3)
            for prompt in range(20)
            if np.isfinite(values[seed, prompt]).any()
        ]
        found, draws = judged_mean(values, Resamples.draw(rng, 20, 3, 200))
        assert len(cells) < 60
        assert found.value == pytest.approx(np.mean(cells))
        assert draws.shape == (200,)

    def test_prompts_that_nobody_judged_are_neither_counted_nor_resampled(self):
        values = np.full((1, 12, 2), np.nan)
        values[0, :4, 0] = [0, 100, 100, 100]
        found, draws = judged_mean(values, Resamples.draw(np.random.default_rng(0), 12, 1, 400))
        assert (found.value, found.n) == (75.0, 4)
        assert np.isfinite(draws).all()

    def test_complete_values_are_a_plain_mean(self):
        values, resamples = np.random.default_rng(1).random((2, 9, 3)), Resamples.draw(np.random.default_rng(0), 9, 2)
        assert judged_mean(values, resamples)[0] == mean_estimate(values.mean(axis=2), resamples, "percent")

    @pytest.mark.parametrize("num_judged", [0, 1])
    def test_one_prompt_is_no_sample(self, num_judged):
        values = np.full((1, 5, 1), np.nan)
        values[0, :num_judged] = 50.0
        assert judged_mean(values, Resamples.draw(np.random.default_rng(0), 5, 1, 20)) is None
