from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.over_optimisation import detectors as signs
from analysis.statistics.bootstrap import Resamples


def resamples(num_prompts: int, num_seeds: int = 1) -> Resamples:
    return Resamples.draw(np.random.default_rng(0), num_prompts, num_seeds, num_resamples=200)


def test_slope_by_hand():
    gain = np.array([[[1.0, 1.0], [2.0, 4.0], [3.0, 7.0]]])  # one seed, three points, two prompts
    slope = signs.slope_per_point(gain, resamples(2))
    assert slope.value == pytest.approx(2.0)  # of 1 and 3
    assert slope.unit == "base SD per point"


def test_peak_of_one_half_is_judged_on_the_other():
    gold = np.zeros((1, 3, 4))
    gold[0, 1] = [9.0, 9.0, 1.0, 3.0]  # the chosen half exaggerates the peak
    gold[0, 2] = [0.0, 0.0, 1.0, 1.0]
    assert signs.best_point(gold, [0, 1]) == 1
    assert signs.change_since(gold, 1, [2, 3], resamples(2)).value == pytest.approx(-1.0)


def test_weighted_spearman_is_scipys_on_the_repeated_rows():
    rng = np.random.default_rng(1)
    one, two = rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 30).astype(float)  # with ties
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=20)
    ours = signs.spearman(one, two, counts / 30)
    theirs = [stats.spearmanr(np.repeat(one, row), np.repeat(two, row)).statistic for row in counts]
    assert ours == pytest.approx(np.array(theirs))


def test_correlation_without_variation_is_zero():
    assert signs.spearman(np.ones(4), np.arange(4.0), np.full((1, 4), 0.25)) == pytest.approx([0.0])


def test_non_length_share_by_hand():
    """Two bins, short and long. Like against like the gain is 1; overall it is 1 + 2 * 0.5 = 2."""
    length = np.array([[1.0, 1, 9, 9], [1, 9, 9, 9]])  # base has half long, ours three quarters or so
    base_reward = np.where(length[:1] > 5, 4.0, 0.0)
    reward = np.where(length[1:] > 5, 5.0, 1.0)
    share, shared = signs.non_length_share(
        reward[None].transpose(0, 2, 1),
        length[1:][None].transpose(0, 2, 1),
        base_reward.T,
        length[:1].T,
        2,
        resamples(4),
    )
    assert shared == 1.0
    assert share.value == pytest.approx(1.0 / 2.0)  # mean gain: 4 - 2 = 2, of which 1 at like length


def test_non_length_share_is_one_at_equal_lengths_and_zero_for_pure_length():
    rng = np.random.default_rng(2)
    base_length, length = rng.normal(20, 5, (200, 2)), rng.normal(24, 5, (1, 200, 2))
    base = rng.normal(0, 0.1, (200, 2))
    honest, _ = signs.non_length_share(base[None] + 1.0, base_length[None], base, base_length, 8, resamples(200))
    assert honest.value == pytest.approx(1.0)
    padded, _ = signs.non_length_share(length, length, base_length, base_length, 8, resamples(200))
    assert padded.high < 0.3


def test_no_response_of_like_length_is_no_number():
    share, shared = signs.non_length_share(
        np.ones((1, 4, 1)), np.full((1, 4, 1), 90.0), np.zeros((4, 1)), np.full((4, 1), 9.0), 4, resamples(4)
    )
    assert share is None
    assert shared == 0


def test_cloud_counts_a_fresh_set_as_inside_and_another_shape_as_outside():
    rng = np.random.default_rng(3)
    shape, limit, fresh = rng.standard_normal((3, 400, 4)) * [1, 5, 0.1, 0]  # the last feature never varies
    cloud = signs.cloud(shape, limit, 0.99)
    assert cloud.beyond(limit).mean() == pytest.approx(0.01)
    assert cloud.beyond(fresh).mean() < 0.03
    assert cloud.beyond(fresh + np.array([0, 0, 1, 0])).mean() == 1.0


def test_mahalanobis_is_scipys():
    from scipy.spatial.distance import mahalanobis

    rng = np.random.default_rng(4)
    points, precision = rng.standard_normal((5, 3)), np.diag([1.0, 2.0, 3.0]) + 0.1
    ours = signs.mahalanobis(points, np.zeros(3), np.ones(3), precision)
    assert ours == pytest.approx([mahalanobis(point, np.zeros(3), precision) for point in points])


def test_surface_features_by_hand_and_of_nothing():
    features = signs.surface_features("Oh no, no!\n12", num_tokens=7, scores=[-0.5])
    assert features == pytest.approx((np.log(8), 13 / 4, 2 / 13, 1 / 13, 1.0, 2 / 13, 1 / 13, -0.5))
    assert np.isfinite(signs.surface_features("", 0, [0.0])).all()
