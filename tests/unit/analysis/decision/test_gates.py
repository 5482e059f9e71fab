from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.answers import Answer, Evidence
from analysis.decision import gates
from analysis.statistics.bootstrap import Estimate
from analysis.win_rates import WinRate
from experiments.rules import DecisionRules


def estimate(low, high, n=64):
    return Estimate((low + high) / 2, low, high, (high - low) / 4, "percent", n)


def rate(low, high, n=64, adjusted_p=0.01, **changes):
    """Against the base, by gold; a difference that survives the correction unless told otherwise."""
    ties = estimate(0, 1)
    fields = {"p": 0.01, "sign_test": 0.01, "seeds": (0,), "num_pairs": 128, "num_missing": 0, **changes}
    return WinRate("ppo", "base", "gold", "INDEPENDENT", estimate(low, high, n), ties, adjusted_p=adjusted_p, **fields)


DRAWDOWN = estimate(0.0, 0.1)


def stable(reply):
    return Answer("?", reply, "", (Evidence("largest drawdown", "", DRAWDOWN, "", ""),), "")


NOTHING = gates.Measurements(*[None] * 7)
GOOD = gates.Measurements(
    win_rate=rate(55, 65),
    controlled_win_rate=estimate(51, 61),
    gain=estimate(0.3, 0.8),
    stability=stable("yes"),
    style_auc=estimate(0.55, 0.7),
    over_optimisation=("no", "no detector fires"),
    cost_ratio=2.0,
)
NAMES = ("Win rate", "Controlled win rate", "Measure", "Stability", "Style drift", "Over-optimisation", "Cost")


@pytest.fixture
def rules(synthetic):
    return DecisionRules(**synthetic.RULES["decision"])


def outcomes(measured, rules):
    return {gate.name: gate.reply for gate in gates.gates_of(measured, rules)}


def test_an_arm_with_everything_good_clears(rules):
    found = gates.gates_of(GOOD, rules)
    assert tuple(gate.name for gate in found) == NAMES
    assert {gate.reply for gate in found} == {"yes"}
    assert gates.standing(found) == "yes"


def test_what_is_missing_is_not_assessable_and_never_a_pass(rules):
    found = gates.gates_of(NOTHING, rules)
    assert {gate.reply for gate in found} == {"not assessable"}
    assert all(gate.note for gate in found)
    assert gates.standing(found) == "inconclusive"


@pytest.mark.parametrize(
    ("gate", "change", "outcome"),
    [
        ("Win rate", {"win_rate": rate(40, 49)}, "no"),
        ("Win rate", {"win_rate": rate(45, 60)}, "inconclusive"),
        ("Win rate", {"win_rate": rate(55, 65, adjusted_p=0.06)}, "inconclusive"),
        ("Win rate", {"win_rate": rate(40, 49, adjusted_p=0.06)}, "inconclusive"),
        ("Win rate", {"win_rate": rate(55, 65, adjusted_p=None)}, "inconclusive"),
        ("Win rate", {"win_rate": rate(55, 65, blocked="6 of 128 preferences are missing")}, "not assessable"),
        ("Controlled win rate", {"controlled_win_rate": estimate(40, 49)}, "no"),
        ("Measure", {"gain": estimate(0.05, 0.15)}, "no"),  # above the base, but not worth having
        ("Measure", {"gain": estimate(0.15, 0.5)}, "inconclusive"),
        ("Stability", {"stability": stable("no")}, "no"),
        ("Stability", {"stability": stable("inconclusive")}, "inconclusive"),
        ("Style drift", {"style_auc": estimate(0.85, 0.95)}, "no"),
        ("Style drift", {"style_auc": estimate(0.7, 0.85)}, "inconclusive"),
        ("Over-optimisation", {"over_optimisation": ("yes", "H1 and H4 fire")}, "no"),
        ("Over-optimisation", {"over_optimisation": ("inconclusive", "H4 fires")}, "inconclusive"),
        ("Over-optimisation", {"over_optimisation": ("not assessable", "no proxy")}, "not assessable"),
        ("Cost", {"cost_ratio": 5.1}, "no"),
    ],
)
def test_each_gate_follows_its_threshold(rules, gate, change, outcome):
    found = gates.gates_of(replace(GOOD, **change), rules)
    assert {item.name: item.reply for item in found if item.reply != "yes"} == {gate: outcome}
    assert gates.standing(found) == ("no" if outcome == "no" else "inconclusive")


def test_stability_shows_the_drawdown_it_was_judged_by(rules):
    found = {gate.name: gate for gate in gates.gates_of(GOOD, rules)}
    assert found["Stability"].number == DRAWDOWN


def test_an_open_gate_says_how_many_prompts_would_settle_it(rules):
    found = gates.gates_of(replace(GOOD, win_rate=rate(45, 60, n=64)), rules)[0]  # 52.5 ± 7.5, 2.5 off: nine times
    assert found.note == "about 576 prompts would settle it, not 64"


def test_a_win_that_does_not_survive_the_correction_says_so(rules):
    gate = gates.gates_of(replace(GOOD, win_rate=rate(55, 65, adjusted_p=0.06)), rules)[0]
    assert gate.note == "clear by itself, not after correction for all primary comparisons"
    assert gate.meaning == "against the base, by gold"


@pytest.mark.parametrize(("bound", "low", "high", "outcome"), [(45, 46, 54, "yes"), (60, 46, 54, "no")])
def test_a_bound_that_claims_no_lead_needs_no_correction(rules, bound, low, high, outcome):
    moved = rules.model_copy(update={"min_win_rate_percent": bound})
    assert gates.gates_of(replace(GOOD, win_rate=rate(low, high, adjusted_p=0.9)), moved)[0].reply == outcome


def test_a_gate_on_its_threshold_promises_no_number_of_prompts(rules):
    found = gates.gates_of(replace(GOOD, win_rate=rate(42.6, 57.6, n=64)), rules)[0]
    assert found.reply == "inconclusive"
    assert found.note == "more prompts would hardly settle it"


def test_a_rate_at_equal_style_that_is_no_measurement_says_why(rules):
    measured = replace(GOOD, controlled_win_rate=None, why_not_controlled="the two styles hardly overlap")
    gate = next(gate for gate in gates.gates_of(measured, rules) if gate.name == "Controlled win rate")
    assert (gate.reply, gate.note) == ("not assessable", "the two styles hardly overlap")
    assert gates.standing(gates.gates_of(measured, rules)) == "inconclusive"
