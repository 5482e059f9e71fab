"""Who is preferred: each arm against the base, each PPO arm against each DPO arm; same prompts, same random numbers.

`compare_all` makes every comparison that the report shows and corrects the declared primary ones for their number.
`shown_ahead` is the only way from a win rate to words that say who is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.ledger import BASE, AskedJudge, Ledger, LedgerError
from analysis.scores import values
from analysis.statistics.bootstrap import (
    CONFIDENCE_LEVEL,
    NUM_RESAMPLES,
    Estimate,
    FloatArray,
    Resamples,
    holm,
    judged_mean,
    mean_estimate,
    minimum_detectable_effect,
    sign_test,
    simultaneous,
    two_sided_p,
)
from analysis.style.scripts import ENGLISH, find_words, scripts_of, unfit
from analysis.win_rates import judges
from analysis.win_rates.judges import INDEPENDENT, MAY_DECIDE, TRAINING_REWARD
from experiments.records import Role
from experiments.rules import WinRateRules

BoolArray = npt.NDArray[np.bool_]
JudgeName = str  # its name
EVEN = 50.0  # percent: no preference
OF_THE_INTERVAL = round(1 - CONFIDENCE_LEVEL, 9)  # significance level if none was registered


@dataclass(frozen=True)
class JudgeCard:
    """What a reader has to know about a judge.

    Attributes:
        role: what it is, for people.
        independence: how it relates to the reward that PPO trains on.
    """

    role: str
    independence: str


WORDS: dict[Role, str] = {  # what a score is to a reader who is told who wins
    "measure": "the task's own measure",
    "secondary": "a second judge, which no training saw",
    "training_reward": "the reward that PPO trains on: shown, never drives a verdict",
}


def scorers_of(ledger: Ledger) -> dict[JudgeName, JudgeCard]:
    """What scores every sample, as judges: whichever response has the better score wins."""
    return {
        card.name: JudgeCard(
            f"{WORDS[card.role]}: {card.meaning}", TRAINING_REWARD if card.role == "training_reward" else INDEPENDENT
        )
        for card in ledger.scores
    }


class VerdictError(ValueError):
    """A verdict was asked of a judge that must not give one."""


KNOWN, UNKNOWN = MAY_DECIDE | {TRAINING_REWARD}, "not recorded"


@dataclass(frozen=True)
class WinRate:
    """How often a judge prefers `arm` to `opponent`, ties half.

    Attributes:
        independence: how the judge relates to the training reward.
        estimate: percent of the pairs that were judged.
        ties: percent of those that the judge prefers neither way.
        p: two-sided, belongs to the interval of `estimate`.
        sign_test: exact p-value over prompts, the companion of the interval.
        seeds: the seeds that both have.
        num_pairs: that should have been judged.
        num_missing: of those without a preference.
        adjusted_p: `p` corrected for the number of primary comparisons; None if the comparison is descriptive.
        significance_level: that `adjusted_p` must not exceed.
        wider: how many times wider the multiple-comparison correction makes the interval; 1 if it is descriptive.
        blocked: why no verdict may rest on it; None if one may.
    """

    arm: str
    opponent: str
    judge: JudgeName
    independence: str
    estimate: Estimate
    ties: Estimate
    p: float
    sign_test: float
    seeds: tuple[int, ...]
    num_pairs: int
    num_missing: int
    adjusted_p: float | None = None
    significance_level: float = OF_THE_INTERVAL
    wider: float = 1.0
    blocked: str | None = None

    @property
    def minimum_detectable_effect(self) -> float:
        """True distance from 50 % that is shown with 80 % power, after correction if it is primary; points."""
        return minimum_detectable_effect(self.estimate.standard_error, self.wider)


Comparisons = dict[tuple[str, str, JudgeName], WinRate]


@dataclass(frozen=True)
class OutcomeChange:
    """A yes-or-no outcome of responses, arm against base.

    Attributes:
        ours, base: percent of responses.
        difference: ours minus base, in points.
        num_more, num_less: prompts on which the arm's responses have it more, or less, often than the base's.
        p: McNemar's exact test on those prompts.
    """

    outcome: str
    ours: Estimate
    base: Estimate
    difference: Estimate
    num_more: int
    num_less: int
    p: float


# --------------------------------------------------------------------------------------------------------- preferences
def preferences(ledger: Ledger, arm: str, opponent: str, judge: JudgeName) -> FloatArray | None:
    """What a judge makes of two final models: `[S, P, M]`, or None if it was not asked or they share no seed.

    1 if it prefers the arm, 0 if the opponent, 1/2 if neither, fractions between; NaN if it gave none.
    """
    seeds = ledger.common_seeds(arm, opponent)
    if not seeds:
        return None
    score = ledger.score(judge)
    if score is None:
        return ledger.preferences(judge, arm, opponent) if judge in ledger.judges else None
    if score.role == "training_reward" and ledger.training_reward is None:
        return None
    ours, theirs = (values(ledger, score, name, seeds=seeds) for name in (arm, opponent))
    return pair_scores(theirs, ours) if score.direction == "lower is better" else pair_scores(ours, theirs)


def pair_scores(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """1 if ours is scored higher, 0 if lower, 1/2 if equal. Broadcasts."""
    return (np.sign(ours - theirs) + 1) / 2


# ------------------------------------------------------------------------------------------------------------ win rates
def compare(ledger: Ledger, arm: str, opponent: str, judge: JudgeName, resamples: Resamples) -> WinRate | None:
    """Win rate of the final models, or None if fewer than two prompts have a preference between them."""
    score_SPM = preferences(ledger, arm, opponent, judge)
    tie_SPM = None if score_SPM is None else np.where(np.isnan(score_SPM), np.nan, score_SPM == 0.5)
    rate, ties = (None if values is None else judged_mean(100 * values, resamples) for values in (score_SPM, tie_SPM))
    if score_SPM is None or rate is None or ties is None:
        return None
    answered_P = ~np.isnan(score_SPM).all(axis=(0, 2))
    return WinRate(
        arm=arm,
        opponent=opponent,
        judge=judge,
        independence=judges_of(ledger)[judge].independence,
        estimate=rate[0],
        ties=ties[0],
        p=two_sided_p(rate[1], EVEN),
        sign_test=sign_test(np.nanmean(score_SPM[:, answered_P], axis=(0, 2)) - 0.5),
        seeds=tuple(ledger.common_seeds(arm, opponent)),
        num_pairs=score_SPM.size,
        num_missing=int(np.isnan(score_SPM).sum()),
    )


# ------------------------------------------------------------------------------------------------------------- verdicts
def rules_of(ledger: Ledger) -> WinRateRules:
    """The rules in use.

    Raises:
        LedgerError: they would let a scorer decide that is the training reward, or a judge that was never planned.
    """
    rules = ledger.rules.win_rate
    names = [card.name for card in ledger.scores if card.role != "training_reward"] + ledger.planned_judges
    if rules.primary_judge not in names:
        is_reward = ", which is the training reward and decides nothing" if ledger.score(rules.primary_judge) else ""
        raise LedgerError(
            f"rules.win_rate.primary_judge is {rules.primary_judge!r}{is_reward}; there are {', '.join(names)}"
        )
    return rules


def judges_of(ledger: Ledger) -> dict[JudgeName, JudgeCard]:
    """The scorers, after the asked judge that decides, if one does; others that were asked are reported apart."""
    primary = rules_of(ledger).primary_judge
    if ledger.score(primary):
        return scorers_of(ledger)
    asked = ledger.judges.get(primary)
    return {primary: _card(asked) if asked else JudgeCard("asked, without a result", UNKNOWN), **scorers_of(ledger)}


def _card(judge: AskedJudge) -> JudgeCard:
    return JudgeCard(judges.describe(judge), judge.relation if judge.relation in KNOWN else UNKNOWN)


def compare_all(ledger: Ledger, resamples: Resamples) -> Comparisons:
    """Every contest by every judge, keyed by arm, opponent and judge; the primary ones with adjusted p-values.

    Raises:
        LedgerError: see `rules_of`.
    """
    rules = rules_of(ledger)
    found: Comparisons = {}
    primary = []
    for arm, opponent, contest in ledger.contests:
        for judge in judges_of(ledger):
            rate = compare(ledger, arm, opponent, judge, resamples)
            if rate is None:
                continue
            found[arm, opponent, judge] = replace(
                rate,
                blocked=why_blocked(rate, rules) or _why_no_evidence(ledger, rate, resamples),
                significance_level=rules.significance_level,
            )
            if judge == rules.primary_judge and contest in rules.primary_comparisons:
                primary.append((arm, opponent, judge))
    wider = simultaneous(max(1, len(primary)), rules.significance_level)
    for key, adjusted in zip(primary, holm([found[key].p for key in primary]), strict=True):
        found[key] = replace(found[key], adjusted_p=adjusted, wider=wider)
    return found


def num_resamples(ledger: Ledger) -> int:
    """So many that the smallest possible p-value, 2 / (B + 1), stays under the level when corrected for all arms."""
    rules = rules_of(ledger)
    num_primary = sum(contest in rules.primary_comparisons for *_, contest in ledger.contests)
    return max(NUM_RESAMPLES, math.ceil(2 * num_primary / rules.significance_level))


def why_blocked(rate: WinRate, rules: WinRateRules) -> str | None:
    """Why no verdict may rest on a comparison, whatever its numbers; None if one may."""
    if rate.independence == TRAINING_REWARD:
        return "the judge is the training reward"
    if rate.independence not in MAY_DECIDE:
        return "how the judge relates to the training reward is not recorded"
    missing = 100 * rate.num_missing / rate.num_pairs
    if missing > rules.max_missing_percent:
        return (
            f"{rate.num_missing} of {rate.num_pairs} preferences are missing ({missing:.1f} %; "
            f"at most {rules.max_missing_percent:g} % may be)"
        )
    return None


def _why_no_evidence(ledger: Ledger, rate: WinRate, resamples: Resamples) -> str | None:
    """Why a judge's word does not count: an asked one goes by the order of showing, a lexicon knows no such words."""
    score = ledger.score(rate.judge)
    if score and score.role == "secondary":
        sides = (ledger.array(name, "response").flat for name in (rate.arm, rate.opponent))
        read = (scripts_of(word for text in texts for word in find_words(str(text))) for texts in sides)
        return unfit(ENGLISH, *read) or None
    if score:
        return None
    return judges.contest(ledger, ledger.judges[rate.judge], rate.arm, rate.opponent, resamples).why_not or None


def ahead(rate: WinRate | None) -> str | None:
    """`shown_ahead` if there is a comparison on which a verdict may rest, else None."""
    return None if rate is None or rate.blocked else shown_ahead(rate)


def why_not_ahead(rate: WinRate | None) -> str:
    """Why a comparison whose interval excludes 50 % shows nobody ahead; empty if it does, or does not exclude it."""
    if rate is None:
        return "the judge has given no preferences"
    if rate.blocked:
        return rate.blocked
    if ahead(rate) or not rate.estimate.excludes(EVEN):
        return ""
    if rate.adjusted_p is None:
        return "the comparison was not declared a primary one before training"
    return "clear by itself, not after correction for all primary comparisons"


def shown_ahead(rate: WinRate) -> str | None:
    """The side that a verdict may call better, or None if no difference is shown.

    Better means: the interval excludes 50 % and the p-value, corrected for the number of primary comparisons, is at
    most the registered level. A descriptive comparison, or one with too many preferences missing, shows nothing.

    Raises:
        VerdictError: the judge is the training reward.
    """
    if rate.independence == TRAINING_REWARD:
        raise VerdictError(f"{rate.judge} is the training reward: its win rates are shown and decide nothing")
    if rate.blocked or rate.adjusted_p is None or not rate.estimate.excludes(EVEN):
        return None
    if rate.adjusted_p > rate.significance_level:
        return None
    return rate.arm if rate.estimate.value > EVEN else rate.opponent


# ------------------------------------------------------------------------------------------------- yes-or-no outcomes
def outcome_changes(ledger: Ledger, arm: str, resamples: Resamples) -> list[OutcomeChange]:
    """What a response has or has not, of the final arm against the base's under the same random numbers."""
    ours, base = (
        {
            "cut at the length limit": ledger.array(name, "finish_reason") == "length",
            "empty": np.char.str_len(np.char.strip(ledger.array(name, "response").astype(str))) == 0,
        }
        for name in (arm, BASE)
    )
    return [outcome_change(name, ours[name], base[name], resamples) for name in ours]


def outcome_change(name: str, ours_SPM: BoolArray, base_SPM: BoolArray, resamples: Resamples) -> OutcomeChange:
    """One yes-or-no outcome with McNemar's exact test; see `sign_test` for several samples of a prompt."""
    ours_SP, base_SP = (100 * values.astype(np.float64).mean(axis=2) for values in (ours_SPM, base_SPM))
    change_P = np.round((ours_SP - base_SP).mean(axis=0), 9)  # sums in another order must not look like a difference
    return OutcomeChange(
        outcome=name,
        ours=mean_estimate(ours_SP, resamples, "percent"),
        base=mean_estimate(base_SP, resamples, "percent"),
        difference=mean_estimate(ours_SP - base_SP, resamples, "percent"),
        num_more=int(np.sum(change_P > 0)),
        num_less=int(np.sum(change_P < 0)),
        p=sign_test(change_P),
    )
