"""What the numbers say, in words, by rules that are printed beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.ledger import BASE, Ledger
from analysis.questions.recovery_words import Answer
from analysis.scores import halves_of
from analysis.statistics.bootstrap import (
    MIN_SEEDS_FOR_METHOD,
    Estimate,
    FloatArray,
    Resamples,
    judged_mean,
)
from analysis.statistics.sample_size import seed_share
from analysis.win_rates import (
    EVEN,
    Comparisons,
    Judge,
    WinRate,
    ahead,
    preferences,
    rules_of,
    why_not_ahead,
)

Confidence = Literal["inconclusive", "low", "moderate", "high"]
Verdict = Literal["beats the base", "is not shown to differ from the base", "is worse than the base"]

SELECTION_RULE = (
    "If an algorithm has several arms, one stands for it: that with the highest win rate against the base by the "
    "primary judge on one half of the prompts, in the order of their SHA-256. The result is reported on the other "
    "half, so that the choice cannot flatter the chosen. If more of the judge's verdicts on one of these arms are "
    "missing there than rules.win_rate.max_missing_percent allows, no arm is chosen."
)
AHEAD_RULE = (
    "An arm is said to beat another where the primary judge's interval excludes 50 % and the p-value, corrected by "
    "Holm's method for all primary comparisons, is at most rules.win_rate.significance_level; between the two chosen "
    "arms also on the prompts that had no part in choosing them."
)
CONFIDENCE_RULE = (
    "Inconclusive: neither arm of the head-to-head is ahead by that rule. Low: one is, but there are fewer than three "
    "seeds, or the second judge clearly prefers the other side. Moderate: from three seeds on. High: from as many as "
    "rules.confidence.min_seeds_for_high asks for. Where PPO then DPO is ahead of both, the sentence begins with that, "
    "and the number of seeds alone decides. Where all arms start from one checkpoint, it begins with whether that had "
    "over-optimised: inconclusive where it is not shown, and where it is, the number of seeds alone decides."
)


@dataclass(frozen=True)
class ConfidenceRules:
    """Registered before training, see experiments/rules.py."""

    min_seeds_for_high: int


@dataclass(frozen=True)
class Final:
    """The best PPO arm against the best DPO arm, on prompts that had no part in choosing them.

    Attributes:
        judge, rate: the primary judge, and the percent of pairs in which it prefers PPO.
        ahead: the arm that is better by `AHEAD_RULE`, or None.
        why_not: why none is, where the interval alone would say so.
        second_judge, second: the same by another judge; None where it has no preferences.
        selected: whether there was a choice, and so only half of the prompts is reported on.
        seeds: that both have.
        wider: see `WinRate`, of the comparison of the two on all prompts.
        seed_share: share of the uncertainty that lies between seeds, 0 to 1; None below two seeds.
    """

    ppo: str
    dpo: str
    judge: Judge
    rate: Estimate
    ahead: str | None
    why_not: str
    second_judge: Judge | None
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


def chosen_pair(ledger: Ledger) -> tuple[dict[str, str | None], list[int]]:
    """For "ppo" and "dpo" the arm that stands for it, None if none does; and the prompts to report on.

    Both are on all prompts if there is nothing to choose.
    """
    sides = {name: _of_algorithm(ledger, name) for name in ("ppo", "dpo")}
    everything = list(range(len(ledger.prompt_ids)))
    several = all(sides.values()) and any(len(side) > 1 for side in sides.values())
    chosen_on, reported_on = halves_of(ledger) if several else (everything, everything)
    return {name: choose(ledger, side, chosen_on) if side else None for name, side in sides.items()}, reported_on


def final_comparison(
    ledger: Ledger, compared: Comparisons, resamples: Resamples, rng: np.random.Generator
) -> Final | None:
    """Choose on one half of the prompts, report on the other; on all of them where there is nothing to choose."""
    pair, reported_on = chosen_pair(ledger)
    ppo, dpo = pair["ppo"], pair["dpo"]
    if ppo is None or dpo is None:
        return None
    selected = len(reported_on) < len(ledger.prompt_ids)
    if selected:
        resamples = Resamples.draw(rng, len(reported_on), max(resamples.seeds))

    def scores(judge: Judge) -> FloatArray | None:
        score_SPM = preferences(ledger, ppo, dpo, judge)
        return None if score_SPM is None else score_SPM[:, reported_on]

    judge = rules_of(ledger).primary_judge
    score_SPM, rate = scores(judge), rate_of(scores(judge), resamples)
    if score_SPM is None or rate is None:
        return None
    on_all_prompts = compared.get((ppo, dpo, judge))
    leader, why_not = leads(ppo, dpo, rate, on_all_prompts)
    second = second_judge(ledger)
    return Final(
        ppo=ppo,
        dpo=dpo,
        judge=judge,
        rate=rate,
        ahead=leader,
        why_not=why_not,
        second_judge=second,
        second=rate_of(scores(second), resamples) if second else None,
        selected=selected,
        seeds=tuple(ledger.common_seeds(ppo, dpo)),
        wider=on_all_prompts.wider if on_all_prompts else 1.0,
        seed_share=_seed_share(score_SPM),
    )


def rate_of(score_SPM: FloatArray | None, resamples: Resamples) -> Estimate | None:
    """Percent of pairs won, or None where fewer than two prompts have a preference."""
    found = None if score_SPM is None else judged_mean(100 * score_SPM, resamples)
    return found[0] if found else None


def leads(ppo: str, dpo: str, rate: Estimate, on_all_prompts: WinRate | None) -> tuple[str | None, str]:
    """Who is ahead by `AHEAD_RULE`, or nobody and why, see `Final`."""
    if not rate.excludes(EVEN):
        return None, ""
    side = ppo if rate.value > EVEN else dpo
    if ahead(on_all_prompts) == side:
        return side, ""
    return None, why_not_ahead(on_all_prompts) or "not shown on all prompts together"


def second_judge(ledger: Ledger) -> Judge | None:
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
    way_back: Answer | None = None,
) -> Decision:
    """The headline and its confidence.

    Args:
        ledger: of one sweep.
        compared: of `win_rate.compare_all`.
        resamples: of the report.
        rng: for resamples of the half that is reported on.
        way_back: of `recovery_answer.answer`: where there is one, it is what the sweep is about.
    """
    judge = rules_of(ledger).primary_judge
    verdicts = {arm: verdict(compared.get((arm, BASE, judge))) for arm in ledger.arms}
    final = final_comparison(ledger, compared, resamples, rng)
    num_seeds = len(final.seeds) if final else min(len(ledger.seeds(arm)) for arm in ledger.arms)
    rules = ledger.rules("confidence", ConfidenceRules)
    sure: Confidence = confidence(final, rules) if final else "inconclusive"
    staged, leads_both = best_staged(ledger), False
    parts = [_final_words(final) if final else _no_final_words(ledger, judge)]
    if final and staged:
        leads_both = {staged} == set(_staged_ahead(staged, final, compared))
        parts.append(_staged_words(staged, final, compared))
        if leads_both:
            parts = [parts[1], parts[0].replace("Neither", "neither")]
            sure = confidence_by_seeds(num_seeds, rules)
    elif final and _of_algorithm(ledger, "ppo_then_dpo"):
        parts.append(_unchosen_words(judge, ["PPO then DPO"]))
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


def _of_algorithm(ledger: Ledger, algorithm: str) -> list[str]:
    return [arm for arm in ledger.arms if ledger.algorithm(arm) == algorithm]


def _unchosen_words(judge: Judge, algorithms: Sequence[str]) -> str:
    return f"{judge} has given too few verdicts against the base to choose one of the {' and '.join(algorithms)} arms"


def best_staged(ledger: Ledger) -> str | None:
    """The arm of PPO then DPO that stands for it, chosen on all prompts."""
    arms = _of_algorithm(ledger, "ppo_then_dpo")
    return choose(ledger, arms, range(len(ledger.prompt_ids))) if arms else None


def _staged_ahead(staged: str, final: Final, compared: Comparisons) -> tuple[str | None, str | None]:
    """Who is ahead, on all prompts, between the staged arm and PPO's, and between it and DPO's."""
    ppo, dpo = (ahead(compared.get((staged, arm, final.judge))) for arm in (final.ppo, final.dpo))
    return ppo, dpo


def _staged_words(staged: str, final: Final, compared: Comparisons) -> str:
    found: dict[str, list[str]] = {}  # what it does -> to whom
    reasons = []
    for arm, leader in zip((final.ppo, final.dpo), _staged_ahead(staged, final, compared), strict=True):
        word = {staged: "beats", arm: "loses to"}.get(str(leader), "is not shown to differ from")
        rate = compared.get((staged, arm, final.judge))
        found.setdefault(word, []).append(f"{arm} ({_percent(rate.estimate)} of pairs)" if rate else arm)
        reasons.append(why_not_ahead(rate))
    words = " and ".join(f"{word} {' and '.join(whom)}" for word, whom in found.items())
    why_not = ", and ".join(dict.fromkeys(filter(None, reasons)))
    return f"PPO then DPO ({staged}) {words}" + (f": {why_not}" if why_not else "")


def _no_final_words(ledger: Ledger, judge: Judge) -> str:
    absent = [name for name in ("ppo", "dpo") if not any(ledger.algorithm(arm) == name for arm in ledger.arms)]
    if absent:
        planned = {arm["algorithm"] for arm in ledger.plan["arms"]}
        why = f"no {absent[0].upper()} arm {'has finished' if absent[0] in planned else 'was planned'}"
    elif not ledger.score(judge) and judge not in ledger.judges:
        why = f"the judge that decides, {judge}, has given no result"
    elif unchosen := [name.upper() for name, arm in chosen_pair(ledger)[0].items() if arm is None]:
        why = _unchosen_words(judge, unchosen)
    else:
        why = f"their best arms share no finished seed that {judge} has judged"
    return f"PPO and DPO cannot be compared, because {why}"


def _final_words(final: Final) -> str:
    rate, by = final.rate, f"of pairs by {final.judge}"
    if final.ahead is None:
        neither = f"Neither PPO ({final.ppo}) nor DPO ({final.dpo}) is shown to be better"
        return f"{neither}: PPO wins {_percent(rate)} {by}, where 50 is even" + (
            f" ({final.why_not})" if final.why_not else ""
        )
    if final.ahead == final.ppo:
        return f"PPO ({final.ppo}) beats DPO ({final.dpo}): it wins {_percent(rate)} {by}"
    seen_from_dpo = replace(rate, value=100 - rate.value, low=100 - rate.high, high=100 - rate.low)
    return f"DPO ({final.dpo}) beats PPO ({final.ppo}): it wins {_percent(seen_from_dpo)} {by}"


def _percent(rate: Estimate) -> str:
    return f"{rate.value:.0f} % [95 % interval {rate.low:.0f} to {rate.high:.0f}]"


def _base_words(verdicts: dict[str, Verdict]) -> str:
    if len(verdicts) == 1:
        return " ".join((*verdicts, *verdicts.values()))
    better = [arm for arm, word in verdicts.items() if word == "beats the base"]
    worse = [arm for arm, word in verdicts.items() if word == "is worse than the base"]
    words = f"{len(better) or 'none'} of {len(verdicts)} arms beat{'s' if len(better) == 1 else ''} the base"
    return f"{words}, and {', '.join(worse)} fell below it" if worse else words
