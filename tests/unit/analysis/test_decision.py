from __future__ import annotations

import numpy as np
import pytest

from analysis import decision
from analysis.load import load_ledger
from analysis.statistics import Estimate


def estimate(value, low, high, unit="percent"):
    return Estimate(value, low, high, (high - low) / 4, unit, 32)


def final(gold, vader=None, seeds=(0,)):
    return decision.Final("ppo", "dpo", gold, vader or gold, True, seeds)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.5, 3, "beats the base"), (-1, 3, "does not differ from the base"), (-3, -0.5, "is worse than the base")],
)
def test_verdict_follows_the_interval(low, high, word):
    assert decision.verdict(estimate((low + high) / 2, low, high)).word == word


WIN, EVEN, LOSS = estimate(65, 55, 75), estimate(52, 42, 62), estimate(35, 25, 45)


@pytest.mark.parametrize(
    ("gold", "vader", "seeds", "expected"),
    [
        (EVEN, WIN, (0, 1, 2, 3, 4), "inconclusive"),
        (WIN, WIN, (0,), "low"),
        (WIN, LOSS, (0, 1, 2, 3, 4), "low"),
        (LOSS, EVEN, (0, 1, 2), "moderate"),
        (WIN, WIN, (0, 1, 2, 3, 4), "high"),
    ],
)
def test_confidence_follows_the_printed_rule(gold, vader, seeds, expected):
    assert decision.confidence(final(gold, vader, seeds), decision.ConfidenceRules(min_seeds_for_high=5)) == expected


def test_clear_winner_with_one_seed_speaks_of_checkpoints(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.3,)), "dpo": synthetic.Arm("dpo", (0.0,))}
    ledger = make_ledger(arms, num_prompts=60)
    outcome = decision.decide(ledger, resamples_for(ledger), np.random.default_rng(0))
    assert outcome.confidence == "low"
    assert outcome.headline.startswith("PPO (ppo) beats DPO (dpo): it wins")
    assert "not of the methods" in outcome.headline
    assert not outcome.final.selected
    assert outcome.final.gold.n == 60


def test_dpo_as_winner_is_told_from_its_side(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.0,)), "dpo": synthetic.Arm("dpo", (0.3,))}
    ledger = make_ledger(arms, num_prompts=60, seeds=(0, 1, 2))
    outcome = decision.decide(ledger, resamples_for(ledger), np.random.default_rng(0))
    assert outcome.headline.startswith("DPO (dpo) beats PPO (ppo)")
    assert outcome.confidence == "moderate"
    won = float(outcome.headline.split("it wins ")[1].split(" ")[0])
    assert won == pytest.approx(100 - outcome.final.gold.value, abs=0.5)


def test_choice_and_result_use_different_prompts(make_ledger, resamples_for, synthetic):
    arms = {name: synthetic.Arm(name[:3], (0.1,)) for name in ("ppo", "ppo_b", "dpo")}
    ledger = make_ledger(arms, num_prompts=21)
    outcome = decision.decide(ledger, resamples_for(ledger), np.random.default_rng(0))
    assert outcome.final.selected
    assert outcome.final.gold.n == 10  # 11 were used to choose


def test_choosing_among_equals_does_not_flatter(make_ledger, resamples_for, synthetic):
    """Six PPO arms that equal DPO: their best on all prompts looks better than it is, the reported half does not."""
    arms = {f"ppo_{k}": synthetic.Arm("ppo", (0.1,)) for k in range(6)} | {"dpo": synthetic.Arm("dpo", (0.1,))}
    ledger = make_ledger(arms, num_prompts=80)
    found = decision.final_comparison(ledger, resamples_for(ledger), np.random.default_rng(0)).gold
    assert found.low < 50 < found.high


def test_one_algorithm_alone_is_not_compared(make_sweep, resamples_for):
    sweep = make_sweep()
    sweep.edit("dpo/seed0/status.json", state="failed", error="boom")
    ledger = load_ledger(sweep.folder)
    outcome = decision.decide(ledger, resamples_for(ledger), np.random.default_rng(0))
    assert outcome.final is None
    assert "cannot be compared, because no DPO arm has finished" in outcome.headline
    assert "1 planned run is missing" in outcome.headline
