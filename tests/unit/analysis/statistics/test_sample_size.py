from __future__ import annotations

import re

import numpy as np
import pytest

from analysis.statistics.bootstrap import Estimate, simultaneous
from analysis.statistics.sample_size import (
    MANY_UNITS,
    free_name,
    next_seed_count,
    runner_command,
    scaled,
    seed_share,
    units_needed,
)


def test_half_the_distance_needs_four_times_the_prompts():
    found = Estimate(55, 45, 65, 5, "percent", 64)
    assert units_needed(found, 50) == 256
    assert units_needed(found, 45) == 64  # the interval ends there already
    assert units_needed(found, 55) is None


def test_several_comparisons_need_more_prompts():
    found = Estimate(55, 45, 65, 5, "percent", 64)
    assert units_needed(found, 50, wider=simultaneous(3)) == 382  # 256 times (2.394 / 1.960)^2


def test_units_by_hand():
    assert scaled(100, 0.2, 0.1) == pytest.approx(400)
    assert scaled(100, 0.2, 0) == np.inf


def test_a_hopeless_number_of_prompts_is_not_promised():
    found = Estimate(55, 45, 65, 5, "percent", 64)
    assert units_needed(found, 55 - 10 * (64 / MANY_UNITS) ** 0.5 * 1.001) == 4991  # just within the bound
    assert units_needed(found, 54.9) is None  # a hundredth of the half-width away: 640 000


@pytest.mark.parametrize(("have", "following"), [(1, 3), (2, 3), (3, 5), (5, 8), (8, None)])
def test_seeds_are_added_by_the_registered_looks(have, following):
    assert next_seed_count(have, (3, 5, 8)) == following


def test_command_keeps_what_is_not_changed():
    arguments = ("+sweep=mine", "seed=0", "+name@x=a", "--config-dir", "my conf")
    assert runner_command(arguments) == "python -m runner +sweep=mine seed=0 +name@x=a --config-dir 'my conf'"
    assert runner_command(arguments, {"seed": "0,1", "name": "b"}) == (
        "python -m runner +sweep=mine --config-dir 'my conf' seed=0,1 name=b"
    )
    assert runner_command(()) == ""


@pytest.mark.parametrize("name", ["mine", "20261130", "x" * 64, "a.b-c_d"])
def test_a_free_name_is_a_name_that_says_what_differs(name):
    free = free_name(name, 200, "0123456789abcdef")
    assert free.endswith("_200_012345")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", free)
    assert free_name(name, 200, "f" * 16) != free


class TestSeedShare:
    def test_by_hand(self):
        # seeds differ by 1 on each prompt, prompts by 2, no residual: 0.5/2 of seeds, 2/2 of prompts
        assert seed_share(np.array([[0.0, 2.0], [1.0, 3.0]])) == pytest.approx(0.25 / 1.25)

    def test_recovers_the_share_that_made_the_numbers(self):
        rng = np.random.default_rng(0)
        shares = []
        for _ in range(300):
            seeds, prompts = rng.normal(size=(40, 1)), 1.5 * rng.normal(size=(1, 90))
            shares.append(seed_share(seeds + prompts + 2 * rng.normal(size=(40, 90))))
        true = (1 / 40) / (1 / 40 + 2.25 / 90 + 4 / (40 * 90))
        assert np.mean(shares) == pytest.approx(true, abs=0.03)

    def test_one_seed_says_nothing_and_equal_ones_are_no_source(self):
        assert seed_share(np.ones((1, 5))) is None
        assert seed_share(np.tile([1.0, 2.0, 3.0], (3, 1))) == 0
