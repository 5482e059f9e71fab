"""One scale for all arms and the base (Bradley & Terry 1952), and whether the direct comparisons lie on it.

    logit P(i beats j) = strength_i − strength_j

Fitted with evalica to the share of pairs that each side wins, every pair of arms weighing the same. In each seed by
itself, because arms meet only within a seed; the mean over seeds is reported. Intervals: the prompts of the report's
resamples, refitted; evalica's own bootstrap would draw rows, of which those of one prompt are not independent.

The check fits again without any contest between two arms that were trained from the base, and holds each direct one
against what that predicts. A judge
whose preferences form circles (PPO over DPO over base over PPO) has no such scale.

Shapes: K = 1 + arms, the base first; C comparisons; B resamples, the first `NUM_REFITS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import evalica
import numpy as np
from scipy.special import expit

from analysis.ledger import BASE, Ledger
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, estimate_from_draws, simultaneous
from analysis.win_rates import JudgeName, preferences
from experiments.rules import WinRateRules

NUM_REFITS = 200  # each costs about a millisecond
HALF_A_WIN = 0.5  # given to both sides of every pair, so that one who wins everything has a finite strength
TOLERANCE = 1e-9
MAX_ITERATIONS = 10_000
GAP_DECIMALS = 5  # of a point; beyond are the fits' tolerances


@dataclass(frozen=True)
class Strength:
    """Where an arm stands against the base.

    Attributes:
        strength: log-odds, base = 0.
        win_rate: percent of pairs against the base that this strength stands for.
    """

    arm: str
    strength: Estimate
    win_rate: Estimate


@dataclass(frozen=True)
class DirectCheck:
    """Two arms that were trained from the base: directly, and by the strengths of a fit without such comparisons.

    Attributes:
        direct, predicted: percent of pairs that `arm` wins; both with half a win added on either side.
        difference: direct − predicted, in points; its interval holds for all pairs together.
        intransitive: whether that whole interval is further from zero than rules.win_rate.max_intransitivity_points.
    """

    arm: str
    opponent: str
    direct: Estimate
    predicted: Estimate
    difference: Estimate
    intransitive: bool


@dataclass(frozen=True)
class Scale:
    """All strengths by one judge, and the checks."""

    judge: JudgeName
    num_refits: int
    strengths: tuple[Strength, ...]
    checks: tuple[DirectCheck, ...]


@dataclass(frozen=True)
class SeedFit:
    """The fits of one seed; first the observed prompts, then the resamples, so `[1 + B, …]`.

    Attributes:
        names: K names, the base first.
        strengths: of all comparisons, base = 0.
        indirect: of all but contests between arms trained from the base.
        shares: pair of positions -> share of pairs that the first wins.
    """

    names: tuple[str, ...]
    strengths: FloatArray
    indirect: FloatArray
    shares: dict[tuple[int, int], FloatArray]


def strength_scale(ledger: Ledger, rules: WinRateRules, resamples: Resamples) -> Scale | None:
    """Strengths by the deciding judge of all arms that it has preferences on, or None if there are none."""
    judge = rules.primary_judge
    fits = {seed: fit for seed in _seeds(ledger) if (fit := fit_seed(ledger, judge, seed, resamples)) is not None}
    if not fits:
        return None
    arms = [arm for arm in ledger.arms if any(arm in fit.names for fit in fits.values())]
    pairs = [pair for pair in ledger.between_plain_arms() if set(pair) <= set(arms)]
    wider = simultaneous(max(1, len(pairs)))
    checks = [_check(*pair, wider, rules.max_intransitivity_points, list(fits.values()), resamples) for pair in pairs]
    return Scale(
        judge=judge,
        num_refits=min(NUM_REFITS, len(resamples.prompts)),
        strengths=tuple(_strength(arm, list(fits.values()), resamples) for arm in arms),
        checks=tuple(check for check in checks if check is not None),
    )


def fit_seed(ledger: Ledger, judge: JudgeName, seed: int, resamples: Resamples) -> SeedFit | None:
    """All fits of one seed, or None if no arm of it was compared with the base."""
    num_prompts = resamples.prompts.shape[1]
    once_then_BP = np.vstack([np.full(num_prompts, 1 / num_prompts), resamples.prompts[:NUM_REFITS]])
    against_base = [arm for arm in ledger.arms if _scores(ledger, arm, BASE, judge, seed) is not None]
    names = (BASE, *against_base)
    shares = {}
    for other, one in ((other, one) for one, other in combinations(range(len(names)), 2)):  # the base is an opponent
        score_PM = _scores(ledger, names[other], names[one], judge, seed)
        if score_PM is not None:
            shares[other, one] = _share(score_PM, once_then_BP)
    if not shares:
        return None
    within = {pair: share for pair, share in shares.items() if not _is_direct(ledger, *(names[side] for side in pair))}
    strengths, indirect = (bradley_terry(len(names), some, num_prompts) for some in (shares, within))
    return SeedFit(names, strengths, indirect, shares)


def _scores(ledger: Ledger, arm: str, opponent: str, judge: JudgeName, seed: int) -> FloatArray | None:
    """Preferences within one seed, `[P, M]`, or None if there are none."""
    seeds = ledger.common_seeds(arm, opponent)
    score_SPM = preferences(ledger, arm, opponent, judge) if seed in seeds else None
    if score_SPM is None or np.isnan(score_SPM[seeds.index(seed)]).all():
        return None
    return np.asarray(score_SPM[seeds.index(seed)])


def _is_direct(ledger: Ledger, arm: str, opponent: str) -> bool:
    return {arm, opponent} in map(set, ledger.between_plain_arms())


def bradley_terry(num_sides: int, share_B: dict[tuple[int, int], FloatArray], num_prompts: int) -> FloatArray:
    """Strengths in log-odds, side 0 = 0, `[B, K]`.

    Args:
        num_sides: K.
        share_B: pair of positions -> share of `num_prompts` comparisons that the first wins, `[B]`.
        num_prompts: against which `HALF_A_WIN` is weighed.
    """
    ours, theirs = (np.array([pair[side] for pair in share_B]) for side in (0, 1))
    won_BC = shrunk(np.stack(list(share_B.values()), axis=1), num_prompts)
    weight_BR = np.concatenate([won_BC, 1 - won_BC], axis=1)  # R = 2 C rows
    sides = [*ours, *theirs], [*theirs, *ours]
    return np.stack([_fit(num_sides, *sides, weight_R) for weight_R in weight_BR])


def shrunk(share: FloatArray, num_prompts: int) -> FloatArray:
    """A share of won pairs with `HALF_A_WIN` added on both sides."""
    return (num_prompts * share + HALF_A_WIN) / (num_prompts + 2 * HALF_A_WIN)


def _fit(num_sides: int, winner_R: Sequence[int], loser_R: Sequence[int], weight_R: FloatArray) -> FloatArray:
    result = evalica.bradley_terry(
        winner_R,
        loser_R,
        [evalica.Winner.X] * len(weight_R),
        weights=weight_R.tolist(),
        tolerance=TOLERANCE,
        limit=MAX_ITERATIONS,
    )
    if result.iterations >= MAX_ITERATIONS:
        raise ArithmeticError(f"the strengths did not settle in {MAX_ITERATIONS} iterations")
    log_strength_K = np.log(result.scores.loc[list(range(num_sides))].to_numpy())
    return np.asarray(log_strength_K - log_strength_K[0])


def _strength(arm: str, fits: Sequence[SeedFit], resamples: Resamples) -> Strength:
    fits = [fit for fit in fits if arm in fit.names]
    value_SB = np.stack([fit.strengths[:, fit.names.index(arm)] for fit in fits])
    return Strength(arm, _mean(value_SB, resamples, "logits"), _mean(100 * expit(value_SB), resamples, "percent"))


def _check(
    arm: str, opponent: str, wider: float, tolerance_points: float, fits: Sequence[SeedFit], resamples: Resamples
) -> DirectCheck | None:
    direct, predicted = [], []
    for fit in (fit for fit in fits if arm in fit.names and opponent in fit.names):
        ours, theirs = fit.names.index(arm), fit.names.index(opponent)
        pair = (ours, theirs) if (ours, theirs) in fit.shares else (theirs, ours)
        if pair in fit.shares:
            share_B = shrunk(fit.shares[pair], resamples.prompts.shape[1])
            direct.append(100 * (share_B if pair == (ours, theirs) else 1 - share_B))
            predicted.append(100 * expit(fit.indirect[:, ours] - fit.indirect[:, theirs]))
    if not direct:
        return None
    direct_SB, predicted_SB = np.stack(direct), np.stack(predicted)
    gap_SB = np.round(direct_SB - predicted_SB, GAP_DECIMALS)
    gap_SB[:, 1:] = gap_SB[:, :1] + wider * (gap_SB[:, 1:] - gap_SB[:, :1])
    direct_rate, predicted_rate, gap = (
        _mean(value_SB, resamples, "percent") for value_SB in (direct_SB, predicted_SB, gap_SB)
    )
    intransitive = gap.low > tolerance_points or gap.high < -tolerance_points
    return DirectCheck(arm, opponent, direct_rate, predicted_rate, gap, intransitive)


def _mean(value_SB: FloatArray, resamples: Resamples, unit: str) -> Estimate:
    """Mean over seeds; column 0 is the observed value."""
    return estimate_from_draws(
        float(value_SB[:, 0].mean()),
        resamples.average_seeds(value_SB[:, 1:].T),
        unit,
        resamples.prompts.shape[1],
        len(value_SB),
    )


def _share(score_PM: FloatArray, weight_BP: FloatArray) -> FloatArray:
    """Share of pairs won in each resample, `[B]`; what has no preference is left out."""
    judged_P = ~np.isnan(score_PM).all(axis=1)
    mean_P = np.nanmean(score_PM[judged_P], axis=1)
    return np.asarray(weight_BP[:, judged_P] @ mean_P / weight_BP[:, judged_P].sum(axis=1))


def _seeds(ledger: Ledger) -> list[int]:
    return sorted({run.seed for run in ledger.runs})
