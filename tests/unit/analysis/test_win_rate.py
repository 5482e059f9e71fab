from __future__ import annotations

import numpy as np
import pytest

from analysis import win_rate
from analysis.statistics import Resamples


def test_win_rate_by_hand_with_ties():
    ours = np.array([[[0.9, 0.5], [0.2, 0.4], [0.7, 0.7]]])  # one seed, three prompts, two samples
    theirs = np.array([[[0.1, 0.5], [0.3, 0.6], [0.7, 0.1]]])
    # per prompt: (1 + 1/2) / 2 = 0.75; 0; (1/2 + 1) / 2 = 0.75
    rate = win_rate.win_rate(ours, theirs, Resamples.draw(np.random.default_rng(0), 3, 1))
    assert rate.value == pytest.approx(50.0)
    assert rate.n == 3
    assert rate.unit == "percent"


def test_twin_of_the_base_is_even(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), twin=True)})
    rate = win_rate.compare(ledger, "ppo", "base", "gold", resamples_for(ledger))
    assert rate.estimate.value == 50.0
    assert rate.estimate.low <= 50 <= rate.estimate.high
    assert rate.ties.value == 100.0
    assert rate.sign_test == 1.0


def test_arm_without_gain_has_an_interval_around_even(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,))}, num_prompts=60)
    rate = win_rate.compare(ledger, "ppo", "base", "gold", resamples_for(ledger)).estimate
    assert rate.low < 50 < rate.high
    assert 5 < rate.high - rate.low < 40


def test_better_arm_wins_and_its_gold_difference_excludes_zero(make_ledger, resamples_for):
    ledger = make_ledger(num_prompts=60)
    resamples = resamples_for(ledger)
    assert win_rate.compare(ledger, "ppo", "base", "gold", resamples).estimate.low > 50
    difference = win_rate.gold_difference(ledger, "ppo", resamples)
    assert difference.excludes(0)
    assert difference.value == pytest.approx(20, abs=5)


def test_head_to_head_is_ppo_against_dpo_and_mirrors(make_ledger, resamples_for):
    ledger = make_ledger(num_prompts=40)
    resamples = resamples_for(ledger)
    (pair,) = win_rate.head_to_head(ledger, "gold", resamples)
    assert (pair.arm, pair.opponent) == ("ppo", "dpo")
    reverse = win_rate.compare(ledger, "dpo", "ppo", "gold", resamples)
    assert pair.estimate.value + reverse.estimate.value == pytest.approx(100)
    assert pair.estimate.low == pytest.approx(100 - reverse.estimate.high)


def test_judge_without_scores_gives_no_rate(make_ledger, resamples_for, synthetic):
    no_proxy = synthetic.Arm("ppo", (0.1,), edit=lambda rows: rows.assign(proxy=float("nan")))
    ledger = make_ledger({"ppo": no_proxy})
    assert win_rate.compare(ledger, "ppo", "base", "proxy", resamples_for(ledger)) is None


def test_only_common_seeds_are_compared(make_sweep, resamples_for):
    from analysis.load import load_ledger

    sweep = make_sweep(seeds=(0, 1, 2))
    sweep.edit("dpo/seed1/status.json", state="failed")
    ledger = load_ledger(sweep.folder)
    (pair,) = win_rate.head_to_head(ledger, "gold", resamples_for(ledger))
    assert pair.seeds == (0, 2)
    assert pair.estimate.num_seeds == 2
