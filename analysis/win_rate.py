"""Who is preferred: each arm against the base, each PPO arm against each DPO arm; same prompts, same random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.load import BASE, Ledger
from analysis.statistics import Estimate, FloatArray, Resamples, mean_estimate, sign_test

Judge = Literal["gold", "vader", "proxy"]
JUDGES: dict[Judge, str] = {
    "gold": "drives the verdicts; it ranked the training pairs of every arm and is no arm's training reward",
    "vader": "second judge, a sentiment lexicon that no training saw",
    "proxy": "is the training reward of PPO: shown, never drives a verdict",
}
EVEN = 50.0  # percent: no preference


@dataclass(frozen=True)
class WinRate:
    """How often a judge prefers `arm` to `opponent`, ties half.

    Attributes:
        estimate: percent of pairs.
        ties: percent of pairs that the judge scores equally.
        sign_test: exact p-value over prompts, the companion of the interval.
        seeds: the seeds that both have.
    """

    arm: str
    opponent: str
    judge: Judge
    estimate: Estimate
    ties: Estimate
    sign_test: float
    seeds: tuple[int, ...]


def pair_scores(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """1 where ours is scored higher, 0 where lower, 1/2 where equal. Broadcasts."""
    return (np.sign(ours - theirs) + 1) / 2


def win_rate(ours_SPM: FloatArray, theirs_SPM: FloatArray, resamples: Resamples) -> Estimate:
    """Percent of pairs won, ties half: mean over a prompt's samples first, because the prompt is the unit."""
    return mean_estimate(100 * pair_scores(ours_SPM, theirs_SPM).mean(axis=2), resamples, "percent")


def compare(ledger: Ledger, arm: str, opponent: str, judge: Judge, resamples: Resamples) -> WinRate | None:
    """Win rate of the final models, or None where the judge has no scores or the two share no finished seed."""
    seeds = common_seeds(ledger, arm, opponent)
    if not seeds or not ledger.has(judge):
        return None
    ours, theirs = (ledger.numbers(name, judge, seeds=seeds) for name in (arm, opponent))
    ties = mean_estimate(100 * (ours == theirs).mean(axis=2), resamples, "percent")
    per_prompt = pair_scores(ours, theirs).mean(axis=(0, 2))
    return WinRate(
        arm, opponent, judge, win_rate(ours, theirs, resamples), ties, sign_test(per_prompt - 0.5), tuple(seeds)
    )


def head_to_head(ledger: Ledger, judge: Judge, resamples: Resamples) -> Iterator[WinRate]:
    """Each PPO arm against each DPO arm."""
    for ppo in (arm for arm in ledger.arms if ledger.algorithm(arm) == "ppo"):
        for dpo in (arm for arm in ledger.arms if ledger.algorithm(arm) == "dpo"):
            result = compare(ledger, ppo, dpo, judge, resamples)
            if result is not None:
                yield result


def gold_difference(ledger: Ledger, arm: str, resamples: Resamples) -> Estimate:
    """Mean gold of the final arm minus the base's, paired by prompt and sample, in gold points (0 to 100)."""
    gold = ledger.numbers(arm, "gold") - ledger.numbers(BASE, "gold")
    return mean_estimate(100 * gold.mean(axis=2), resamples, "gold points")


def mean_gold(ledger: Ledger, arm: str, resamples: Resamples, point: int | None = None) -> Estimate:
    """Mean gold in gold points (0 to 100)."""
    return mean_estimate(100 * ledger.numbers(arm, "gold", point).mean(axis=2), resamples, "gold points")


def common_seeds(ledger: Ledger, arm: str, opponent: str) -> list[int]:
    """Seeds that both have finished; the base goes with every seed."""
    if opponent == BASE:
        return ledger.seeds(arm)
    return sorted(set(ledger.seeds(arm)) & set(ledger.seeds(opponent)))
