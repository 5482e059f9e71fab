"""Arms that start from another arm's checkpoint: the measure, variety and style there and at the end.

What PPO does is often said to be irreversible. Here stands whether the checkpoint had over-optimised at all, and what
was won back, by further training or by going part of the way back to the base: every number at the checkpoint and in
the final model, and the paired change between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.answers import Reply
from analysis.ledger import Ledger
from analysis.ledger.conditions import start_of
from analysis.over_optimisation import detectors as signs
from analysis.over_optimisation.audit import NO_REWARD
from analysis.scores import POINTS, Halves, base_sd, curves, gain_SP
from analysis.statistics.bootstrap import MIN_PROMPTS, Estimate, FloatArray, Resamples, mean_estimate
from analysis.style import separability
from analysis.style.corpus import Corpus
from analysis.style.measures import PAIRED, NotAssessableError, Paired
from analysis.style.sweep import SweepStyle

VARIETY = ("per_input_ead", "distinct_2")  # measures of `analysis.style.measures`
GAIN, WITHIN_PROMPT, STYLE = "Gain in the measure", "Variety within a prompt", "Told apart from the base"


@dataclass(frozen=True)
class Change:
    """One measure of one arm; None if it could not be taken.

    Attributes:
        name, meaning: for people.
        before: at the checkpoint.
        after: of the final model.
        change: after less before, paired by prompt.
    """

    name: str
    meaning: str
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None


@dataclass(frozen=True)
class Checkpoint:
    """Whether an arm's measure had turned over by the point where other arms start from it.

    Attributes:
        arm, point: which checkpoint.
        reply: whether it had over-optimised: yes if the whole interval of `measure` is under the registered drop and
            that of `training_reward` over 0; inconclusive if only the first is so: the measure was past its peak.
        why: of inconclusive and not assessable; else "".
        peak: evaluation point with the highest measure up to `point`, on the prompts that
            `measure` is not taken on.
        measure: since the peak, points.
        training_reward: since the peak, base SD of the training reward, on the same prompts; None if the
            sweep has none.
    """

    arm: str
    point: int
    reply: Reply
    why: str
    peak: int
    measure: Estimate
    training_reward: Estimate | None


@dataclass(frozen=True)
class Recovery:
    """One arm: the arm it started from, the evaluation point of the checkpoint, and what changed after it."""

    arm: str
    start: str
    point: int
    changes: tuple[Change, ...]


def recoveries(ledger: Ledger, style: SweepStyle, resamples: Resamples) -> list[Recovery]:
    """Every finished arm that starts from a checkpoint, in the plan's order."""
    found = []
    for arm in ledger.arms:
        start = start_of(ledger.plan, arm)
        if start:
            point = round(start["share"] * ledger.final_point)
            found.append(Recovery(arm, start["arm"], point, tuple(_changes(ledger, style, arm, point, resamples))))
    return found


def checkpoints(ledger: Ledger, found: Sequence[Recovery], halves: Halves) -> list[Checkpoint]:
    """Every checkpoint of a finished arm that one of `found` starts from, in their order."""
    starts = dict.fromkeys((item.start, item.point) for item in found if item.start in ledger.arms)
    return [_checkpoint(ledger, arm, point, halves) for arm, point in starts]


def _checkpoint(ledger: Ledger, arm: str, point: int, halves: Halves) -> Checkpoint:
    """Measure and reward since the measure's peak, which the other half of the prompts chose, as in the audit."""
    seen, size = curves(ledger, arm), POINTS * base_sd(ledger)
    peak = signs.best_point(seen.measure_SCP[:, : point + 1], halves.chosen_on)

    def since_peak(gain_SCP: FloatArray, unit: str) -> Estimate:
        shown_SP = (gain_SCP[:, point] - gain_SCP[:, peak])[:, halves.reported_on]
        return mean_estimate(shown_SP, halves.reporting, unit)

    measure = since_peak(size * seen.measure_SCP, "points")
    training_reward = None if seen.reward_SCP is None else since_peak(seen.reward_SCP, "base SD")
    return Checkpoint(
        arm, point, *_over_optimised(ledger, measure, training_reward, size), peak, measure, training_reward
    )


def _over_optimised(
    ledger: Ledger, measure: Estimate, training_reward: Estimate | None, base_sd_points: float
) -> tuple[Reply, str]:
    """By the registered rules of the audit; "" if there is nothing to explain."""
    rules = ledger.rules.over_optimisation
    if measure.n < rules.min_num_prompts:
        why = f"on half of the prompts there are {measure.n}; the rule asks for {rules.min_num_prompts}"
        return "not assessable", why
    if measure.high >= -rules.drop * base_sd_points:
        return "no", ""
    if training_reward is None:
        return "inconclusive", NO_REWARD
    if training_reward.low <= 0:
        return "inconclusive", "the training reward is not shown to have risen on"
    return "yes", ""


def _changes(ledger: Ledger, style: SweepStyle, arm: str, point: int, resamples: Resamples) -> Iterator[Change]:
    points = (point, ledger.final_point)
    gains = [POINTS * gain_SP(ledger, ledger.measure, arm, at) for at in points]
    yield _paired(GAIN, "over the base, 0 to 100", "points", gains, resamples)
    nats = [
        (ledger.numbers(arm, "logp_policy", at) - ledger.numbers(arm, "logp_base", at)).mean(axis=2) for at in points
    ]
    yield _paired("KL to the base", "per response", "nats", nats, resamples)
    sides = style.at_point(arm, point), style.arms[arm]
    for measure in (item for item in PAIRED if item.name in VARIETY):
        yield _variety(measure, sides, style, resamples)
    yield _style_distance(sides, style, resamples)


def _paired(name: str, meaning: str, unit: str, both: Sequence[FloatArray], resamples: Resamples) -> Change:
    """From the values `[S, P]` at the checkpoint and of the final model."""
    before_SP, after_SP = both
    estimates = (mean_estimate(each, resamples, unit) for each in (before_SP, after_SP, after_SP - before_SP))
    return Change(name, meaning, *estimates)


def _variety(measure: Paired, sides: tuple[Corpus, Corpus], style: SweepStyle, resamples: Resamples) -> Change:
    """Less the base's, each response cut to the length of the base's; prompts without a value are left out."""
    base, meaning = style.reference.base, f"{measure.meaning}; less the base's"
    try:
        values = [_by_prompt(measure.value(one, base) - measure.value(base, one), one) for one in sides]
    except NotAssessableError:
        return Change(measure.label, meaning, None, None, None)
    kept_P = np.asarray(np.isfinite(np.concatenate(values)).all(axis=0))
    if kept_P.sum() < MIN_PROMPTS:
        return Change(measure.label, meaning, None, None, None)
    kept = [value[:, kept_P] for value in values]
    return _paired(measure.label, meaning, measure.unit, kept, resamples.of_prompts(kept_P))


def _by_prompt(values: FloatArray, corpus: Corpus) -> FloatArray:
    return values if values.shape[1] == corpus.num_prompts else corpus.per_prompt(values)


def _style_distance(sides: tuple[Corpus, Corpus], style: SweepStyle, resamples: Resamples) -> Change:
    name, meaning = STYLE, "AUC of a classifier on style; 0.5 same style, 1 never mistaken"
    before, after = (separability.separate(side, style.reference.other) for side in sides)
    if before is None or after is None:
        return Change(name, meaning, None, None, None)
    return _paired(name, meaning, "AUC", (before.auc_SP, after.auc_SP), resamples)
