"""Judges that were asked beyond the scorers: what they prefer, whether their word holds, and whether it may count.

`rules.win_rate.primary_judge` may name one of them; if its word counts, its win rates then decide (win_rate.py).
A judge's word counts in a contest if it does not depend on the order of showing, if few verdicts are missing, and if
the judge is not itself the reward that was trained on (MT-bench, arXiv:2306.05685, section 3.4, on order).
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.ledger import AskedJudge, Ledger
from analysis.statistics.bootstrap import Estimate, Resamples, judged_mean
from experiments.rules import JudgeRules

INDEPENDENT, SAME_FAMILY, TRAINING_REWARD = "INDEPENDENT", "SAME FAMILY", "IS THE TRAINING REWARD"
MAY_DECIDE = {INDEPENDENT, SAME_FAMILY}
NOTES_THAT_ASK_NOBODY = {"identical responses"}


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


def assessments(ledger: Ledger, resamples: Resamples) -> list[Assessment]:
    """Every judge with all its contests; none in a sweep for which none was configured."""
    return [
        Assessment(
            judge.name,
            describe(judge),
            judge.relation,
            judge.evidence,
            judge.settings.get("currency"),
            judge.numbers,
            tuple(contest(ledger, judge, *pair, resamples) for pair in judge.contests),
        )
        for judge in ledger.judges.values()
    ]


def describe(judge: AskedJudge) -> str:
    """Who judged, in words."""
    settings = judge.settings
    if judge.name == "endpoint":
        return f"{settings['model']} at {settings['base_url']}, asked in both orders: {settings['criterion']}"
    if judge.name != "reward_model":
        return ", ".join(f"{key}={value}" for key, value in settings.items())
    return f"reward model {settings['path']}; scores closer than {settings['tie_band']:g} base SD are a tie"


def contest(ledger: Ledger, judge: AskedJudge, arm: str, opponent: str, resamples: Resamples) -> Contest:
    """What the judge makes of two final models that it was asked about, in this order."""
    rules, rows = ledger.rules.judges, judge.contests[arm, opponent]
    missing = rows.loc[rows["score"].isna(), "note"].value_counts().to_dict()
    scores, agreement = (read(judge.name, arm, opponent) for read in (ledger.preferences, ledger.swap_agreement))
    preference, consistency = (
        None if values is None or (found := judged_mean(100 * values, resamples)) is None else found[0]
        for values in (scores, agreement)
    )
    num_missing = sum(missing.values())
    asked = ~rows["note"].isin(NOTES_THAT_ASK_NOBODY)
    why_not = _why_not(judge, rules, num_missing / len(rows), consistency, bool(asked.any()))
    return Contest(
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


def _why_not(
    judge: AskedJudge, rules: JudgeRules, missing: float, consistency: Estimate | None, was_asked: bool
) -> str:
    """Why a contest's result is no evidence, or nothing."""
    if judge.relation == TRAINING_REWARD:
        return "it is the reward that was trained on"
    if judge.relation not in MAY_DECIDE:
        return "how it relates to the reward that was trained on is not recorded"
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
