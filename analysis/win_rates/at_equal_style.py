"""The win rate at equal style, for the final models of a sweep: reads the ledger; the model is `controlled_win_rate`'s.

Style is length (log characters) and those of the densities of headers, list items and bold passages that differ in the
data at all. Prompts are told apart by the length of the base's responses, which no arm influenced.
Every seed is fitted by itself and the mean over seeds is reported. The penalty is weak: it need not guard against
extrapolation, because a rate that would be one is not shown, and a strong one pulls every seed to the same side, which
the interval of the mean does not know (analysis/coverage.md).

Shapes: S seeds, P prompts, M samples of a prompt, F features, B resamples, the first `NUM_REFITS` of the report's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.ledger import BASE, Ledger
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, estimate_from_draws
from analysis.statistics.controlled_win_rate import ControlledWinRate, Prior, is_identified, parity_overlap, refit
from analysis.style.scripts import split_words
from analysis.style.surface import BOLD, CODE_BLOCK, HEADER, LIST_ITEM
from analysis.win_rates import JudgeName, preferences

NUM_REFITS = 400  # of the report's resamples
# A prior SD of three logits: enough to keep a side that wins everything finite.
PRIOR = Prior(style_penalty=0.1, covariate_penalty=0.1, max_effect=math.inf)
FEATURES = ("length", "headers", "list items", "bold passages")
MARKUP = (HEADER, LIST_ITEM, BOLD)


@dataclass(frozen=True)
class StyleControl:
    """A win rate at equal style.

    Attributes:
        rates: raw, controlled and their gap; if they are not identified an extrapolation, which nobody should show.
        features: that were controlled for.
        num_refits: resamples that the intervals come from.
    """

    rates: ControlledWinRate
    features: tuple[str, ...]
    num_refits: int


Controls = dict[tuple[str, str], StyleControl]


def control_all(ledger: Ledger, judge: JudgeName, resamples: Resamples, rng: np.random.Generator) -> Controls:
    """(arm, opponent) -> the controlled win rate of every contest in which the judge has preferences."""
    features = style_features(ledger)
    found = {
        (arm, opponent): control(ledger, arm, opponent, judge, features, resamples, rng)
        for arm, opponent, _ in ledger.contests
    }
    return {pair: item for pair, item in found.items() if item is not None}


def style_features(ledger: Ledger) -> dict[str, FloatArray]:
    """Features of the final responses of every arm and the base: name -> `[S, P, M, F]`."""
    return {name: _features(ledger.array(name, "response")) for name in (BASE, *ledger.arms)}


def control(
    ledger: Ledger,
    arm: str,
    opponent: str,
    judge: JudgeName,
    features: Mapping[str, FloatArray],
    resamples: Resamples,
    rng: np.random.Generator,
) -> StyleControl | None:
    """Controlled win rate of two final models, or None if there is no preference between them.

    Args:
        ledger: of one sweep.
        arm: whose rate it is.
        opponent: an arm, or "base".
        judge: whose preferences.
        features: of `style_features`.
        resamples: of the report.
        rng: for the prior's centre of each resample.
    """
    score_SPM = preferences(ledger, arm, opponent, judge)
    if score_SPM is None or np.isnan(score_SPM).all(axis=(1, 2)).any():
        return None
    ours, theirs = (_of_seeds(ledger, name, arm, opponent, features[name]) for name in (arm, opponent))
    delta_SPMF = (ours - theirs)[:, :, : score_SPM.shape[2]]
    base_length_P = features[BASE][0, :, :, 0].mean(axis=1)
    return equal_style(score_SPM, delta_SPMF, base_length_P, resamples, rng)


def equal_style(
    score_SPM: FloatArray,
    delta_SPMF: FloatArray,
    covariate_P: FloatArray,
    resamples: Resamples,
    rng: np.random.Generator,
) -> StyleControl:
    """The controlled rate of arrays.

    Args:
        score_SPM: preferences from 0 to 1, NaN if missing.
        delta_SPMF: style of ours minus theirs, in the order of `FEATURES`.
        covariate_P: what tells prompts apart.
        resamples: of the report.
        rng: for the prior's centre of each resample.
    """
    num_seeds, num_prompts, num_samples = score_SPM.shape
    varies_F = delta_SPMF.std(axis=(0, 1, 2)) > 0
    varies_F[0] = True  # the length always counts
    names = tuple(name for name, varies in zip(FEATURES, varies_F, strict=True) if varies)
    style_SNF = delta_SPMF[..., varies_F].reshape(num_seeds, num_prompts * num_samples, -1)
    weight_BP = resamples.prompts[:NUM_REFITS]
    prompt_N = np.repeat(np.arange(num_prompts), num_samples)
    covariate_N1 = covariate_P[prompt_N, None]
    fits = []
    for score_N, style_NF in zip(score_SPM.reshape(num_seeds, -1), style_SNF, strict=True):
        asked_N = ~np.isnan(score_N)
        fits.append(
            refit(score_N[asked_N], prompt_N[asked_N], style_NF[asked_N], covariate_N1[asked_N], weight_BP, rng, PRIOR)
        )
    raw_S, controlled_S = np.array([(fit.raw, fit.controlled) for fit in fits]).T
    raw_BS = np.stack([fit.raw_B for fit in fits], axis=1)
    controlled_BS = np.stack([fit.controlled_B for fit in fits], axis=1)
    rates = ControlledWinRate(
        raw=_mean(raw_S, raw_BS, resamples),
        controlled=_mean(controlled_S, controlled_BS, resamples),
        style_premium=_mean(raw_S - controlled_S, raw_BS - controlled_BS, resamples),
        overlap=float(np.mean([parity_overlap(style_NF) for style_NF in style_SNF])),
        identified=all(is_identified(style_NF) for style_NF in style_SNF),
    )
    return StyleControl(rates, names, len(weight_BP))


NOT_IDENTIFIED = "the two styles hardly overlap, so a rate at equal style would be an extrapolation"


def identified_rate(control: StyleControl | None) -> Estimate | None:
    """The controlled rate if there is one to be shown."""
    return control.rates.controlled if control and control.rates.identified else None


def _mean(value_S: FloatArray, draws_BS: FloatArray, resamples: Resamples) -> Estimate:
    """In percent; the interval is stretched to the value if the prior pulled all refits to one side of it."""
    num_prompts, num_seeds = resamples.prompts.shape[1], len(value_S)
    draws_B = 100 * resamples.average_seeds(draws_BS)
    found = estimate_from_draws(100 * float(value_S.mean()), draws_B, "percent", num_prompts, num_seeds)
    return replace(found, low=min(found.low, found.value), high=max(found.high, found.value))


def _of_seeds(ledger: Ledger, name: str, arm: str, opponent: str, values: FloatArray) -> FloatArray:
    """The seeds that both sides have; the base has one "seed", which broadcasts."""
    if name == BASE:
        return values
    return values[[ledger.seeds(name).index(seed) for seed in ledger.common_seeds(arm, opponent)]]


def _features(responses: npt.NDArray[np.object_]) -> FloatArray:
    """`[…, F]`: log of 1 + characters; headers, list items and bold passages per word, outside code blocks."""
    rows = [_row(str(text)) for text in responses.ravel()]
    return np.array(rows, dtype=np.float64).reshape(*responses.shape, len(FEATURES))


def _row(text: str) -> tuple[float, ...]:
    prose = CODE_BLOCK.sub("\n", text)
    num_words = 1 + len(split_words(prose))
    return (np.log1p(len(text)), *(len(pattern.findall(prose)) / num_words for pattern in MARKUP))
