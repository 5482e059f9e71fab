"""The scores of the samples: what a card's column holds, and every number that is made of it alone.

The only file that knows a column of a score. Others ask `ledger.measure`, `ledger.training_reward` or
`ledger.score(name)` for a card, and this file for its numbers.

Scale: a measure lies between 0 and 1, and a difference of it is told in points, hundredths of that. One base SD is the
standard deviation over prompts of the base's mean score per prompt, so that arms, tasks and scores can be compared.
Higher is better in the measure and in the training reward; a secondary score's card names its direction.

Shapes: S seeds, C evaluation points (the base first), P prompts, M samples of a prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.ledger import BASE, STREAM, Ledger, LedgerError
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, mean_estimate, ratio_estimate, split_halves
from experiments.records import SCORE_PREFIX, ScoreCard

POINTS = 100.0  # in the whole scale of a measure


# -------------------------------------------------------------------------------------------------------------- columns
def values(
    ledger: Ledger,
    score: ScoreCard,
    arm: str,
    point: int | None = None,
    stream: int = STREAM,
    seeds: Sequence[int] | None = None,
) -> FloatArray:
    """A score of every response as it was recorded, `[S, P, M]`; the arguments are those of `Ledger.array`."""
    return ledger.numbers(arm, SCORE_PREFIX + score.name, point, stream, seeds)


def values_of(rows: pd.DataFrame, score: ScoreCard) -> FloatArray:
    """A score of some rows of samples, `[rows]`."""
    return rows[SCORE_PREFIX + score.name].to_numpy(np.float64)


def curve(ledger: Ledger, score: ScoreCard, arm: str) -> FloatArray:
    """Mean of a score over samples at every evaluation point, `[S, C, P]`."""
    return ledger.curve(arm, SCORE_PREFIX + score.name)


# ----------------------------------------------------------------------------------------------------- against the base
def base_sd(ledger: Ledger, score: ScoreCard | None = None) -> float:
    """SD over prompts of the base's mean score per prompt; the unit "base SD". Of the measure if no score is given.

    Raises:
        LedgerError: the base scores the same on every prompt, so that there is no such unit.
    """
    score = score or ledger.measure
    spread = float(np.std(values(ledger, score, BASE).mean(axis=2)[0], ddof=1))
    if spread == 0:
        raise LedgerError(f"the base has the same {score.name} score on every prompt, so nothing can be measured by it")
    return spread


def above_base(ledger: Ledger, score: ScoreCard, arm: str, point: int | None = None) -> FloatArray:
    """Every response's score above the base's mean, base SD, `[S, P, M]`."""
    level = float(values(ledger, score, BASE).mean())
    return np.asarray((values(ledger, score, arm, point) - level) / base_sd(ledger, score))


def gain_SP(ledger: Ledger, score: ScoreCard, arm: str, point: int | None = None) -> FloatArray:  # noqa: N802 - the shape
    """Mean paired gain over the base, in the score's own scale."""
    return np.asarray((values(ledger, score, arm, point) - values(ledger, score, BASE)).mean(axis=2))


def score_gain(ledger: Ledger, score: ScoreCard, arm: str, point: int, resamples: Resamples) -> Estimate:
    """Mean paired gain of a score over the base, in base SD of that score."""
    return mean_estimate(gain_SP(ledger, score, arm, point) / base_sd(ledger, score), resamples, "base SD")


def measure_mean(ledger: Ledger, arm: str, resamples: Resamples, point: int | None = None) -> Estimate:
    """Mean of the measure in points."""
    mean_SP = values(ledger, ledger.measure, arm, point).mean(axis=2)
    return mean_estimate(POINTS * mean_SP, resamples, "points")


def measure_difference(ledger: Ledger, arm: str, resamples: Resamples) -> Estimate:
    """Gain of the final arm over the base, paired by prompt and sample, in points of the measure."""
    return mean_estimate(POINTS * gain_SP(ledger, ledger.measure, arm), resamples, "points")


@dataclass(frozen=True)
class Divergence:
    """KL(arm || base) from the arm's own samples: mean of log pi - log pi_base (the k1 estimator), in nats."""

    per_response: Estimate
    per_token: Estimate


def divergence(ledger: Ledger, arm: str, resamples: Resamples, point: int | None = None) -> Divergence:
    """KL to the base at one evaluation point, by response and by token."""
    policy, base = (ledger.numbers(arm, column, point) for column in ("logp_policy", "logp_base"))
    nats, tokens = (policy - base).mean(axis=2), ledger.numbers(arm, "num_tokens", point).mean(axis=2)
    return Divergence(mean_estimate(nats, resamples, "nats"), ratio_estimate(nats, tokens, resamples, "nats per token"))


# ------------------------------------------------------------------------------------------------------- along training
@dataclass(frozen=True)
class Curves:
    """One arm along training, the base first (zero everywhere).

    Attributes:
        measure_SCP: gain over the base, base SD of the measure.
        reward_SCP: the same of the training reward; None if the sweep has none.
        nats_SCP: log π − log π_base of the arm's own samples.
    """

    measure_SCP: FloatArray
    reward_SCP: FloatArray | None
    nats_SCP: FloatArray


def curves(ledger: Ledger, arm: str) -> Curves:
    """Means per prompt at every evaluation point."""
    return Curves(
        measure_SCP=_gain_SCP(ledger, ledger.measure, arm),
        reward_SCP=_gain_SCP(ledger, ledger.training_reward, arm) if ledger.training_reward else None,
        nats_SCP=ledger.curve(arm, "logp_policy") - ledger.curve(arm, "logp_base"),
    )


def _gain_SCP(ledger: Ledger, score: ScoreCard, arm: str) -> FloatArray:  # noqa: N802 - the shape
    means = curve(ledger, score, arm)
    return np.asarray((means - means[:, :1]) / base_sd(ledger, score))


# --------------------------------------------------------------------------------------------------------------- halves
@dataclass(frozen=True)
class Halves:
    """Two halves of the prompts in the order of their SHA-256: one to choose on, one to report on."""

    chosen_on: list[int]
    reported_on: list[int]
    choosing: Resamples
    reporting: Resamples

    @classmethod
    def draw(cls, ledger: Ledger, rng: np.random.Generator) -> Halves:
        """Split the ledger's prompts, with resamples of each half."""
        chosen_on, reported_on = halves_of(ledger)
        max_seeds = max(len(ledger.seeds(arm)) for arm in ledger.arms)
        choosing, reporting = (Resamples.draw(rng, len(half), max_seeds) for half in (chosen_on, reported_on))
        return cls(chosen_on, reported_on, choosing, reporting)


def halves_of(ledger: Ledger) -> tuple[list[int], list[int]]:
    """Positions of the prompts to choose on, and of those to report on."""
    return split_halves([hashlib.sha256(name.encode()).hexdigest() for name in ledger.prompt_ids])
