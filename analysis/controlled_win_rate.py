"""How often a side would win if both sides wrote in the same style (say, at the same length): pure functions.

The model is AlpacaEval's (Dubois et al. 2024, arXiv:2404.04475) with what one set of comparisons can support:

    logit P(we win | row) = θ + Σ_f φ_f tanh(δ_f / SD(δ_f)) + Σ_d ψ_d z_d

- δ_f is ours minus theirs, for example in characters. It is divided by its SD and never centred: centring would leave
  the mean difference inside θ, and then nothing is controlled.
- z_d describes the prompt, not us, and is centred. AlpacaEval has a difficulty of each instruction, estimated over its
  whole leaderboard. One set of comparisons sees each prompt once and cannot estimate that; a property of the prompt or
  of the opponent's answer, such as its length, stands in for it. Without it φ takes the blame: weak models match the
  length of a strong opponent only where the opponent's answer is short, which is where the prompt is easy.
- the controlled rate is the mean over rows of σ(θ + Σ_d ψ_d z_d): style differences set to zero.

φ and ψ have a ridge penalty λ, that is a normal prior with SD 1/√λ. No single λ is chosen: the fits for all of
`PENALTIES` are averaged with weights exp(leave-one-prompt-out log likelihood) ("pseudo-BMA", Yao et al. 2018,
arXiv:1704.02030), because the likelihood is often nearly flat in λ and a choice would jump with single prompts.

A penalty pulls φ towards zero, and a bootstrap of penalised fits does not know: its intervals would be too narrow, and
all to one side of the truth where the judge cares much about style. So every resample is fitted with a milder penalty,
`RESAMPLE_PENALTY`, and draws the centre of φ's prior from that same prior (perturb, then optimise: Orieux, Féron &
Giovannelli 2012, arXiv:1105.5887). What the data cannot say about φ widens the interval. analysis/coverage.md says how
often it holds the truth.

Shapes: N rows, P prompts (rows of one prompt are resampled together), F style features, D covariates of the prompt,
K = 1 + F + D coefficients, B resamples, L penalties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from analysis.statistics import Estimate, FloatArray, estimate_from_draws

IntArray = npt.NDArray[np.int64]

# From a prior SD of one logit, about what judges are known to give for length, down to almost no effect.
PENALTIES: FloatArray = np.geomspace(1, 100, 9)
RESAMPLE_PENALTY = 0.5  # of the intervals: a prior SD of 1.4 logits, by measured coverage (analysis/coverage.md)
INTERCEPT_PENALTY = 1e-3  # only so that a side that wins everything has a finite θ
COVARIATE_SD = 0.5  # the usual SD of tanh(δ / SD), so that one λ means the same for both (Gelman et al. 2008)
OVERLAP_SD = 0.5  # rows whose style differs by at most this many SD are near parity
MIN_OVERLAP = 0.2  # with fewer rows near parity the controlled rate is an extrapolation,
MIN_EACH_SIDE = 0.05  # and so it is where nearly all rows differ in the same direction
MAX_STEP = 2.0  # logits; keeps Newton's method from overshooting where nearly every row is won or lost
MAX_ITERATIONS = 100  # a dozen are the most seen
TOLERANCE = 1e-7  # logits
MAX_CELLS = 2_000_000  # resamples x rows in memory at a time


@dataclass(frozen=True)
class ControlledWinRate:
    """Raw and controlled win rate of one side; all in percent.

    Attributes:
        raw: mean score.
        controlled: the rate at equal style.
        style_premium: raw − controlled, from the same resamples.
        overlap: share of rows near parity in every style feature.
        identified: whether the two styles overlap enough to say what happens at parity; see `is_identified`.
    """

    raw: Estimate
    controlled: Estimate
    style_premium: Estimate
    overlap: float
    identified: bool


@dataclass(frozen=True)
class Refit:
    """The rates of one set of rows and of its resamples `[B]`, from 0 to 1."""

    raw: float
    controlled: float
    raw_B: FloatArray
    controlled_B: FloatArray


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

    def percent(value: float, draws_B: FloatArray) -> Estimate:
        return estimate_from_draws(100 * value, 100 * draws_B, "percent", weights_BP.shape[1])

    return ControlledWinRate(
        raw=percent(fitted.raw, fitted.raw_B),
        controlled=percent(fitted.controlled, fitted.controlled_B),
        style_premium=percent(fitted.raw - fitted.controlled, fitted.raw_B - fitted.controlled_B),
        overlap=parity_overlap(style_NF),
        identified=is_identified(style_NF),
    )


def refit(
    score_N: FloatArray,
    prompt_N: IntArray,
    style_NF: FloatArray,
    covariate_ND: FloatArray,
    weights_BP: FloatArray,
    rng: np.random.Generator,
    penalties_L: FloatArray = PENALTIES,
    resample_penalty: float = RESAMPLE_PENALTY,
) -> Refit:
    """Raw and controlled rate of the rows and of every resample; arguments as of `controlled_win_rate`.

    `penalties_L` are the λ whose fits to the rows are averaged; `resample_penalty` is that of every resample's fit.
    """
    design = Design(design_matrix(style_NF, covariate_ND), score_N, prompt_N, style_NF.shape[1])
    once_1N, parity_NK = np.ones((1, len(score_N))), at_parity(design)
    beta_LK = fit(design, np.repeat(once_1N, len(penalties_L), axis=0), penalties_L, np.zeros(design.num_style))
    share_L = penalty_shares(design, penalties_L, beta_LK)
    draws = [
        (weighted_mean(weight_BN, score_N), parity_rate(parity_NK, beta_BK, weight_BN))
        for weight_BN, beta_BK in refits(design, weights_BP, resample_penalty, share_L @ beta_LK, rng)
    ]
    raw_B, controlled_B = (np.concatenate(parts) for parts in zip(*draws, strict=True))
    controlled = float(share_L @ parity_rate(parity_NK, beta_LK, once_1N))
    return Refit(float(score_N.mean()), controlled, raw_B, controlled_B)


def design_matrix(style_NF: FloatArray, covariate_ND: FloatArray) -> FloatArray:
    """`[N, K]`: intercept, tanh of scaled style differences, covariates centred and scaled to `COVARIATE_SD`.

    A column without any variation becomes zero: it can explain nothing.
    """
    style_NF = np.tanh(_divide(style_NF, style_NF.std(axis=0)))
    covariate_ND = COVARIATE_SD * _divide(covariate_ND - covariate_ND.mean(axis=0), covariate_ND.std(axis=0))
    return np.hstack([np.ones((len(style_NF), 1)), style_NF, covariate_ND])


def at_parity(design: Design) -> FloatArray:
    """The rows with their style differences set to zero, `[N, K]`."""
    parity_NK = design.x_NK.copy()
    parity_NK[:, design.style_columns] = 0
    return parity_NK


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


def parity_rate(parity_NK: FloatArray, beta_BK: FloatArray, weight_BN: FloatArray) -> FloatArray:
    """Weighted mean over rows of the probability to win at equal style, `[B]`."""
    return np.asarray((weight_BN * expit(beta_BK @ parity_NK.T)).sum(axis=1) / weight_BN.sum(axis=1))


def refits(
    design: Design, weights_BP: FloatArray, penalty: float, start_K: FloatArray, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Row weights `[b, N]` and coefficients `[b, K]` of all resamples, some at a time."""
    num_resamples, num_prompts = weights_BP.shape
    centre_BF = rng.standard_normal((num_resamples, design.num_style)) / np.sqrt(penalty)
    rows_at_once = max(1, MAX_CELLS // len(design.score_N))
    for start in range(0, num_resamples, rows_at_once):
        some = slice(start, start + rows_at_once)
        weight_BN = num_prompts * weights_BP[some][:, design.prompt_N]
        yield weight_BN, fit(design, weight_BN, np.full(len(weight_BN), penalty), centre_BF[some], start_K)


def fit(
    design: Design,
    weight_BN: FloatArray,
    penalty_B: FloatArray,
    centre_BF: FloatArray,
    start_K: FloatArray | float = 0.0,
) -> FloatArray:
    """Penalised logistic regressions on fractional targets, one for each row of weights, by Newton's method. `[B, K]`.

    Maximises Σ_n w_n [y_n log p_n + (1 − y_n) log(1 − p_n)] − λ/2 (Σ_f (φ_f − c_f)² + Σ_d ψ_d²), θ all but free.

    Args:
        design: the rows.
        weight_BN: weight of each row, 1 on average.
        penalty_B: λ.
        centre_BF: c, or anything that broadcasts to it.
        start_K: where to begin; the result does not depend on it.
    """
    x_NK, y_N = design.x_NK, design.score_N
    num_fits, num_coefficients = len(weight_BN), x_NK.shape[1]
    precision_BK = precisions(penalty_B, num_coefficients)
    centre_BK = np.zeros((num_fits, num_coefficients))
    centre_BK[:, design.style_columns] = centre_BF
    products_NM = (x_NK[:, :, None] * x_NK[:, None, :]).reshape(len(x_NK), -1)  # M = K x K
    beta_BK = np.zeros((num_fits, num_coefficients)) + start_K
    for _ in range(MAX_ITERATIONS):
        p_BN = expit(beta_BK @ x_NK.T)
        gradient_BK = (weight_BN * (y_N - p_BN)) @ x_NK - precision_BK * (beta_BK - centre_BK)
        hessian_BKK = ((weight_BN * p_BN * (1 - p_BN)) @ products_NM).reshape(num_fits, num_coefficients, -1)
        hessian_BKK += precision_BK[:, :, None] * np.eye(num_coefficients)
        step_BK = np.linalg.solve(hessian_BKK, gradient_BK[..., None])[..., 0]
        longest_B1 = np.abs(step_BK).max(axis=1, keepdims=True)
        beta_BK += step_BK * np.minimum(1, MAX_STEP / np.maximum(longest_B1, MAX_STEP))
        if longest_B1.max() < TOLERANCE:
            return beta_BK
    raise ArithmeticError(f"Newton's method did not settle in {MAX_ITERATIONS} iterations")


def penalty_shares(design: Design, penalties_L: FloatArray, beta_LK: FloatArray) -> FloatArray:
    """Weight of each λ, `[L]`, sum 1: exp of its leave-one-prompt-out log likelihood."""
    loss_L = np.array(
        [leave_one_out_loss(design, beta_K, penalty) for beta_K, penalty in zip(beta_LK, penalties_L, strict=True)]
    )
    share_L = np.exp(loss_L.min() - loss_L)
    return np.asarray(share_L / share_L.sum())


def leave_one_out_loss(design: Design, beta_K: FloatArray, penalty: float) -> float:
    """Sum over rows of the log loss, each row predicted by the fit without its prompt.

    The fit without a prompt is one Newton step away from the fit with it (Rad & Maleki 2020, arXiv:1801.10243).

    Args:
        design: the rows.
        beta_K: the fit to all rows at this penalty.
        penalty: λ.
    """
    x_NK, y_N = design.x_NK, design.score_N
    precision_K = precisions(np.array([penalty]), len(beta_K))[0]
    p_N = expit(x_NK @ beta_K)
    row_hessian_NKK = (p_N * (1 - p_N))[:, None, None] * x_NK[:, :, None] * x_NK[:, None, :]
    gradient_PK = _sum_by(design.prompt_N, (y_N - p_N)[:, None] * x_NK)
    hessian_PKK = row_hessian_NKK.sum(axis=0) + np.diag(precision_K) - _sum_by(design.prompt_N, row_hessian_NKK)
    without_PK = beta_K - np.linalg.solve(hessian_PKK, gradient_PK[..., None])[..., 0]
    logit_N = np.einsum("nk,nk->n", x_NK, without_PK[design.prompt_N])
    return float(np.sum(np.logaddexp(0, logit_N) - y_N * logit_N))


def precisions(penalty_B: FloatArray, num_coefficients: int) -> FloatArray:
    """Prior precision of every coefficient, `[B, K]`: λ, but next to nothing for the intercept."""
    precision_BK = np.repeat(penalty_B[:, None], num_coefficients, axis=1)
    precision_BK[:, 0] = INTERCEPT_PENALTY
    return precision_BK


def _divide(value_NF: FloatArray, scale_F: FloatArray) -> FloatArray:
    """Column by column; zero where a column's scale is zero."""
    return np.divide(value_NF, scale_F, out=np.zeros(value_NF.shape), where=scale_F > 0)


def _sum_by(group_N: IntArray, value_N: FloatArray) -> FloatArray:
    """Sum of the rows of each group, along the first axis."""
    total = np.zeros((int(group_N.max()) + 1, *value_N.shape[1:]))
    np.add.at(total, group_N, value_N)
    return total
