"""How often a side would win if both sides wrote in the same style (say, at the same length): pure functions.

The model is AlpacaEval's (Dubois et al. 2024, arXiv:2404.04475) with what one set of comparisons can support:

    logit P(we win | row) = θ + Σ_f φ_f tanh(δ_f / SD(δ_f)) + Σ_d ψ_d z_d

- δ_f is ours minus theirs, for example in characters. It is divided by its SD and never centred: centring would leave
  the mean difference inside θ, and then nothing is controlled.
- z_d describes the prompt, not us, and is centred. AlpacaEval has a difficulty of each instruction, estimated over its
  whole leaderboard. One set of comparisons sees each prompt once and cannot estimate that; a property of the prompt or
  of the opponent's answer, such as its length, stands in for it. Without it φ takes the blame: weak models match the
  length of a strong opponent only if the opponent's answer is short, and then the prompt is easy.
- the controlled rate is the mean over rows of σ(θ + Σ_d ψ_d z_d): style differences set to zero.

φ and ψ have ridge penalties λ, that is normal priors with SD 1/√λ, mild ones.

φ is an effect only as far as lengths came by chance. A model that answers at length when it knows the answer, and
briefly when it does not, makes the fitted φ too large. If one side is nearly always the shorter, little else is
seen: such files ask for three or four logits, those with balanced lengths for about one. Left-out prompts cannot tell
the two apart. So φ is held within `max_effect` logits, about the most that length alone does to judges, and θ and ψ are
fitted anew. The interval spans both extremes: that all of the fitted φ was length, and that what lies beyond
`max_effect` was the answers' own.

A penalty pulls φ towards zero, and a bootstrap of penalised fits does not know: its intervals would be too narrow, and
all to one side of the truth if the judge cares much about style. So every resample draws the centre of φ's prior
from that same prior (perturb, then optimise: Orieux, Féron & Giovannelli 2012, arXiv:1105.5887). What the data cannot
say about φ widens the interval. analysis/coverage.md says how often it holds the truth.

Shapes: N rows, P prompts (rows of one prompt are resampled together), F style features, D covariates of the prompt,
K = 1 + F + D coefficients, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from analysis.statistics.bootstrap import Estimate, FloatArray, estimate_from_draws

IntArray = npt.NDArray[np.int64]

INTERCEPT_PENALTY = 1e-3  # only so that a side that wins everything has a finite θ
COVARIATE_SD = 0.5  # the usual SD of tanh(δ / SD), so that λ means the same for both (Gelman et al. 2008)
OVERLAP_SD = 0.5  # rows whose style differs by at most this many SD are near parity
MIN_OVERLAP = 0.2  # with fewer rows near parity the controlled rate is an extrapolation,
MIN_EACH_SIDE = 0.05  # and so it is if nearly all rows differ in the same direction
MAX_STEP = 2.0  # logits; keeps Newton's method from overshooting when nearly every row is won or lost
MAX_ITERATIONS = 100  # a dozen are the most seen
TOLERANCE = 1e-7  # logits
HELD = 1e8  # penalty of a coefficient that stays where it is put
MAX_CELLS = 2_000_000  # resamples x rows in memory at a time


@dataclass(frozen=True)
class Prior:
    """What is believed of the coefficients before any row is seen.

    Attributes:
        style_penalty, covariate_penalty: λ of φ and of ψ.
        max_effect: the most, in logits, that φ may be either way.
    """

    style_penalty: float
    covariate_penalty: float
    max_effect: float


# Prior SDs of 1.4 and 0.5 logits. analysis/coverage.md says how `max_effect` was chosen, and on what.
PRIOR = Prior(style_penalty=0.5, covariate_penalty=4.0, max_effect=1.4)


@dataclass(frozen=True)
class ControlledWinRate:
    """Raw and controlled win rate of one side; all in percent.

    Attributes:
        raw: mean score.
        controlled: the rate at equal style.
        style_premium: raw − controlled, from the same resamples.
        overlap: share of rows near parity in every style feature.
        identified: whether the two styles overlap enough to say what happens at parity; see `is_identified`.
        held: whether φ was held at the prior's `max_effect`, so that the intervals span two extremes.
    """

    raw: Estimate
    controlled: Estimate
    style_premium: Estimate
    overlap: float
    identified: bool
    held: bool = False


@dataclass(frozen=True)
class Refit:
    """The rates of one set of rows and of its resamples `[B]`, from 0 to 1.

    Attributes:
        raw, raw_B: as they are.
        controlled: at equal style, with φ within the prior's `max_effect`.
        controlled_B: at equal style, if all of φ is style.
        cautious_B: at equal style, if what lies beyond `max_effect` is the answers' own.
        held: whether φ was held in `controlled`.
    """

    raw: float
    controlled: float
    raw_B: FloatArray
    controlled_B: FloatArray
    cautious_B: FloatArray
    held: bool


@dataclass(frozen=True)
class Design:
    """The rows as the regression sees them.

    Attributes:
        x_NK: intercept, squashed style differences, scaled covariates.
        score_N: 1 for a win, 0 for a loss, fractions between; draws are one half.
        prompt_N: which prompt a row belongs to, 0 to P − 1.
        num_style: F.
    """

    x_NK: FloatArray
    score_N: FloatArray
    prompt_N: IntArray
    num_style: int

    @property
    def style_columns(self) -> slice:
        """Where the style differences stand among the K columns."""
        return slice(1, 1 + self.num_style)


def controlled_win_rate(
    score_N: FloatArray,
    prompt_N: IntArray,
    style_NF: FloatArray,
    covariate_ND: FloatArray,
    weights_BP: FloatArray,
    rng: np.random.Generator,
) -> ControlledWinRate:
    """Raw and controlled win rate with intervals from a bootstrap over prompts that refits every resample.

    Args:
        score_N: 1 for a win, 0 for a loss, fractions between; draws are one half.
        prompt_N: position of the row's prompt on the P axis of the weights.
        style_NF: style differences, ours minus theirs, in any unit.
        covariate_ND: properties of the prompt or of the opponent's answer, which we did not influence, in any unit.
        weights_BP: bootstrap weights of the prompts, rows sum to 1.
        rng: for the prior's centre of each resample.
    """
    fitted = refit(score_N, prompt_N, style_NF, covariate_ND, weights_BP, rng)

    def percent(value: float, *extremes_B: FloatArray) -> Estimate:
        """Its interval reaches over those of all extremes, and over the value."""
        found = [
            estimate_from_draws(100 * value, 100 * draws_B, "percent", weights_BP.shape[1]) for draws_B in extremes_B
        ]
        ends = [end for item in found for end in (item.low, item.high)]
        return replace(found[0], low=min(*ends, found[0].value), high=max(*ends, found[0].value))

    return ControlledWinRate(
        raw=percent(fitted.raw, fitted.raw_B),
        controlled=percent(fitted.controlled, fitted.controlled_B, fitted.cautious_B),
        style_premium=percent(
            fitted.raw - fitted.controlled, fitted.raw_B - fitted.controlled_B, fitted.raw_B - fitted.cautious_B
        ),
        overlap=parity_overlap(style_NF),
        identified=is_identified(style_NF),
        held=fitted.held,
    )


def refit(
    score_N: FloatArray,
    prompt_N: IntArray,
    style_NF: FloatArray,
    covariate_ND: FloatArray,
    weights_BP: FloatArray,
    rng: np.random.Generator,
    prior: Prior = PRIOR,
) -> Refit:
    """Raw and controlled rate of the rows and of every resample; arguments as of `controlled_win_rate`."""
    design = Design(design_matrix(style_NF, covariate_ND), score_N, prompt_N, style_NF.shape[1])
    once_1N = np.ones((1, len(score_N)))
    free_1K = fit(design, once_1N, penalties(design, prior, 1), np.zeros(design.num_style))
    held_1K = hold(design, free_1K, prior)
    draws = [
        (
            weighted_mean(weight_BN, score_N),
            parity_rate(design, beta_BK, weight_BN),
            parity_rate(design, beta_BK, weight_BN, prior.max_effect),
        )
        for weight_BN, beta_BK in refits(design, weights_BP, prior, free_1K[0], rng)
    ]
    raw_B, controlled_B, cautious_B = (np.concatenate(parts) for parts in zip(*draws, strict=True))
    controlled = float(parity_rate(design, held_1K, once_1N)[0])
    held = not np.array_equal(free_1K, held_1K)
    return Refit(float(score_N.mean()), controlled, raw_B, controlled_B, cautious_B, held)


def design_matrix(style_NF: FloatArray, covariate_ND: FloatArray) -> FloatArray:
    """`[N, K]`: intercept, tanh of scaled style differences, covariates centred and scaled to `COVARIATE_SD`.

    A column without any variation becomes zero: it can explain nothing.
    """
    style_NF = np.tanh(_divide(style_NF, style_NF.std(axis=0)))
    covariate_ND = COVARIATE_SD * _divide(covariate_ND - covariate_ND.mean(axis=0), covariate_ND.std(axis=0))
    return np.hstack([np.ones((len(style_NF), 1)), style_NF, covariate_ND])


def parity_overlap(style_NF: FloatArray) -> float:
    """Share of rows whose style differs by at most `OVERLAP_SD` standard deviations, in every feature."""
    return float(np.mean(np.all(np.abs(style_NF) <= OVERLAP_SD * style_NF.std(axis=0), axis=1)))


def is_identified(style_NF: FloatArray) -> bool:
    """Whether enough rows are near parity, and enough on either side of it, for the rate at parity to be observed."""
    each_side = min(np.mean(style_NF >= 0, axis=0).min(), np.mean(style_NF <= 0, axis=0).min())
    return bool(parity_overlap(style_NF) >= MIN_OVERLAP and each_side >= MIN_EACH_SIDE)


def weighted_mean(weight_BN: FloatArray, value_N: FloatArray) -> FloatArray:
    """`[B]`."""
    return np.asarray(weight_BN @ value_N / weight_BN.sum(axis=1))


def parity_rate(design: Design, beta_BK: FloatArray, weight_BN: FloatArray, max_effect: float = math.inf) -> FloatArray:
    """Weighted mean over rows of the probability to win at equal style, `[B]`.

    What of φ lies beyond `max_effect` is no style and stays.
    """
    stays_BK = beta_BK.copy()
    stays_BK[:, design.style_columns] -= np.clip(beta_BK[:, design.style_columns], -max_effect, max_effect)
    return np.asarray((weight_BN * expit(stays_BK @ design.x_NK.T)).sum(axis=1) / weight_BN.sum(axis=1))


def refits(
    design: Design, weights_BP: FloatArray, prior: Prior, start_K: FloatArray, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Row weights `[b, N]` and coefficients `[b, K]` of all resamples, some at a time."""
    num_resamples, num_prompts = weights_BP.shape
    centre_BF = rng.standard_normal((num_resamples, design.num_style)) / np.sqrt(prior.style_penalty)
    rows_at_once = max(1, MAX_CELLS // len(design.score_N))
    for start in range(0, num_resamples, rows_at_once):
        some = slice(start, start + rows_at_once)
        weight_BN = num_prompts * weights_BP[some][:, design.prompt_N]
        yield weight_BN, fit(design, weight_BN, penalties(design, prior, len(weight_BN)), centre_BF[some], start_K)


def hold(design: Design, free_1K: FloatArray, prior: Prior) -> FloatArray:
    """The fit to all rows again with every φ that lies beyond `max_effect` held there; as it is if none does."""
    free_1F = free_1K[:, design.style_columns]
    held_1F = np.clip(free_1F, -prior.max_effect, prior.max_effect)
    if np.array_equal(free_1F, held_1F):
        return free_1K
    penalty_1K = penalties(design, prior, 1)
    penalty_1K[:, design.style_columns][free_1F != held_1F] = HELD
    centre_1F = np.where(free_1F != held_1F, held_1F, 0.0)
    return fit(design, np.ones((1, len(design.score_N))), penalty_1K, centre_1F)


def fit(
    design: Design,
    weight_BN: FloatArray,
    penalty_BK: FloatArray,
    centre_BF: FloatArray,
    start_BK: FloatArray | float = 0.0,
) -> FloatArray:
    """Penalised logistic regressions on fractional targets, one for each row of weights, by Newton's method. `[B, K]`.

    Maximises Σ_n w_n [y_n log p_n + (1 − y_n) log(1 − p_n)] − ½ Σ_k λ_k (β_k − c_k)², c zero but for φ.

    Args:
        design: the rows.
        weight_BN: weight of each row, 1 on average.
        penalty_BK: λ.
        centre_BF: c of φ.
        start_BK: where to begin, or anything that broadcasts to it; the result does not depend on it.
    """
    x_NK, y_N = design.x_NK, design.score_N
    num_fits, num_coefficients = penalty_BK.shape
    centre_BK = np.zeros(penalty_BK.shape)
    centre_BK[:, design.style_columns] = centre_BF
    products_NM = (x_NK[:, :, None] * x_NK[:, None, :]).reshape(len(x_NK), -1)  # M = K x K
    beta_BK = np.zeros(penalty_BK.shape) + start_BK
    for _ in range(MAX_ITERATIONS):
        p_BN = expit(beta_BK @ x_NK.T)
        gradient_BK = (weight_BN * (y_N - p_BN)) @ x_NK - penalty_BK * (beta_BK - centre_BK)
        hessian_BKK = ((weight_BN * p_BN * (1 - p_BN)) @ products_NM).reshape(num_fits, num_coefficients, -1)
        hessian_BKK += penalty_BK[:, :, None] * np.eye(num_coefficients)
        step_BK = np.linalg.solve(hessian_BKK, gradient_BK[..., None])[..., 0]
        longest_B1 = np.abs(step_BK).max(axis=1, keepdims=True)
        beta_BK += step_BK * np.minimum(1, MAX_STEP / np.maximum(longest_B1, MAX_STEP))
        if longest_B1.max() < TOLERANCE:
            return beta_BK
    raise ArithmeticError(f"Newton's method did not settle in {MAX_ITERATIONS} iterations")


def penalties(design: Design, prior: Prior, num_fits: int) -> FloatArray:
    """λ of every coefficient, `[B, K]`; next to nothing for the intercept."""
    penalty_K = np.full(design.x_NK.shape[1], prior.covariate_penalty)
    penalty_K[0], penalty_K[design.style_columns] = INTERCEPT_PENALTY, prior.style_penalty
    return np.tile(penalty_K, (num_fits, 1))


def _divide(value_NF: FloatArray, scale_F: FloatArray) -> FloatArray:
    """Column by column; zero if a column's scale is zero."""
    return np.divide(value_NF, scale_F, out=np.zeros(value_NF.shape), where=scale_F > 0)
