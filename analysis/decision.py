"""What the numbers say, in words, by rules that are printed beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.load import Ledger
from analysis.next_runs import seed_share
from analysis.statistics import MIN_SEEDS_FOR_METHOD, Estimate, FloatArray, Resamples, split_halves
from analysis.win_rate import EVEN, Judge, common_seeds, gold_difference, pair_scores, win_rate

Confidence = Literal["inconclusive", "low", "moderate", "high"]

SELECTION_RULE = (
    "Where an algorithm has several arms, the one with the highest mean gold on one half of the prompts (in the order "
    "of their SHA-256) stands for it, and the result is reported on the other half, so that the choice cannot flatter "
    "the chosen."
)
CONFIDENCE_RULE = (
    "Inconclusive: the interval of the head-to-head win rate contains 50 %. Low: it does not, but there are fewer "
    "than three seeds, or the second judge clearly prefers the other side. Moderate: from three seeds on. High: from "
    "as many as rules.confidence.min_seeds_for_high asks for."
)


@dataclass(frozen=True)
class ConfidenceRules:
    """Registered before training, see experiments/rules.py."""

    min_seeds_for_high: int


@dataclass(frozen=True)
class Verdict:
    """One arm against the base, by the interval of its paired gold difference."""

    word: Literal["beats the base", "does not differ from the base", "is worse than the base"]
    gold_difference: Estimate


@dataclass(frozen=True)
class Final:
    """The best PPO arm against the best DPO arm, on prompts that had no part in choosing them.

    Attributes:
        gold, vader: percent of pairs in which the judge prefers PPO.
        selected: whether there was a choice, and so only half of the prompts is reported on.
        seeds: that both have.
        seed_share: share of the uncertainty that lies between seeds, 0 to 1; None below two seeds.
    """

    ppo: str
    dpo: str
    gold: Estimate
    vader: Estimate
    selected: bool
    seeds: tuple[int, ...]
    seed_share: float | None = None


@dataclass(frozen=True)
class Decision:
    """The sentence on top of the report."""

    headline: str
    confidence: Confidence
    scope: str
    final: Final | None


def verdict(difference: Estimate) -> Verdict:
    """Beats, is worse, or does not differ: whether the interval excludes zero."""
    if not difference.excludes(0):
        return Verdict("does not differ from the base", difference)
    return Verdict("beats the base" if difference.value > 0 else "is worse than the base", difference)


def choose(ledger: Ledger, arms: Sequence[str], prompts: Sequence[int]) -> str:
    """The arm with the highest final mean gold on these prompts; the first of the plan where equal."""
    return max(arms, key=lambda arm: float(np.mean(ledger.numbers(arm, "gold")[:, list(prompts)])))


def final_comparison(ledger: Ledger, resamples: Resamples, rng: np.random.Generator) -> Final | None:
    """Choose on one half of the prompts, report on the other; on all of them where there is nothing to choose."""
    sides = [[arm for arm in ledger.arms if ledger.algorithm(arm) == name] for name in ("ppo", "dpo")]
    if not all(sides):
        return None
    prompt_ids = ledger.prompt_ids
    selected = any(len(side) > 1 for side in sides)
    chosen_on, reported_on = list(range(len(prompt_ids))), list(range(len(prompt_ids)))
    if selected:
        chosen_on, reported_on = split_halves([hashlib.sha256(name.encode()).hexdigest() for name in prompt_ids])
        resamples = Resamples.draw(rng, len(reported_on), max(resamples.seeds))
    ppo, dpo = (choose(ledger, side, chosen_on) for side in sides)
    seeds = common_seeds(ledger, ppo, dpo)
    if not seeds:
        return None

    def scores(judge: Judge) -> tuple[FloatArray, FloatArray]:
        ours, theirs = (ledger.numbers(arm, judge, seeds=seeds)[:, reported_on] for arm in (ppo, dpo))
        return ours, theirs

    share = seed_share(pair_scores(*scores("gold")).mean(axis=2))
    gold, vader = win_rate(*scores("gold"), resamples), win_rate(*scores("vader"), resamples)
    return Final(ppo, dpo, gold, vader, selected, tuple(seeds), share)


def confidence(final: Final, rules: ConfidenceRules) -> Confidence:
    """See `CONFIDENCE_RULE`."""
    if not final.gold.excludes(EVEN):
        return "inconclusive"
    contradicted = final.vader.excludes(EVEN) and (final.vader.value > EVEN) != (final.gold.value > EVEN)
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


def decide(ledger: Ledger, resamples: Resamples, rng: np.random.Generator) -> Decision:
    """The headline and its confidence."""
    verdicts = {arm: verdict(gold_difference(ledger, arm, resamples)) for arm in ledger.arms}
    final = final_comparison(ledger, resamples, rng)
    num_seeds = len(final.seeds) if final else min(len(ledger.seeds(arm)) for arm in ledger.arms)
    rules = ledger.rules("confidence", ConfidenceRules)
    sure: Confidence = confidence(final, rules) if final else "inconclusive"
    parts = [_final_words(ledger, final), _base_words(verdicts)]
    if ledger.missing:
        parts.append(f"{len(ledger.missing)} planned run{'s are' if len(ledger.missing) > 1 else ' is'} missing")
    headline = (
        "; ".join(parts)
        + f" ({'inconclusive' if sure == 'inconclusive' else sure + ' confidence'}: {scope(num_seeds)})."
    )
    return Decision(headline, sure, scope(num_seeds), final)


def _final_words(ledger: Ledger, final: Final | None) -> str:
    if final is None:
        absent = [name for name in ("ppo", "dpo") if not any(ledger.algorithm(arm) == name for arm in ledger.arms)]
        planned = {arm["algorithm"] for arm in ledger.plan["arms"]}
        why = "their best arms share no finished seed"
        if absent:
            name = absent[0]
            why = f"no {name.upper()} arm has finished" if name in planned else f"no {name.upper()} arm was planned"
        return f"PPO and DPO cannot be compared, because {why}"
    rate = final.gold
    if not rate.excludes(EVEN):
        neither = f"Neither PPO ({final.ppo}) nor DPO ({final.dpo}) is shown to be better"
        return f"{neither}: PPO wins {_percent(rate)} of pairs by gold"
    if rate.value > EVEN:
        return f"PPO ({final.ppo}) beats DPO ({final.dpo}): it wins {_percent(rate)} of pairs by gold"
    seen_from_dpo = replace(rate, value=100 - rate.value, low=100 - rate.high, high=100 - rate.low)
    return f"DPO ({final.dpo}) beats PPO ({final.ppo}): it wins {_percent(seen_from_dpo)} of pairs by gold"


def _percent(rate: Estimate) -> str:
    return f"{rate.value:.0f} % [95 % interval {rate.low:.0f} to {rate.high:.0f}]"


def _base_words(verdicts: dict[str, Verdict]) -> str:
    if len(verdicts) == 1:
        return " ".join((*verdicts, *(item.word for item in verdicts.values())))
    better = [arm for arm, item in verdicts.items() if item.word == "beats the base"]
    worse = [arm for arm, item in verdicts.items() if item.word == "is worse than the base"]
    words = f"{len(better) or 'none'} of {len(verdicts)} arms beat{'s' if len(better) == 1 else ''} the base"
    return f"{words}, and {', '.join(worse)} fell below it" if worse else words
