"""Judges that were asked beyond the scorers: what they prefer, whether their word holds, and whether it may count.

A judge's word counts in a contest if it does not depend on the order of showing, if few verdicts are missing, and if
the judge is not itself the reward that was trained on (MT-bench, arXiv:2306.05685, section 3.4, on order).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.load import Judge, Ledger
from analysis.statistics import Estimate, FloatArray, Resamples, mean_estimate

TRAINING_REWARD = "IS THE TRAINING REWARD"
NOTES_THAT_ASK_NOBODY = {"identical responses"}
MIN_PROMPTS = 2  # below which there is nothing to resample


@dataclass(frozen=True)
class JudgeRules:
    """The section "judges" of the rules."""

    max_missing_share: float
    min_swap_consistency: float


@dataclass(frozen=True)
class Contest:
    """What a judge makes of two final models.

    Attributes:
        preference: percent of pairs in which it prefers the arm, ties half, over the pairs that have a verdict.
        swap_consistency: percent of asked pairs whose verdict is the same in both orders; None for a judge that scores
            each response by itself.
        num_pairs: pairs of responses.
        num_missing: those without a verdict.
        missing: reason -> how many.
        counts: whether it may be used as evidence.
        why_not: else the reason.
    """

    arm: str
    opponent: str
    preference: Estimate | None
    swap_consistency: Estimate | None
    num_pairs: int
    num_missing: int
    missing: dict[str, int]
    counts: bool
    why_not: str


@dataclass(frozen=True)
class Assessment:
    """One judge in the report. `currency` is that of its cost; None for a judge that asks no endpoint."""

    name: str
    description: str
    relation: str
    evidence: str
    currency: str | None
    numbers: dict[str, float]
    contests: tuple[Contest, ...]


def assess(ledger: Ledger, resamples: Resamples, rng: np.random.Generator) -> list[Assessment]:
    """Every judge with all its contests; none in a sweep for which none was configured."""
    return [
        Assessment(
            judge.name,
            describe(judge),
            judge.relation,
            judge.evidence,
            judge.settings.get("currency"),
            judge.numbers,
            tuple(_contests(ledger, judge, resamples, rng)),
        )
        for judge in ledger.judges.values()
    ]


def describe(judge: Judge) -> str:
    """Who judged, in words."""
    settings = judge.settings
    if judge.name == "endpoint":
        return f"{settings['model']} at {settings['base_url']}, asked in both orders: {settings['criterion']}"
    return f"reward model {settings['path']}; scores closer than {settings['tie_band']:g} base SD are a tie"


def prompt_estimate(values_SPM: FloatArray, resamples: Resamples, rng: np.random.Generator) -> Estimate | None:
    """Mean in percent over the samples of a prompt that have a value, then over the prompts where every seed has one.

    Where prompts are left out, those that remain are resampled among themselves; None where fewer than two remain.

    Args:
        values_SPM: shares, NaN where there is none.
        resamples: of all prompts.
        rng: for prompts that are fewer than all.
    """
    counts_SP = np.isfinite(values_SPM).sum(axis=2)
    sums_SP = np.nansum(values_SPM, axis=2)
    there_P = (counts_SP > 0).all(axis=0)
    num_seeds, num_there = len(values_SPM), int(there_P.sum())
    if num_there < MIN_PROMPTS:
        return None
    drawn = resamples if there_P.all() else Resamples.draw(rng, num_there, num_seeds)
    return mean_estimate(100 * sums_SP[:, there_P] / counts_SP[:, there_P], drawn, "percent")


def _contests(ledger: Ledger, judge: Judge, resamples: Resamples, rng: np.random.Generator) -> Iterator[Contest]:
    rules = ledger.rules("judges", JudgeRules)
    for (arm, opponent), rows in judge.contests.items():
        missing = rows.loc[rows["score"].isna(), "note"].value_counts().to_dict()
        scores, agreement = (read(judge.name, arm, opponent) for read in (ledger.preferences, ledger.swap_agreement))
        preference, consistency = (
            None if values is None else prompt_estimate(values, resamples, rng) for values in (scores, agreement)
        )
        num_missing = sum(missing.values())
        asked = ~rows["note"].isin(NOTES_THAT_ASK_NOBODY)
        why_not = _why_not(judge, rules, num_missing / len(rows), consistency, bool(asked.any()))
        yield Contest(
            arm,
            opponent,
            preference,
            consistency,
            len(rows),
            num_missing,
            {str(reason): int(count) for reason, count in missing.items()},
            not why_not,
            why_not,
        )


def _why_not(judge: Judge, rules: JudgeRules, missing: float, consistency: Estimate | None, was_asked: bool) -> str:
    """Why a contest's result is no evidence, or nothing."""
    if judge.relation == TRAINING_REWARD:
        return "it is the reward that was trained on"
    if missing > rules.max_missing_share:
        return f"{missing:.0%} of its verdicts are missing; {rules.max_missing_share:.0%} are allowed"
    if judge.name == "endpoint" and was_asked:
        if consistency is None:
            return "too few prompts to tell whether the order of showing decides"
        if consistency.value < 100 * rules.min_swap_consistency:
            return (
                f"its verdict survives the swap of order in {consistency.value:.0f} % of pairs; "
                f"{100 * rules.min_swap_consistency:.0f} % are required"
            )
    return ""
