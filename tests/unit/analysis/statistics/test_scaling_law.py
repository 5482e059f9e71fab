from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics import scaling_law
from analysis.statistics.bootstrap import Resamples
from experiments.rules import ScalingLawRules

RULES = ScalingLawRules(min_root_kl=0.5, min_num_points=4, min_num_prompts=20, max_misfit=2.0)


def arrays(gain_C, distance_C, num_prompts=30):
    gain, nats = np.r_[0.0, gain_C], np.r_[0.0, np.square(distance_C)]
    return tuple(np.repeat(values[None, :, None], num_prompts, axis=2) for values in (gain, nats))


def law_of(gain_C, distance_C, **options):
    resamples = Resamples.draw(np.random.default_rng(0), options.get("num_prompts", 30), 1, num_resamples=50)
    return scaling_law.scaling_law(*arrays(gain_C, distance_C, **options), resamples, RULES)


def test_exact_points_give_back_their_curve():
    distance = np.array([[0.6, 1.5, 3.0, 5.0]])
    gain = distance * (0.6 - 0.25 * np.log(distance))
    fitted = scaling_law.least_squares(distance, gain, np.ones((1, 4)))
    assert fitted[0] == pytest.approx([0.6, 0.25])
    assert scaling_law.curve(fitted, distance) == pytest.approx(gain)
    assert scaling_law.peak(fitted)[0] == pytest.approx(np.exp(1.4))


def test_fit_agrees_with_the_general_solver():
    rng = np.random.default_rng(1)
    distance, gain, weight = rng.uniform(0.5, 6, 9), rng.standard_normal(9), rng.uniform(0.5, 2, 9)
    design = np.stack([distance, -distance * np.log(distance)], axis=1) * np.sqrt(weight)[:, None]
    expected = np.linalg.lstsq(design, gain * np.sqrt(weight), rcond=None)[0]
    assert scaling_law.least_squares(distance[None], gain[None], weight[None])[0] == pytest.approx(expected)


def test_peak_by_hand_and_none_where_the_curve_does_not_bend_down():
    peaks = scaling_law.peak(np.array([[0.5, 0.5], [0.5, 0.0], [0.5, -0.1], [1e9, 1e-9]]))
    assert peaks[0] == 1.0
    assert np.isinf(peaks[1:]).all()


def test_all_points_at_one_distance_give_a_straight_line():
    fitted = scaling_law.least_squares(np.full((1, 4), 2.0), np.full((1, 4), 1.0), np.ones((1, 4)))
    assert fitted[0] == pytest.approx([0.5, 0.0])


def test_slope_is_numpys():
    rng = np.random.default_rng(2)
    x, y, weight = rng.uniform(0, 5, 7), rng.standard_normal(7), rng.uniform(0.5, 2, 7)
    expected = np.polyfit(x, y, 1, w=np.sqrt(weight))[0]
    assert scaling_law.slope(x[None], y[None], weight[None])[0] == pytest.approx(expected)


def test_curve_is_zero_at_the_base():
    assert scaling_law.curve(np.array([0.6, 0.25]), np.array([0.0])).tolist() == [0.0]


def test_points_near_the_base_are_left_out():
    distance = np.array([0.1, 0.3, 1.0, 2.0, 3.0, 4.0])
    law = law_of(0.3 * distance, distance)
    assert law.num_points == 4
    assert law.first == pytest.approx(1.0)
    assert law.alpha.value == pytest.approx(0.3)


def test_turnover_of_exact_points_and_none_without_a_fall():
    distance = np.linspace(0.7, 7, 10)
    bent = law_of(distance * (0.6 - 0.25 * np.log(distance)), distance)
    assert bent.peak is not None
    assert bent.peak.value == pytest.approx(np.exp(1.4))
    for gain in (0.3 * distance, -0.3 * distance, 0 * distance):
        law = law_of(gain, distance)
        assert law.alpha
        assert law.peak is None


def test_peak_of_a_curve_that_the_points_do_not_follow_is_withheld():
    rng = np.random.default_rng(3)
    distance = np.array([2.6, 3.7, 4.5, 5.2, 5.8, 6.3])
    gain, nats = arrays(np.array([0.8, 1.6, 1.9, 1.8, 1.0, 0.3]), distance, num_prompts=100)
    gain[:, 1:] += rng.standard_normal((1, 6, 100))
    law = scaling_law.scaling_law(gain, nats, Resamples.draw(rng, 100, 1, num_resamples=200), RULES)
    assert law.residual > 2 * law.noise
    assert law.peak is None
    assert "do not follow the curve" in law.why


def test_extrapolated_peak_is_no_finding():
    distance = np.linspace(0.4, 3.9, 10)
    law = law_of(distance * (0.6 - 0.25 * np.log(distance)), distance)
    assert law.alpha
    assert law.peak is None
    assert "3.9 √nats" in law.why


@pytest.mark.parametrize(
    ("distance", "options", "words"),
    [
        ((0.1, 0.2, 0.6, 0.9), {}, "2 evaluation points lie 0.5 √nats or more"),
        ((0.1, 0.2, 0.3, 0.9), {}, "1 evaluation point lies"),
        ((0.1, 0.1, 0.1, 0.1), {}, "no evaluation points lie"),
        ((1.0, 2.0, 3.0, 4.0), {"num_prompts": 10}, "10 prompts"),
    ],
)
def test_too_little_is_not_assessable_and_says_what_it_takes(distance, options, words):
    law = law_of(np.array(distance), np.array(distance), **options)
    assert law.alpha is None
    assert words in law.why
