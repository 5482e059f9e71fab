"""Behavioural oscillation: how much the responses change from one evaluation point to the next.

Successive points answer the same prompts under the same random numbers, so a model that has not moved gives the same
answers, letter by letter. Two sets of samples of the base, under different random numbers, show the other end: how much
answers and style differ by chance alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.ledger import BASE, FLOOR_STREAM, STREAM, Ledger
from analysis.scores import values
from analysis.stability.curves import SeedNumber, over_seeds, simultaneous_half_widths
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, mean_estimate, recentred_estimate
from analysis.style.surface import proportions

PROPORTIONS = ("characters a word", "punctuation", "capitals", "different words")


@dataclass(frozen=True)
class Change:
    """One measure of change.

    Attributes:
        mean_step, largest_step: over the steps between successive points.
        in_all: the final model against the base; well below the sum of the steps if a run goes back and forth.
        base_vs_base: two sets of base samples against each other.
    """

    mean_step: Estimate
    largest_step: Estimate
    in_all: Estimate
    base_vs_base: Estimate


@dataclass(frozen=True)
class Behaviour:
    """One arm.

    Attributes:
        answers: percent of responses that are another text.
        style: root mean square over `features` of the change of the mean, each in SD of the base over responses, the
            evaluation noise taken out: 0 if no more than noise is seen.
    """

    answers: Change
    style: Change
    features: tuple[str, ...]


class Responses:
    """Texts and style of every point of the base and the arms; the base's style is read once."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        base = self.style(BASE, 0)
        self.scale_F = base.std(axis=(0, 1, 2))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what `style` reads, in its order."""
        return ("tokens", *(score.name for score in self.ledger.secondary), *PROPORTIONS)

    def style(self, arm: str, point: int, stream: int = STREAM) -> FloatArray:
        """`[S, P, M, F]`, in the units of the features."""
        texts = self.ledger.array(arm, "response", point, stream)
        numbers = [self.ledger.numbers(arm, "num_tokens", point, stream)]
        numbers += [values(self.ledger, score, arm, point, stream) for score in self.ledger.secondary]
        read = np.array([proportions(str(text)) for text in texts.flat]).reshape(*texts.shape, -1)
        return np.concatenate([np.stack(numbers, axis=-1), read], axis=-1)

    def mean_style(self, arm: str, point: int, stream: int = STREAM) -> FloatArray:
        """`[S, P, F]` in SD of the base over responses; a feature in which the base does not vary is left out."""
        varies = self.scale_F > 0
        means: FloatArray = self.style(arm, point, stream).mean(axis=2)[..., varies] / self.scale_F[varies]
        return means


# ------------------------------------------------------------------------------------------------------ pure statistics
def changed(earlier_SPM: npt.NDArray[Any], later_SPM: npt.NDArray[Any]) -> FloatArray:
    """Percent of a prompt's responses that are another text, `[S, P]`."""
    return np.asarray(100 * (earlier_SPM != later_SPM).mean(axis=2))


def style_change(moves_SNPF: FloatArray, reduce: Callable[[FloatArray], FloatArray], resamples: Resamples) -> Estimate:
    """A summary over N moves of the size of the mean move, with the evaluation noise taken out.

    Args:
        moves_SNPF: change of each feature per prompt, SD of the base.
        reduce: over the last axis, of length N; rises with each of them.
        resamples: of prompts.
    """
    numbers = [_size_of_moves(moves_NPF, reduce, resamples.prompts) for moves_NPF in moves_SNPF]
    return over_seeds(numbers, "SD of responses", moves_SNPF.shape[2], minimum=0)


def _size_of_moves(
    moves_NPF: FloatArray, reduce: Callable[[FloatArray], FloatArray], prompts_BP: FloatArray
) -> SeedNumber:
    """One seed's.

    Noise makes every distance larger: the mean square over features of the mean move is too large by the variance of
    those means, and in a resample by it once more. Without it the square may be negative, which is no distance. The
    interval comes from a band that holds for all squares at once, see `simultaneous_half_widths`.
    """
    num_prompts = moves_NPF.shape[1]
    noise_N = moves_NPF.var(axis=1, ddof=1).mean(axis=-1) / num_prompts
    square_N = (moves_NPF.mean(axis=1) ** 2).mean(axis=-1) - noise_N
    means_BNF = np.einsum("bp,npf->bnf", prompts_BP, moves_NPF, optimize=True)
    half_N = simultaneous_half_widths(square_N, (means_BNF**2).mean(axis=-1) - 2 * noise_N, num_prompts)
    value, low, high = (
        float(reduce(np.sqrt(np.clip(ends_N, 0, None)))) for ends_N in (square_N, square_N - half_N, square_N + half_N)
    )
    return SeedNumber(value, low, high)


def answer_change(
    changed_SNP: FloatArray, reduce: Callable[[FloatArray], FloatArray], resamples: Resamples
) -> Estimate:
    """The same for the percent of changed answers, `[S, N, P]`; a mean, in which noise cancels."""
    num_seeds, _, n = changed_SNP.shape
    value = float(reduce(changed_SNP.mean(axis=2)).mean())
    draws = resamples.average_seeds(reduce(np.einsum("bp,snp->bsn", resamples.prompts, changed_SNP, optimize=True)))
    return recentred_estimate(value, draws, "percent", n, num_seeds, minimum=0, maximum=100)


def _mean(values: FloatArray) -> FloatArray:
    return np.asarray(values.mean(axis=-1))


def _largest(values: FloatArray) -> FloatArray:
    return np.asarray(values.max(axis=-1))


# -------------------------------------------------------------------------------------------------------------- one arm
def behaviour_of(responses: Responses, arm: str, resamples: Resamples) -> Behaviour:
    """Changed answers and style of one arm, step by step."""
    ledger, num_seeds = responses.ledger, len(responses.ledger.seeds(arm))
    points = range(ledger.final_point + 1)

    def all_seeds(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(values, num_seeds, axis=0) if len(values) < num_seeds else values

    texts = [all_seeds(ledger.array(arm, "response", point)) for point in points]
    styles = [all_seeds(responses.mean_style(arm, point)).astype(np.float64) for point in points]
    answers = np.stack([changed(one, two) for one, two in pairwise(texts)], axis=1)
    moves = np.stack([two - one for one, two in pairwise(styles)], axis=1)
    again = ledger.array(BASE, "response", stream=FLOOR_STREAM)
    floor = responses.mean_style(BASE, 0, FLOOR_STREAM) - responses.mean_style(BASE, 0)
    return Behaviour(
        Change(
            answer_change(answers, _mean, resamples),
            answer_change(answers, _largest, resamples),
            mean_estimate(changed(texts[0], texts[-1]), resamples, "percent"),
            mean_estimate(changed(texts[0][:1], again), resamples, "percent"),
        ),
        Change(
            style_change(moves, _mean, resamples),
            style_change(moves, _largest, resamples),
            style_change((styles[-1] - styles[0])[:, None], _mean, resamples),
            style_change(floor[:, None], _mean, resamples),
        ),
        responses.features,
    )
