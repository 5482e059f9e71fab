from __future__ import annotations

import numpy as np
import pytest

from experiments.intervals import share, share_with_exact_interval, with_interval


def test_the_value_is_that_of_all_groups_and_lies_in_its_interval() -> None:
    found = with_interval("a", 4, share([1, 2, 3, 0], [2, 2, 3, 1]), np.random.default_rng(0))
    assert found["a"] == 6 / 8
    assert 0 <= found["a_low"] < found["a"] < found["a_high"] <= 1


def test_a_share_of_a_known_rate_is_covered_about_as_often_as_stated() -> None:
    generator, covered = np.random.default_rng(1), 0
    for _ in range(100):
        hits = generator.binomial(4, 0.65, size=80).tolist()
        found = with_interval("a", 80, share(hits, [4] * 80), generator)
        covered += found["a_low"] <= 0.65 <= found["a_high"]
    assert covered >= 88


def test_groups_that_agree_within_themselves_widen_the_interval() -> None:
    def width(hits: list[int]) -> float:
        found = with_interval("a", len(hits), share(hits, [6] * len(hits)), np.random.default_rng(2))
        return found["a_high"] - found["a_low"]

    assert width([6, 0] * 30) > 2 * width([3, 3] * 29 + [2, 4])


def test_the_same_generator_gives_the_same_interval() -> None:
    first, again = (with_interval("a", 9, share(list(range(9)), [9] * 9), np.random.default_rng(3)) for _ in range(2))
    assert first == again == pytest.approx(first)


class TestExactShare:
    def test_of_independent_trials_it_is_clopper_and_pearsons(self) -> None:
        found = share_with_exact_interval("a", [1] * 8 + [0] * 2, [1] * 10)
        assert found["a"] == 0.8
        assert (found["a_low"], found["a_high"]) == pytest.approx(
            (0.4439, 0.9748), abs=0.03
        )  # by tables, for 10 trials; here a little wider

    def test_a_few_groups_that_are_all_right_prove_little(self) -> None:
        found = share_with_exact_interval("a", [4, 4, 4], [4, 4, 4])
        assert found["a"] == found["a_high"] == 1
        assert found["a_low"] < 0.5

    def test_one_group_says_nothing(self) -> None:
        assert share_with_exact_interval("a", [3], [4]) == {"a": 0.75, "a_low": 0, "a_high": 1}

    def test_it_covers_at_least_as_often_as_stated_when_trials_of_a_group_agree(self) -> None:
        generator, covered = np.random.default_rng(4), 0
        for _ in range(200):
            hits = generator.binomial(4, generator.beta(2, 1, size=40)).tolist()  # mean 2/3
            found = share_with_exact_interval("a", hits, [4] * 40)
            covered += found["a_low"] <= 2 / 3 <= found["a_high"]
        assert covered >= 188
