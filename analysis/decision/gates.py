"""Gates: what an arm must have before anyone should use it. Each is passed or not, or is inconclusive, by its interval.

The thresholds are registered before training (rules.decision). What another module measures comes in as a plain
argument; what is missing reads "not assessable" and never "yes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.answers import Answer, Reply, opposite
from analysis.statistics.bootstrap import Estimate
from analysis.statistics.sample_size import units_needed
from analysis.win_rates import EVEN, WinRate, ahead, why_not_ahead
from experiments.rules import DecisionRules

NOT_MEASURED = "not measured in this sweep"


@dataclass(frozen=True)
class Measurements:
    """What is known of one arm's final model; None if it could not be assessed.

    Attributes:
        win_rate: against the base by the primary judge.
        controlled_win_rate: the same at equal length and style, percent.
        gain: paired, over the base, base SD.
        stability: the answer to "can we tolerate its oscillation?".
        style_auc: how well a classifier tells its texts from the base's (0.5 is not at all).
        over_optimisation: whether the audit finds it, and why.
        cost_ratio: device-seconds of training over those of the cheapest arm; counted, so without an interval.
        why_not_controlled: why there is no `controlled_win_rate`.
    """

    win_rate: WinRate | None
    controlled_win_rate: Estimate | None
    gain: Estimate | None
    stability: Answer | None
    style_auc: Estimate | None
    over_optimisation: tuple[Reply, str] | None
    cost_ratio: float | None
    why_not_controlled: str = NOT_MEASURED


@dataclass(frozen=True)
class Gate:
    """One gate of one arm.

    Attributes:
        name, meaning, rule: for people; the rule names the threshold with its unit.
        number: None if it is counted or could not be measured.
        times: a counted number instead.
        note: what else to know, such as why it is open.
    """

    name: str
    meaning: str
    rule: str
    reply: Reply
    number: Estimate | None = None
    times: float | None = None
    note: str = ""


def gates_of(measured: Measurements, rules: DecisionRules) -> tuple[Gate, ...]:
    """All gates of one arm, in the order in which the report shows them."""
    rate, gain = f"above {rules.min_win_rate_percent:g} %", f"above {rules.min_gain_base_sd:g} SD"
    return (
        _win_rate(rate, measured.win_rate, rules.min_win_rate_percent),
        _held_against(
            "Controlled win rate", "the same at equal length and style", rate, measured.controlled_win_rate,
            rules.min_win_rate_percent, why_not=measured.why_not_controlled,
        ),
        _held_against("Measure", "gain over the base, paired", gain, measured.gain, rules.min_gain_base_sd),
        _stability(measured.stability),
        _held_against(
            "Style drift", "how well a classifier tells its texts from the base's; 0.5 is not at all",
            f"AUC below {rules.max_style_auc:g}", measured.style_auc, rules.max_style_auc, above=False,
        ),
        _over_optimisation(measured.over_optimisation),
        _cost(measured.cost_ratio, rules.max_cost_ratio),
    )  # fmt: skip


def standing(gates: Sequence[Gate]) -> Reply:
    """Whether the arm passes them all: no if one says no, inconclusive if one is open."""
    replies = {gate.reply for gate in gates}
    if "no" in replies:
        return "no"
    return "yes" if replies == {"yes"} else "inconclusive"


def _win_rate(rule: str, rate: WinRate | None, bound: float) -> Gate:
    """By its interval; besides, whoever passes as better or fails as worse than the base is so after correction."""
    name, meaning = "Win rate", "against the base, by the primary judge"
    if rate is None:
        return Gate(name, meaning, rule, "not assessable", note=NOT_MEASURED)
    meaning = f"against the base, by {rate.judge}"
    if rate.blocked:
        return Gate(name, meaning, rule, "not assessable", rate.estimate, note=rate.blocked)
    gate = _held_against(name, meaning, rule, rate.estimate, bound)
    unproven = (gate.reply == "yes" and bound >= EVEN and ahead(rate) != rate.arm) or (
        gate.reply == "no" and bound <= EVEN and ahead(rate) != rate.opponent
    )
    return replace(gate, reply="inconclusive", note=why_not_ahead(rate)) if unproven else gate


def _held_against(
    name: str,
    meaning: str,
    rule: str,
    number: Estimate | None,
    bound: float,
    *,
    above: bool = True,
    why_not: str = NOT_MEASURED,
) -> Gate:
    """Yes if the whole interval is on the side of the bound that the rule asks for, no if it is on the other."""
    if number is None:
        return Gate(name, meaning, rule, "not assessable", note=why_not)
    over: Reply = "yes" if number.low > bound else "no" if number.high < bound else "inconclusive"
    reply = over if above else opposite(over)
    return Gate(name, meaning, rule, reply, number, note=_settled_by(number, bound, reply))


def _settled_by(number: Estimate, bound: float, reply: Reply) -> str:
    if reply != "inconclusive":
        return ""
    needed = units_needed(number, bound)
    if needed is None:
        return "more prompts would hardly settle it"
    return f"about {needed} prompts would settle it, not {number.n}"


def _stability(answer: Answer | None) -> Gate:
    """A yes passes; the answer's first measured evidence stands for it."""
    name, meaning, rule = (
        "Stability",
        "drops from the peak along training",
        "its drops and steps stay within the registered tolerance",
    )
    if answer is None:
        return Gate(name, meaning, rule, "not assessable", note=NOT_MEASURED)
    number = next((item.number for item in answer.evidence if item.number is not None), None)
    return Gate(name, meaning, rule, answer.reply, number)


def _over_optimisation(audit: tuple[Reply, str] | None) -> Gate:
    name, meaning, rule = "Over-optimisation", "whether the measure still follows the reward", "the audit finds nothing"
    found, why = audit or ("not assessable", NOT_MEASURED)
    return Gate(name, meaning, rule, opposite(found), note=why)


def _cost(ratio: float | None, bound: float) -> Gate:
    name, meaning = "Cost", "device time of training, in times the cheapest arm's"
    rule = f"at most {bound:g} times"
    if ratio is None:
        return Gate(name, meaning, rule, "not assessable", note="the device time was not recorded")
    return Gate(name, meaning, rule, "yes" if ratio <= bound else "no", times=ratio)
