from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis import stability
from analysis.load import LedgerError, load_ledger


def test_drawdown_worst_step_and_final_over_peak_by_hand():
    curve = np.array([50.0, 60.0, 55.0, 70.0, 58.0, 63.0])
    assert stability.drawdown(curve) == 12.0  # 70 to 58
    assert stability.worst_step(curve) == -12.0
    assert stability.final_over_peak(curve) == pytest.approx(90.0)


def test_monotone_curve_never_falls_and_a_collapse_does():
    assert stability.drawdown(np.array([1.0, 2.0, 3.0])) == 0
    assert stability.worst_step(np.array([1.0, 2.0, 4.0])) == 1.0
    assert stability.drawdown(np.array([3.0, 2.0, 1.0])) == 2.0


def test_base_sd_is_over_prompt_means(make_ledger):
    ledger = make_ledger()
    gold = ledger.numbers("base", "gold")[0]
    assert stability.base_sd(ledger) == pytest.approx(np.std(gold.mean(axis=1), ddof=1))


def test_base_without_spread_is_refused(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "shared/base_evaluation/samples/point_0.parquet"
    pd.read_parquet(path).assign(gold=0.5).to_parquet(path)
    with pytest.raises(LedgerError, match="same gold score on every prompt"):
        stability.base_sd(load_ledger(sweep.folder))


def test_collapsing_arm_shows_its_drop_and_a_steady_one_does_not(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.2, 0.3, 0.0)), "dpo": synthetic.Arm("dpo", (0.1, 0.2, 0.3))}
    ledger = make_ledger(arms, num_prompts=60)
    resamples = resamples_for(ledger)
    falling, steady = (stability.assess(ledger, arm, resamples) for arm in ("ppo", "dpo"))
    assert falling.drawdown.low > 1
    assert falling.worst_step.high < -1
    assert steady.drawdown.value == pytest.approx(0, abs=0.05)
    assert steady.drawdown.low == 0
    assert steady.final_over_peak.high <= 100


def test_within_prompt_spread_needs_two_samples(make_ledger, resamples_for):
    ledger = make_ledger(num_samples=1)
    assert stability.assess(ledger, "ppo", resamples_for(ledger)).within_prompt is None


def test_within_prompt_sd_by_hand():
    assert stability.within_prompt_sd(np.array([[[1.0, 3.0], [2.0, 2.0]]])) == pytest.approx(
        np.array([[np.sqrt(2), 0]])
    )


@pytest.mark.parametrize(("num_seeds", "assessable"), [(1, False), (2, False), (3, True), (4, True)])
def test_few_seeds_are_listed_or_not_assessable(num_seeds, assessable):
    spread = stability.spread_over_seeds([1.0] * num_seeds)
    assert spread.assessable is assessable
    assert spread.interquartile_range is None
    assert spread.reason


def test_five_seeds_have_a_spread_and_a_worst():
    spread = stability.spread_over_seeds([10.0, 20.0, 30.0, 40.0, 50.0])
    assert (spread.interquartile_range, spread.worst) == (20.0, 10.0)


def test_curve_of_several_seeds_starts_at_the_base(make_ledger):
    ledger = make_ledger(seeds=(0, 1, 2))
    curve = stability.gold_curve(ledger, "ppo")
    assert curve.shape == (3, 3, 12)
    assert np.array_equal(curve[0, 0], curve[2, 0])
