from __future__ import annotations

import numpy as np
import pytest

from analysis import stability
from analysis.stability import over_time
from analysis.statistics.bootstrap import Resamples

TAIL = 0.2


def noisy(true: list[float], num_prompts: int, noise: float, seed: int) -> np.ndarray:
    """`[1, C, P]`: prompts differ in their level, and each point has noise of its own."""
    rng = np.random.default_rng(seed)
    level = 3 + rng.standard_normal(num_prompts)
    return (np.array(true)[:, None] + level + noise * rng.standard_normal((len(true), num_prompts)))[None]


def spread(curve_SCP: np.ndarray, seed: int = 0) -> over_time.OverTime:
    resamples = Resamples.draw(np.random.default_rng(seed), curve_SCP.shape[2], len(curve_SCP), 400)
    return over_time.spread_over_time(curve_SCP, resamples, TAIL)


def test_drawdown_and_its_path_by_hand():
    curve = np.array([50.0, 60.0, 55.0, 70.0, 58.0, 63.0])
    assert over_time.drawdown(curve) == 12.0  # 70 to 58
    assert over_time.drawdown_path(curve).tolist() == [0, 0, 5, 0, 12, 7]
    assert over_time.share_under_water(over_time.drawdown_path(curve)) == 60
    assert over_time.upper_tail_mean(over_time.drawdown_path(curve), 2) == 9.5


def test_monotone_curve_never_falls_and_a_falling_one_does():
    assert over_time.drawdown(np.array([1.0, 2.0, 3.0])) == 0
    assert over_time.drawdown(np.array([3.0, 2.0, 1.0])) == 2.0


def test_path_from_pairs_is_the_path_from_the_curve():
    rng = np.random.default_rng(0)
    for _ in range(20):
        curve = rng.standard_normal(7)
        earlier, later = over_time.pairs_of_points(7)
        path = over_time.path_of_drops(curve[earlier] - curve[later], 7)
        assert path == pytest.approx(over_time.drawdown_path(curve))


@pytest.mark.parametrize(("num", "size"), [(4, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_tail_is_at_least_one_and_rounded_up(num, size):
    assert over_time.tail_size(num, TAIL) == size
    assert over_time.tail_size(num, 0.0) == 1


def test_exact_copy_of_the_base_does_not_move():
    found = spread(np.repeat(noisy([0], 30, 1, 0), 4, axis=1))
    assert (found.drawdown.low, found.drawdown.value, found.drawdown.high) == (0, 0, 0)
    assert found.worst_step.value == 0
    assert found.step_spread.standard_deviation.high == 0
    assert found.final_over_peak.value == 100


def test_noise_does_not_pass_for_a_drop():
    """Twins of the base under other random numbers: their observed drawdown is all noise."""
    found = [spread(noisy([0] * 6, 60, 1, seed)) for seed in range(40)]
    assert np.mean([item.observed_drawdown.exact for item in found]) > 0.2
    assert np.mean([item.drawdown.value for item in found]) < 0.15
    assert np.mean([item.drawdown.low > 0 for item in found]) <= 0.1
    observed = np.mean([item.step_spread.observed_sd.exact**2 for item in found])
    noise = np.mean([item.step_spread.noise_sd.exact**2 for item in found])
    assert noise == pytest.approx(observed, rel=0.2)


def test_collapse_is_shown_with_its_size():
    found = spread(noisy([0, 0.5, 0.8, 1.0, 0.0], 200, 0.5, 1))
    assert found.drawdown.low < 1 < found.drawdown.high
    assert found.drawdown.low > 0.5
    assert found.worst_step.high < -0.5
    assert found.final_over_peak.high < 100
    assert found.under_water.low > 0


def test_several_seeds_add_their_own_spread():
    one = noisy([0, 0.5, 0.2], 100, 0.3, 2)
    other = noisy([0, 0.5, 0.5], 100, 0.3, 3)
    same, different = spread(np.concatenate([one] * 3)), spread(np.concatenate([one, other, one]))
    assert different.drawdown.high - different.drawdown.low > 1.5 * (same.drawdown.high - same.drawdown.low)
    assert different.drawdown.num_seeds == 3


def test_single_step_has_no_spread():
    found = spread(noisy([0, 0.5], 40, 0.3, 4))
    assert found.step_spread is None
    assert found.drawdown.value < 0.1


def test_steady_and_falling_arms_of_a_ledger(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.2, 0.3, 0.0)), "dpo": synthetic.Arm("dpo", (0.1, 0.2, 0.3))}
    ledger = make_ledger(arms, num_prompts=60)
    resamples = resamples_for(ledger)
    falling, steady = (stability.stability_of(ledger, arm, resamples) for arm in ("ppo", "dpo"))
    assert falling.drawdown.low > 1
    assert falling.worst_step.high < -1
    assert falling.tolerance.answer.reply == "no"
    assert steady.drawdown.value == pytest.approx(0, abs=0.05)
    assert steady.drawdown.low == 0
    assert steady.final_over_peak.high <= 100
    assert steady.tolerance.answer.reply == "yes"
