from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from analysis.statistics.bootstrap import Resamples
from analysis.style import swaps
from analysis.style.lexical import jensen_shannon


def test_swap_p_agrees_with_all_swaps():
    differences = np.array([0.5, -0.1, 0.9, 0.4, 0.7, 0.3])
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    resamples = Resamples.draw(np.random.default_rng(0), 6, 1, num_resamples=20_000)
    swapped = np.abs(swaps.flipped_means(differences, resamples))
    assert swaps.swap_p(differences.mean(), swapped) == pytest.approx(exact, abs=0.005)


def test_no_difference_has_p_one_and_none_has_p_zero():
    resamples = Resamples.draw(np.random.default_rng(0), 30, 1, num_resamples=99)
    assert swaps.swap_p(0.0, np.abs(swaps.flipped_means(np.zeros(30), resamples))) == 1.0
    assert swaps.swap_p(1.0, np.abs(swaps.flipped_means(np.ones(30), resamples))) == 0.01


def test_prompts_needed_by_hand():
    # one measure at 5 %: two of 2^P swaps show as much, 2 / 2^6 = 0.03 but 2 / 2^5 = 0.06
    assert swaps.prompts_needed(1, 0.05) == 6


def test_floor_is_what_the_base_shows_against_itself():
    resamples = Resamples.draw(np.random.default_rng(0), 200, 1, num_resamples=4000)
    differences = np.random.default_rng(1).normal(size=200)
    assert swaps.paired_floor(differences, resamples) == pytest.approx(1.96 / np.sqrt(200), rel=0.12)


def test_bootstrap_distances_equal_recounting_the_drawn_prompts():
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(0, 5, size=(2, 6, 20)).astype(float)
    drawn = generator.integers(6, size=6)
    resamples = Resamples(np.bincount(drawn, minlength=6)[None] / 6, {}, np.zeros((1, 6)))
    recounted = jensenshannon(ours[drawn].sum(axis=0), theirs[drawn].sum(axis=0), base=2)
    assert swaps.drawn_distances(ours, theirs, jensen_shannon, resamples)[0] == pytest.approx(recounted)


def test_swapped_distances_equal_swapping_the_rows():
    one, two = np.random.default_rng(2).integers(1, 5, size=(2, 4, 7)).astype(float)
    swap = np.array([1.0, 0.0, 0.0, 1.0])
    resamples = Resamples(np.full((1, 4), 0.25), {}, swap[None])
    ours, theirs = (np.where(swap[:, None] > 0, *pair).sum(axis=0) for pair in ((one, two), (two, one)))
    found = swaps.swapped_distances(one, two, jensen_shannon, resamples)[0]
    assert found == pytest.approx(jensenshannon(ours, theirs, base=2))


def test_resamples_of_some_prompts_sum_to_one():
    resamples = Resamples.draw(np.random.default_rng(0), 5, 1, num_resamples=50)
    kept = resamples.of_prompts(np.array([True, False, True, False, False]))
    assert kept.prompts.shape == kept.swaps.shape == (50, 2)
    assert kept.prompts.sum(axis=1) == pytest.approx(1)
