from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from analysis.ledger.load import load_ledger
from analysis.statistics.bootstrap import judged_mean
from analysis.win_rates import bradley_terry as strengths
from analysis.win_rates.bradley_terry import bradley_terry
from experiments.rules import WinRateRules

RULES = WinRateRules(
    primary_judge="gold",
    primary_comparisons=("arm_against_base", "plain_against_plain"),
    significance_level=0.05,
    max_missing_percent=5,
    max_intransitivity_points=5,
)


def test_two_sides_by_hand():
    """Three of four won: 3.5 against 1.5 with half a win each, so the log-odds are ln(7 / 3)."""
    found = bradley_terry(2, {(1, 0): np.array([0.75])}, num_prompts=4)
    assert found == pytest.approx(np.array([[0, np.log(7 / 3)]]), abs=1e-6)


def test_agrees_with_a_general_optimiser():
    shares = {(1, 0): 0.8, (2, 0): 0.4, (2, 1): 0.3, (3, 0): 0.55, (3, 2): 0.5}

    def loss(free):
        value = np.r_[0, free]
        return -sum(
            (50 * share + 0.5) * np.log(expit(value[i] - value[j]))
            + (50 * (1 - share) + 0.5) * np.log(expit(value[j] - value[i]))
            for (i, j), share in shares.items()
        )

    slow = minimize(loss, np.zeros(3)).x
    fast = bradley_terry(4, {pair: np.array([share]) for pair, share in shares.items()}, num_prompts=50)
    assert fast[0, 1:] == pytest.approx(slow, abs=1e-4)


def test_side_that_wins_everything_stays_finite():
    found = bradley_terry(3, {(1, 0): np.ones(1), (2, 0): np.zeros(1), (2, 1): np.zeros(1)}, num_prompts=200)
    assert found[0, 1] > 4
    assert found[0, 2] < -4
    assert np.isfinite(found).all()


def test_fits_that_do_not_settle_are_an_error(monkeypatch):
    monkeypatch.setattr(strengths, "MAX_ITERATIONS", 1)
    with pytest.raises(ArithmeticError, match="did not settle"):
        bradley_terry(3, {(1, 0): np.array([0.9]), (2, 1): np.array([0.9])}, num_prompts=200)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_better_arms_are_stronger_and_a_scorer_is_transitive(make_ledger, resamples_for, synthetic, seeds):
    arms = {
        "ppo": synthetic.Arm("ppo", (0.2,)),
        "dpo": synthetic.Arm("dpo", (0.05,)),
        "twin": synthetic.Arm("dpo", (0.0,), twin=True),
    }
    ledger = make_ledger(arms, num_prompts=60, seeds=seeds)
    scale = strengths.strength_scale(ledger, RULES, resamples_for(ledger))
    by_arm = {item.arm: item for item in scale.strengths}
    assert by_arm["ppo"].strength.low > 0
    assert by_arm["ppo"].strength.value > by_arm["dpo"].strength.value > by_arm["twin"].strength.value
    assert by_arm["twin"].win_rate.low <= 50 <= by_arm["twin"].win_rate.high
    assert by_arm["ppo"].strength.num_seeds == len(seeds)
    assert [(item.arm, item.opponent, item.intransitive) for item in scale.checks] == [
        ("ppo", "dpo", False),
        ("ppo", "twin", False),
    ]


def test_judge_that_prefers_in_circles_is_flagged(make_ledger, resamples_for, monkeypatch):
    """PPO beats DPO, DPO beats the base, the base beats PPO, each on three prompts of four."""
    ledger = make_ledger(num_prompts=80)
    won = {("ppo", "dpo"): 0.75, ("dpo", "base"): 0.75, ("ppo", "base"): 0.25}

    def preferences(_ledger, arm, opponent, _judge):
        share = won[arm, opponent] if (arm, opponent) in won else 1 - won[opponent, arm]
        return (np.arange(80) % 4 < 4 * share).astype(float).reshape(1, 80, 1)

    monkeypatch.setattr(strengths, "preferences", preferences)
    (check,) = strengths.strength_scale(ledger, RULES, resamples_for(ledger)).checks
    assert check.direct.value == pytest.approx(100 * 60.5 / 81)
    assert check.predicted.value == pytest.approx(100 / (1 + 3**2), abs=1)  # odds of 1/3 and again 1/3
    assert check.intransitive
    tolerant = RULES.model_copy(update={"max_intransitivity_points": 60})
    assert not strengths.strength_scale(ledger, tolerant, resamples_for(ledger)).checks[0].intransitive


def test_arm_without_a_seed_of_the_other_and_judge_without_scores(make_sweep, resamples_for, synthetic):
    no_proxy = synthetic.Arm("dpo", (0.1,), edit=lambda rows: rows.assign(**{"score/proxy": float("nan")}))
    sweep = make_sweep({"ppo": synthetic.Arm("ppo", (0.1,)), "dpo": no_proxy}, seeds=(0, 1))
    sweep.edit("ppo/seed1/status.json", state="failed")
    sweep.edit("dpo/seed0/status.json", state="failed")
    ledger = load_ledger(sweep.folder)
    scale = strengths.strength_scale(ledger, RULES, resamples_for(ledger))
    assert [item.arm for item in scale.strengths] == ["ppo", "dpo"]
    assert scale.checks == ()
    assert (
        strengths.strength_scale(ledger, RULES.model_copy(update={"primary_judge": "proxy"}), resamples_for(ledger))
        is None
    )


def test_missing_preferences_are_left_out(make_ledger, resamples_for, monkeypatch):
    ledger = make_ledger(num_prompts=40)
    scores = np.tile([[1.0], [np.nan], [1.0], [0.0]], (10, 1)).reshape(1, 40, 1)
    monkeypatch.setattr(strengths, "preferences", lambda *_: scores)
    fit = strengths.fit_seed(ledger, "gold", 0, resamples_for(ledger))
    assert fit.shares[1, 0][0] == pytest.approx(2 / 3)
    assert judged_mean(100 * scores, resamples_for(ledger))[0].value == pytest.approx(200 / 3)
