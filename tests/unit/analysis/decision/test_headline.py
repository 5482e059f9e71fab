from __future__ import annotations

import numpy as np
import pytest

from analysis.decision import headline as decision
from analysis.ledger.load import load_ledger
from analysis.statistics.bootstrap import Estimate, Resamples
from analysis.win_rates import WinRate, compare_all
from experiments.rules import ConfidenceRules


def estimate(value, low, high, unit="percent"):
    return Estimate(value, low, high, (high - low) / 4, unit, 32)


def final(rate, second=None, seeds=(0,)):
    ahead = ("ppo" if rate.value > 50 else "dpo") if rate.excludes(50) else None
    return decision.Final("ppo", "dpo", "PPO", "DPO", "gold", rate, ahead, "", "vader", second or rate, True, seeds)


def compared(low, high, adjusted_p=0.01, arm="ppo", opponent="base", **changes):
    value = estimate((low + high) / 2, low, high)
    fields = {"p": 0.01, "sign_test": 0.01, "seeds": (0,), "num_pairs": 64, "num_missing": 0, **changes}
    return WinRate(arm, opponent, "gold", "INDEPENDENT", value, value, adjusted_p=adjusted_p, **fields)


def decide(ledger, resamples):
    rates = compare_all(ledger, resamples)
    return decision.decide(ledger, rates, resamples, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("rate", "word"),
    [
        (compared(55, 65), "beats the base"),
        (compared(35, 45), "is worse than the base"),
        (compared(45, 65), "is not shown to differ from the base"),
        (compared(55, 65, adjusted_p=0.06), "is not shown to differ from the base"),
        (compared(55, 65, adjusted_p=None), "is not shown to differ from the base"),
        (compared(55, 65, blocked="too many missing"), "is not shown to differ from the base"),
        (None, "is not shown to differ from the base"),
    ],
)
def test_verdict_rests_on_the_corrected_comparison(rate, word):
    assert decision.verdict(rate) == word


WIN, EVEN, LOSS = estimate(65, 55, 75), estimate(52, 42, 62), estimate(35, 25, 45)
BOTH = {"arm": "ppo", "opponent": "dpo"}


@pytest.mark.parametrize(
    ("on_the_other_half", "on_all", "expected"),
    [
        (WIN, compared(55, 65, **BOTH), ("ppo", "")),
        (LOSS, compared(35, 45, **BOTH), ("dpo", "")),
        (EVEN, compared(55, 65, **BOTH), (None, "")),
        (WIN, compared(45, 60, **BOTH), (None, "not shown on all prompts together")),
        (WIN, compared(35, 45, **BOTH), (None, "not shown on all prompts together")),
        (
            WIN,
            compared(55, 65, adjusted_p=0.06, **BOTH),
            (None, "clear by itself, not after correction for all primary comparisons"),
        ),
        (WIN, compared(55, 65, blocked="too many missing", **BOTH), (None, "too many missing")),
        (WIN, None, (None, "the judge has given no preferences")),
    ],
)
def test_a_lead_needs_the_correction_and_the_other_half(on_the_other_half, on_all, expected):
    assert decision.leads("ppo", "dpo", on_the_other_half, on_all) == expected


def test_headline_withholds_a_lead_that_the_correction_takes_away(make_sweep, resamples_for, synthetic):
    """The same sweep: clear among its three primary comparisons, or not declared and so for description only."""
    sweep = make_sweep({"ppo": synthetic.Arm("ppo", (0.3,)), "dpo": synthetic.Arm("dpo", (0.0,))}, num_prompts=60)
    ledger = load_ledger(sweep.folder)
    assert "PPO (ppo) beats DPO (dpo)" in decide(ledger, resamples_for(ledger)).headline
    rules = {**synthetic.RULES, "win_rate": {**synthetic.RULES["win_rate"], "primary_comparisons": []}}
    sweep.edit("plan.json", rules=rules)
    ledger = load_ledger(sweep.folder)
    outcome = decide(ledger, resamples_for(ledger))
    assert outcome.headline.startswith("Neither PPO (ppo) nor DPO (dpo) is shown to be better")
    assert "not declared a primary one" in outcome.headline
    assert "none of 2 arms beat the base" in outcome.headline
    assert outcome.confidence == "inconclusive"


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
    assert decision.confidence(final(gold, vader, seeds), ConfidenceRules(min_seeds_for_high=5)) == expected


def test_clear_winner_with_one_seed_speaks_of_checkpoints(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.3,)), "dpo": synthetic.Arm("dpo", (0.0,))}
    ledger = make_ledger(arms, num_prompts=60)
    outcome = decide(ledger, resamples_for(ledger))
    assert outcome.confidence == "low"
    assert outcome.headline.startswith("PPO (ppo) beats DPO (dpo): it wins")
    assert "not of the methods" in outcome.headline
    assert not outcome.final.selected
    assert outcome.final.rate.n == 60


def test_dpo_as_winner_is_told_from_its_side(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.0,)), "dpo": synthetic.Arm("dpo", (0.3,))}
    ledger = make_ledger(arms, num_prompts=60, seeds=(0, 1, 2))
    outcome = decide(ledger, resamples_for(ledger))
    assert outcome.headline.startswith("DPO (dpo) beats PPO (ppo)")
    assert outcome.confidence == "moderate"
    won = float(outcome.headline.split("it wins ")[1].split(" ")[0])
    assert won == pytest.approx(100 - outcome.final.rate.value, abs=0.5)


def test_choice_and_result_use_different_prompts(make_ledger, resamples_for, synthetic):
    arms = {name: synthetic.Arm(name[:3], (0.1,)) for name in ("ppo", "ppo_b", "dpo")}
    ledger = make_ledger(arms, num_prompts=21)
    outcome = decide(ledger, resamples_for(ledger))
    assert outcome.final.selected
    assert outcome.final.rate.n == 10  # 11 were used to choose


def test_choosing_among_equals_does_not_flatter(make_ledger, resamples_for, synthetic):
    """Six PPO arms that equal DPO: their best on all prompts looks better than it is, the reported half does not."""
    arms = {f"ppo_{k}": synthetic.Arm("ppo", (0.1,)) for k in range(6)} | {"dpo": synthetic.Arm("dpo", (0.1,))}
    ledger = make_ledger(arms, num_prompts=80)
    found = decide(ledger, resamples_for(ledger)).final.rate
    assert found.low < 50 < found.high


def test_one_algorithm_alone_is_not_compared(make_sweep, resamples_for):
    sweep = make_sweep()
    sweep.edit("dpo/seed0/status.json", state="failed", error="boom")
    ledger = load_ledger(sweep.folder)
    outcome = decide(ledger, resamples_for(ledger))
    assert outcome.final is None
    assert "cannot be compared, because no DPO arm has finished" in outcome.headline
    assert "1 planned run is missing" in outcome.headline


@pytest.mark.parametrize(
    ("gold", "words", "leads"),
    [
        ((0.1, 0.1, 0.3, 0.4), "PPO then DPO (staged) beats ppo (", "staged"),
        ((0.1, 0.1, 0.1, 0.1), "PPO then DPO (staged) is not shown to differ from ppo (", None),
        ((0.1, 0.1, -0.2, -0.3), "PPO then DPO (staged) loses to ppo (", None),
    ],
)
def test_headline_says_how_a_staged_arm_did_against_both(make_ledger, synthetic, gold, words, leads):
    plain = (0.1, 0.1, 0.1, 0.1)
    ledger = make_ledger(
        {
            "ppo": synthetic.Arm("ppo", plain),
            "dpo": synthetic.Arm("dpo", plain),
            "staged": synthetic.Arm("ppo_then_dpo", gold, start=("ppo", 0.5)),
        },
        num_prompts=60,
    )
    outcome = decide(ledger, Resamples.draw(np.random.default_rng(0), 60, 1, num_resamples=1000))
    assert words in outcome.headline
    assert outcome.staged == leads
    assert outcome.headline.startswith("PPO then DPO (staged)") == bool(leads)
    assert outcome.confidence == ("low" if leads else "inconclusive")


def test_headline_says_why_a_staged_arm_that_looks_better_is_not_called_so(make_sweep, synthetic):
    rules = {
        **synthetic.RULES,
        "win_rate": {**synthetic.RULES["win_rate"], "primary_comparisons": ["plain_against_plain"]},
    }
    plain = (0.1, 0.1, 0.1, 0.1)
    arms = {
        "ppo": synthetic.Arm("ppo", plain),
        "dpo": synthetic.Arm("dpo", plain),
        "staged": synthetic.Arm("ppo_then_dpo", (0.1, 0.1, 0.3, 0.4), start=("ppo", 0.5)),
    }
    sweep = make_sweep(arms, num_prompts=60)
    sweep.edit("plan.json", rules=rules)
    ledger = load_ledger(sweep.folder)
    outcome = decide(ledger, Resamples.draw(np.random.default_rng(0), 60, 1, num_resamples=1000))
    assert "] of pairs): the comparison was not declared a primary one before training; " in outcome.headline
    assert outcome.staged is None
