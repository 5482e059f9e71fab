"""What a sweep about one checkpoint says first: whether it had over-optimised, and what was won back from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.ledger import Ledger
from analysis.ledger.conditions import start_of
from analysis.questions.recovery import GAIN, STYLE, WITHIN_PROMPT, Change, Checkpoint, Recovery
from analysis.statistics.bootstrap import Estimate

NOT_ASSESSED = "is not assessable in"


@dataclass(frozen=True)
class WayBack:
    """In words.

    Attributes:
        words: of the headline: the checkpoint, and the measure from there.
        remark: below it: variety and style from there.
        over_optimised: whether that is shown of the checkpoint.
    """

    words: str
    remark: str
    over_optimised: bool


def answer(ledger: Ledger, found: Sequence[Recovery], checkpoints: Sequence[Checkpoint]) -> WayBack | None:
    """None if the plan has another arm than one and those that start from one checkpoint of it.

    Args:
        ledger: of the sweep.
        found: of `recovery.recoveries`.
        checkpoints: of `recovery.checkpoints`.
    """
    planned = dict.fromkeys(item["arm"] for item in ledger.plan["arms"])
    starts = [start_of(ledger.plan, arm) for arm in planned]
    from_one = [start for start in starts if start]
    one_checkpoint = len({(start["arm"], start["share"]) for start in from_one}) == 1
    if not one_checkpoint or len(from_one) < len(starts) - 1 or len(checkpoints) != 1:
        return None
    (checkpoint,) = checkpoints
    words = f"{_checkpoint_words(checkpoint)}; {_measure_words(found)}"
    variety = _directions("variety within a prompt", found, WITHIN_PROMPT, "rises in", "falls in")
    style = _directions("style", found, STYLE, "moves away from the base's in", "comes nearer the base's in")
    return WayBack(words, f"From the checkpoint on, {variety}; {style}.", checkpoint.reply == "yes")


def _checkpoint_words(checkpoint: Checkpoint) -> str:
    arm, measure, training_reward = checkpoint.arm, checkpoint.measure, checkpoint.training_reward
    peak = f"evaluation point {checkpoint.peak}" if checkpoint.peak else "the base"
    since = f"the measure {_signed(measure)} points [95 % interval {_range(measure)}] since its peak, {peak}"
    if checkpoint.reply == "not assessable":
        return f"Whether {arm} had over-optimised at its checkpoint cannot be told: {checkpoint.why}"
    if checkpoint.reply == "no":
        words = "the measure had not been higher before" if checkpoint.peak == checkpoint.point else since
        return f"{arm} is not shown to have over-optimised at its checkpoint: {words}"
    if checkpoint.reply == "inconclusive" or training_reward is None:
        return f"{arm} was past its peak at its checkpoint ({since}), which is no proof: {checkpoint.why}"
    risen = f"the training reward {_signed(training_reward)} base SD [{_range(training_reward)}]"
    return f"{arm} had over-optimised at its checkpoint: {since}, and {risen}"


def _measure_words(found: Sequence[Recovery]) -> str:
    changes = [(item.arm, change.change) for item in found if (change := _of(item, GAIN)) and change.change]
    by = ", ".join(f"{_signed(change)} [{_range(change)}] in {arm}" for arm, change in changes)
    return f"from there the measure changes by (points, with 95 % intervals) {by}"


def _directions(subject: str, found: Sequence[Recovery], name: str, up: str, down: str) -> str:
    """Which arms raise a measure, which lower it, and of which neither is shown."""
    arms: dict[str, list[str]] = {}
    for item in found:
        arms.setdefault(_direction(_of(item, name), up, down), []).append(item.arm)
    if len(arms) == 1 and len(found) > 1:
        return f"{subject} {next(iter(arms))} all of these"
    return f"{subject} " + " and ".join(f"{what} {', '.join(names)}" for what, names in arms.items())


def _direction(change: Change | None, up: str, down: str) -> str:
    if change is None or change.change is None:
        return NOT_ASSESSED
    if not change.change.excludes(0):
        return "is not shown to change in"
    return up if change.change.value > 0 else down


def _of(item: Recovery, name: str) -> Change | None:
    return next((change for change in item.changes if change.name == name), None)


def _signed(number: Estimate) -> str:
    return f"{number.value:+.1f}".replace("-", "−")


def _range(number: Estimate) -> str:
    return f"{number.low:+.1f} to {number.high:+.1f}".replace("-", "−")
