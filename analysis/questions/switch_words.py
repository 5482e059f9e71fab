"""The switch point in words: where or that there is none, what it rests on and what would change it."""

from __future__ import annotations

from scipy.stats import norm

from analysis.answers import Answer, Evidence
from analysis.ledger import Ledger
from analysis.questions.switch_point import HALF, Place, Switch
from analysis.statistics.bootstrap import MIN_SEEDS_FOR_METHOD
from analysis.statistics.sample_size import MANY_UNITS, scaled
from experiments.rules import SwitchRules

QUESTION = "Where does {}'s marginal gain fall under its risk and cost?"
SUGGESTION = "ten or more evaluation points and three or more seeds (budget=full has eleven and five)"


def answer(ledger: Ledger, arm: str, switch: Switch) -> Answer:
    """The question answered for one arm; on an arm that is not PPO it is descriptive."""
    algorithm = ledger.algorithm(arm)
    question = QUESTION.format(ledger.label(algorithm)) + ("" if algorithm == "ppo" else f" (descriptive, of {arm})")
    if not switch.intervals:
        return Answer(
            question, "not assessable", f"{arm}: not assessable, {switch.why}.", (), f"Runs with {SUGGESTION}."
        )
    rules = ledger.rules.switch
    return Answer(
        question,
        switch.reply,
        sentence(arm, switch, rules),
        tuple(_evidence(switch, rules)),
        _would_change(switch, rules),
        _in_words(switch),
    )


def _in_words(switch: Switch) -> str:
    """Where the point is, as far as the run shows."""
    if switch.reply == "yes":
        return "Inside the observed range"
    if switch.reply == "no":
        return "No switch inside the observed range"
    return "No switch shown inside the observed range" if _mostly_none(switch) else "Not settled"


def _mostly_none(switch: Switch) -> bool:
    return (switch.probability_of_none or 0) > HALF


def switch_at(switch: Switch) -> str | None:
    """The point in words, if one was named."""
    return _where(switch.best) if switch.reply == "yes" and switch.best else None


def sentence(arm: str, switch: Switch, rules: SwitchRules) -> str:
    """The reply with its interval; that other weights would move the point is said here."""
    end = switch.intervals[-1].end
    chances = f"probability of no switch within the run {100 * (switch.probability_of_none or 0):.0f} %"
    spread = f"{_spread(switch)}; {chances}"
    if switch.reply == "yes":
        words = f"{arm} stops paying at {switch_at(switch)}: {switch.why} ({spread})"
    elif switch.reply == "no" or _mostly_none(switch):
        hedge = "" if switch.reply == "no" else ", as far as can be told"
        words = f"{arm} had not stopped paying by {_where(end)}{hedge}: {switch.why} ({spread}); run longer"
    else:
        words = f"Where {arm} stops paying is not settled: {switch.why} ({spread})"
    return words + _sensitivity(switch, rules) + "."


def _where(place: Place) -> str:
    spent = "" if place.device_seconds is None else f", {place.device_seconds:,.0f} device-seconds"
    return f"evaluation point {place.point} ({place.prompts_seen:,.0f} prompts{spent})"


def _spread(switch: Switch) -> str:
    """The bootstrap's median and 80 % interval."""
    if switch.low is None:
        return "80 % interval of the switch point: beyond the run"
    return f"bootstrap median {_point(switch.median)}, 80 % interval {_point(switch.low)} to {_point(switch.high)}"


def _point(place: Place | None) -> str:
    return "beyond the run" if place is None else f"point {place.point}"


def _sensitivity(switch: Switch, rules: SwitchRules) -> str:
    """Said if the point moves by more than is tolerated; a point beyond the run counts as the run's end."""
    end = len(switch.intervals)
    registered = switch.best.point if switch.best else end
    moved = [(abs((end if point is None else point) - registered), name) for name, point in switch.shifts]
    farthest, name = max(moved, default=(0, ""))
    return f"; it moves by {farthest} points with the {name}" if farthest > rules.tolerated_shift else ""


def _evidence(switch: Switch, rules: SwitchRules) -> list[Evidence]:
    last = switch.intervals[-1]
    found = [
        Evidence(
            "Utility of the last interval",
            "gain in the measure, less drawdown, entropy lost and device time at their weights",
            last.utility,
            f"under 0 with probability {rules.min_probability:g}, twice in a row",
            f"under 0 in {100 * last.probability:.0f} % of the resamples",
        )
    ]
    if switch.gain_at_switch and switch.later_change:
        place = switch.best or switch.median
        found += [
            Evidence(
                "Gain there",
                "over the base, on the half of the prompts that had no part in choosing the point",
                switch.gain_at_switch,
                "0",
                f"at {_point(place)}",
            ),
            Evidence(
                "Change of the measure after it",
                "final model minus that point, on the same half",
                switch.later_change,
                "0",
                "further training lowered the measure"
                if switch.later_change.high < 0
                else "further training raised the measure"
                if switch.later_change.low > 0
                else "the interval contains 0",
            ),
        ]
    return found


def _would_change(switch: Switch, rules: SwitchRules) -> str:
    if switch.reply == "yes":
        return (
            "Other weights of risk and cost, or another seed: confirm it by an arm that switches to DPO at that point."
        )
    if switch.reply == "no":
        return "A longer run of the same arm with the same spacing of evaluation points."
    prompts = _prompts_needed(switch, rules)
    seeds = (
        ""
        if switch.num_seeds >= MIN_SEEDS_FOR_METHOD
        else "; with fewer than three seeds it speaks of these checkpoints only"
    )
    return f"Runs with {SUGGESTION}{prompts}{seeds}."


def _prompts_needed(switch: Switch, rules: SwitchRules) -> str:
    """For the interval of median |U|: what would make its sign as sure as the rule asks."""
    sizes = sorted((abs(item.utility.value), item.utility.standard_error) for item in switch.intervals)
    size, error = sizes[len(sizes) // 2]
    z = float(norm.ppf(rules.min_probability))
    needed = scaled(2 * switch.num_prompts, z * error, size)
    if needed <= 2 * switch.num_prompts:
        return ""
    return f", and about {needed:,.0f} prompts" if needed <= MANY_UNITS else ""
