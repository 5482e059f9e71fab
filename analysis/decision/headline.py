"""What the numbers say, in words, by rules that are printed beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.ledger import BASE, Ledger
from analysis.questions.recovery_words import WayBack
from analysis.scores import halves_of
from analysis.statistics.bootstrap import MIN_SEEDS_FOR_METHOD, Estimate, FloatArray, Resamples, judged_mean
from analysis.statistics.sample_size import seed_share
from analysis.win_rates import EVEN, Comparisons, JudgeName, WinRate, ahead, preferences, rules_of, why_not_ahead
from experiments.rules import ConfidenceRules

Confidence = Literal["inconclusive", "low", "moderate", "high"]
Verdict = Literal["beats the base", "is not shown to differ from the base", "is worse than the base"]

SELECTION_RULE = (
    "If an algorithm has several arms, one stands for it: that with the highest win rate against the base by the "
    "primary judge on one half of the prompts, in the order of their SHA-256. The result is reported on the other "
    "half, so that the choice cannot flatter the chosen. If more of the judge's verdicts on one of these arms are "
    "missing there than rules.win_rate.max_missing_percent allows, no arm is chosen."
)
AHEAD_RULE = (
    "An arm is said to beat another if the primary judge's interval excludes 50 % and the p-value, corrected by "
    "Holm's method for all primary comparisons, is at most rules.win_rate.significance_level; between the two chosen "
    "arms also on the prompts that had no part in choosing them."
)
CONFIDENCE_RULE = (
    "Inconclusive: neither arm of the head-to-head is ahead by that rule. Low: one is, but there are fewer than three "
    "seeds, or the second judge clearly prefers the other side. Moderate: from three seeds on. High: from as many as "
    "rules.confidence.min_seeds_for_high asks for. If an arm that starts from another's checkpoint is ahead of both, "
    "the sentence begins with that, and the number of seeds alone decides. If all arms start from one checkpoint, it "
    "begins with whether that had over-optimised. If that is not shown, it is inconclusive; else the number of seeds "
    "alone decides."
)


@dataclass(frozen=True)
class Final:
    """The best arms of two algorithms against each other, on prompts that had no part in choosing them.

    Attributes:
        arm, opponent: the two, and arm_label, opponent_label: how their algorithms are called.
        judge, rate: the primary judge, and the percent of pairs in which it prefers `arm`.
        ahead: the arm that is better by `AHEAD_RULE`, or None.
        why_not: why none is, if the interval alone would say so.
        second_judge, second: the same by another judge; None if it has no preferences.
        selected: whether there was a choice, and so only half of the prompts is reported on.
        seeds: that both have.
        wider: see `WinRate`, of the comparison of the two on all prompts.
        seed_share: share of the uncertainty that lies between seeds, 0 to 1; None below two seeds.
    """

    arm: str
    opponent: str
    arm_label: str
    opponent_label: str
    judge: JudgeName
    rate: Estimate
    ahead: str | None
    why_not: str
    second_judge: JudgeName | None
    second: Estimate | None
    selected: bool
    seeds: tuple[int, ...]
    wider: float = 1.0
    seed_share: float | None = None


@dataclass(frozen=True)
class Decision:
    """The sentence on top of the report.

    Attributes:
        headline, scope: in words.
        confidence: of what the headline begins with, see `CONFIDENCE_RULE`.
        final: the head-to-head.
        staged: the arm of PPO then DPO that is better than both of its arms by `AHEAD_RULE`, if there is one.
        remark: what stands below the headline, or "".
    """

    headline: str
    confidence: Confidence
    scope: str
    final: Final | None
    staged: str | None
    remark: str


def verdict(rate: WinRate | None) -> Verdict:
    """One arm against the base by the primary judge, see `AHEAD_RULE`."""
    words: dict[str | None, Verdict] = {None: "is not shown to differ from the base", BASE: "is worse than the base"}
    return words.get(ahead(rate), "beats the base")


def choose(ledger: Ledger, arms: Sequence[str], prompts: Sequence[int]) -> str | None:
    """The arm with the highest win rate against the base on these prompts, by the primary judge.

    The first of the plan if several have the same; None if too many verdicts on one of them are missing.
    """
    if len(arms) == 1:
        return arms[0]
    rules = rules_of(ledger)
    rates = []
    for arm in arms:
        score_SPM = preferences(ledger, arm, BASE, rules.primary_judge)
        shown = np.array([]) if score_SPM is None else score_SPM[:, list(prompts)]
        missing = np.isnan(shown)
        if missing.all() or 100 * missing.mean() > rules.max_missing_percent:
            return None
        rates.append(float(np.nanmean(shown[~missing.all(axis=2)], axis=1).mean()))  # as `judged_mean` weighs them
    return arms[int(np.argmax(rates))]


def chosen_pair(ledger: Ledger) -> tuple[tuple[str | None, str | None], list[int]]:
    """The arm that stands for each side of the sweep's question, None if none does; and the prompts to report on.

    Both are on all prompts if there is nothing to choose.
    """
    pairs, everything = sides_of(ledger), list(range(len(ledger.prompt_ids)))
    if not pairs:
        return (None, None), everything
    chosen_on, reported_on = halves_of(ledger) if len(pairs) > 1 else (everything, everything)
    arm = choose(ledger, list(dict.fromkeys(one for one, _ in pairs)), chosen_on)
    others = [other for one, other in pairs if one == (arm or pairs[0][0])]
    return (arm, choose(ledger, others, chosen_on)), reported_on


def final_comparison(
    ledger: Ledger, compared: Comparisons, resamples: Resamples, rng: np.random.Generator
) -> Final | None:
    """Choose on one half of the prompts, report on the other; on all of them if there is nothing to choose."""
    (arm, opponent), reported_on = chosen_pair(ledger)
    if arm is None or opponent is None:
        return None
    selected = len(reported_on) < len(ledger.prompt_ids)
    if selected:
        resamples = Resamples.draw(rng, len(reported_on), max(resamples.seeds))

    def scores(judge: JudgeName) -> FloatArray | None:
        score_SPM = preferences(ledger, arm, opponent, judge)
        return None if score_SPM is None else score_SPM[:, reported_on]

    judge = rules_of(ledger).primary_judge
    score_SPM, rate = scores(judge), rate_of(scores(judge), resamples)
    if score_SPM is None or rate is None:
        return None
    on_all_prompts = compared.get((arm, opponent, judge))
    leader, why_not = leads(arm, opponent, rate, on_all_prompts)
    second = second_judge(ledger)
    return Final(
        arm=arm,
        opponent=opponent,
        arm_label=ledger.label(ledger.algorithm(arm)),
        opponent_label=ledger.label(ledger.algorithm(opponent)),
        judge=judge,
        rate=rate,
        ahead=leader,
        why_not=why_not,
        second_judge=second,
        second=rate_of(scores(second), resamples) if second else None,
        selected=selected,
        seeds=tuple(ledger.common_seeds(arm, opponent)),
        wider=on_all_prompts.wider if on_all_prompts else 1.0,
        seed_share=_seed_share(score_SPM),
    )


def sides_of(ledger: Ledger) -> list[tuple[str, str]]:
    """The contests of the sweep's question: between the two algorithms from the base that it compares first."""
    pairs = ledger.between_plain_arms()
    asked = [(ledger.algorithm(arm), ledger.algorithm(opponent)) for arm, opponent in pairs]
    first = _planned_sides(ledger)
    return [pair for pair, names in zip(pairs, asked, strict=True) if names == first]


def _planned_sides(ledger: Ledger) -> tuple[str, ...]:
    """The algorithms of the first contest that the sweep has planned between arms trained from the base."""
    of = {arm["arm"]: arm["algorithm"] for arm in ledger.plan["arms"]}
    for item in ledger.plan["contests"]:
        names = tuple(of[item[side]] for side in ("arm", "opponent") if item[side] in of)
        if len(names) > 1 and not any(ledger.described(name).get("staged") for name in names):
            return names
    return ()


def _one_sided(ledger: Ledger) -> str:
    """The sweep compares no two algorithms that start from the base."""
    planned = {arm["algorithm"] for arm in ledger.plan["arms"]}
    absent = [name for name in ("ppo", "dpo") if name not in planned]
    why = f"no {absent[0].upper()} arm was planned" if absent else "the sweep declares no such contest"
    return f"PPO and DPO cannot be compared, because {why}"


def rate_of(score_SPM: FloatArray | None, resamples: Resamples) -> Estimate | None:
    """Percent of pairs won, or None if fewer than two prompts have a preference."""
    found = None if score_SPM is None else judged_mean(100 * score_SPM, resamples)
    return found[0] if found else None


def leads(arm: str, opponent: str, rate: Estimate, on_all_prompts: WinRate | None) -> tuple[str | None, str]:
    """Who is ahead by `AHEAD_RULE`, or nobody and why, see `Final`."""
    if not rate.excludes(EVEN):
        return None, ""
    side = arm if rate.value > EVEN else opponent
    if ahead(on_all_prompts) == side:
        return side, ""
    return None, why_not_ahead(on_all_prompts) or "not shown on all prompts together"


def second_judge(ledger: Ledger) -> JudgeName | None:
    """The first score that neither decides nor is the training reward; None if there is none."""
    primary = rules_of(ledger).primary_judge
    return next((card.name for card in ledger.scores if card.name != primary and card.role != "training_reward"), None)


def _seed_share(score_SPM: FloatArray) -> float | None:
    """Over the prompts that every seed has a preference on."""
    judged_P = ~np.isnan(score_SPM).all(axis=2).any(axis=0)
    return seed_share(np.nanmean(score_SPM[:, judged_P], axis=2))


def confidence(final: Final, rules: ConfidenceRules) -> Confidence:
    """See `CONFIDENCE_RULE`."""
    if final.ahead is None:
        return "inconclusive"
    second = final.second
    contradicted = second is not None and second.excludes(EVEN) and (second.value > EVEN) != (final.rate.value > EVEN)
    return "low" if contradicted else confidence_by_seeds(len(final.seeds), rules)


def confidence_by_seeds(num_seeds: int, rules: ConfidenceRules) -> Confidence:
    """How sure a result can be that so many seeds agree to."""
    if num_seeds < MIN_SEEDS_FOR_METHOD:
        return "low"
    return "high" if num_seeds >= rules.min_seeds_for_high else "moderate"


def scope(num_seeds: int) -> str:
    """What the result is about."""
    if num_seeds < MIN_SEEDS_FOR_METHOD:
        have = "one seed" if num_seeds == 1 else f"{num_seeds} seeds"
        return f"{have} an arm, so this speaks of these checkpoints, not of the methods"
    return f"{num_seeds} seeds an arm, so this speaks of the methods under these settings"


def decide(
    ledger: Ledger,
    compared: Comparisons,
    resamples: Resamples,
    rng: np.random.Generator,
    way_back: WayBack | None = None,
) -> Decision:
    """The headline and its confidence.

    Args:
        ledger: of one sweep.
        compared: of `win_rate.compare_all`.
        resamples: of the report.
        rng: for resamples of the half that is reported on.
        way_back: of `recovery_words.answer`: if there is one, the sweep is about it.
    """
    judge = rules_of(ledger).primary_judge
    verdicts = {arm: verdict(compared.get((arm, BASE, judge))) for arm in ledger.arms}
    final = final_comparison(ledger, compared, resamples, rng)
    num_seeds = len(final.seeds) if final else min(len(ledger.seeds(arm)) for arm in ledger.arms)
    rules = ledger.rules.confidence
    sure: Confidence = confidence(final, rules) if final else "inconclusive"
    staged, leads_both = best_staged(ledger), False
    parts = [_final_words(final) if final else _no_final_words(ledger, judge)]
    if final and staged:
        leads_both = {staged} == set(_staged_ahead(staged, final, compared))
        parts.append(_staged_words(ledger, staged, final, compared))
        if leads_both:
            parts = [parts[1], parts[0].replace("Neither", "neither")]
            sure = confidence_by_seeds(num_seeds, rules)
    elif final and (arms := _staged_arms(ledger)):
        parts.append(_unchosen_words(judge, [ledger.label(ledger.algorithm(arms[0]))]))
    if way_back:
        parts = [way_back.words]
        sure = confidence_by_seeds(num_seeds, rules) if way_back.over_optimised else "inconclusive"
    parts.append(_base_words(verdicts))
    if ledger.missing:
        parts.append(f"{len(ledger.missing)} planned run{'s are' if len(ledger.missing) > 1 else ' is'} missing")
    words = sure if sure == "inconclusive" else f"{sure} confidence"
    headline = f"{'; '.join(parts)} ({words}: {scope(num_seeds)})."
    return Decision(
        headline, sure, scope(num_seeds), final, staged if leads_both else None, way_back.remark if way_back else ""
    )


def _staged_arms(ledger: Ledger) -> list[str]:
    """Those that meet arms from the base."""
    return list(dict.fromkeys(item.arm for item in ledger.contests if item.kind == "staged_against_plain"))


def _unchosen_words(judge: JudgeName, algorithms: Sequence[str]) -> str:
    return f"{judge} has given too few verdicts against the base to choose one of the {' and '.join(algorithms)} arms"


def best_staged(ledger: Ledger) -> str | None:
    """The staged arm that meets others and stands for its kind, chosen on all prompts."""
    arms = _staged_arms(ledger)
    return choose(ledger, arms, range(len(ledger.prompt_ids))) if arms else None


def _staged_ahead(staged: str, final: Final, compared: Comparisons) -> tuple[str | None, str | None]:
    """Who is ahead, on all prompts, between the staged arm and either side of the head-to-head."""
    one, two = (ahead(compared.get((staged, arm, final.judge))) for arm in (final.arm, final.opponent))
    return one, two


def _staged_words(ledger: Ledger, staged: str, final: Final, compared: Comparisons) -> str:
    found: dict[str, list[str]] = {}  # what it does -> to whom
    reasons = []
    for arm, leader in zip((final.arm, final.opponent), _staged_ahead(staged, final, compared), strict=True):
        word = {staged: "beats", arm: "loses to"}.get(str(leader), "is not shown to differ from")
        rate = compared.get((staged, arm, final.judge))
        found.setdefault(word, []).append(f"{arm} ({_percent(rate.estimate)} of pairs)" if rate else arm)
        reasons.append(why_not_ahead(rate))
    words = " and ".join(f"{word} {' and '.join(whom)}" for word, whom in found.items())
    why_not = ", and ".join(dict.fromkeys(filter(None, reasons)))
    return f"{ledger.label(ledger.algorithm(staged))} ({staged}) {words}" + (f": {why_not}" if why_not else "")


def _no_final_words(ledger: Ledger, judge: JudgeName) -> str:
    sides = _planned_sides(ledger)
    finished = {ledger.algorithm(arm) for arm in ledger.arms}
    absent = [ledger.label(name) for name in sides if name not in finished]
    names = [ledger.label(name) for name in sides]
    if len(sides) < 2:
        return _one_sided(ledger)
    if absent:
        why = f"no {absent[0]} arm has finished"
    elif not ledger.score(judge) and judge not in ledger.judges:
        why = f"the judge that decides, {judge}, has given no result"
    elif unchosen := [name for name, arm in zip(names, chosen_pair(ledger)[0], strict=True) if arm is None]:
        why = _unchosen_words(judge, unchosen)
    else:
        why = f"their best arms share no finished seed that {judge} has judged"
    return f"{' and '.join(names)} cannot be compared, because {why}"


def _final_words(final: Final) -> str:
    rate, by = final.rate, f"of pairs by {final.judge}"
    one, two = f"{final.arm_label} ({final.arm})", f"{final.opponent_label} ({final.opponent})"
    if final.ahead is None:
        neither = f"Neither {one} nor {two} is shown to be better"
        return f"{neither}: {final.arm_label} wins {_percent(rate)} {by}, where 50 is even" + (
            f" ({final.why_not})" if final.why_not else ""
        )
    if final.ahead == final.arm:
        return f"{one} beats {two}: it wins {_percent(rate)} {by}"
    seen_from_the_other = replace(rate, value=100 - rate.value, low=100 - rate.high, high=100 - rate.low)
    return f"{two} beats {one}: it wins {_percent(seen_from_the_other)} {by}"


def _percent(rate: Estimate) -> str:
    return f"{rate.value:.0f} % [95 % interval {rate.low:.0f} to {rate.high:.0f}]"


def _base_words(verdicts: dict[str, Verdict]) -> str:
    if len(verdicts) == 1:
        return " ".join((*verdicts, *verdicts.values()))
    better = [arm for arm, word in verdicts.items() if word == "beats the base"]
    worse = [arm for arm, word in verdicts.items() if word == "is worse than the base"]
    words = f"{len(better) or 'none'} of {len(verdicts)} arms beat{'s' if len(better) == 1 else ''} the base"
    return f"{words}, and {', '.join(worse)} fell below it" if worse else words
