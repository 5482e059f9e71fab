"""Behavioural oscillation: how much the responses change from one evaluation point to the next.

Successive points answer the same prompts under the same random numbers, so a model that has not moved gives the same
answers, letter by letter. Two sets of samples of the base, under different random numbers, show the other end: how much
answers and style differ by chance alone.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.load import BASE, FLOOR_STREAM, STREAM, Ledger
from analysis.statistics import Estimate, FloatArray, Resamples, mean_estimate, recentred_estimate

NO_PUNCTUATION, NO_CAPITALS = (dict.fromkeys(map(ord, signs)) for signs in (string.punctuation, string.ascii_uppercase))
FEATURES = ("tokens", "sentiment", "characters a word", "punctuation", "capitals", "different words")


@dataclass(frozen=True)
class Change:
    """One measure of change.

    Attributes:
        mean_step, largest_step: over the steps between successive points.
        in_all: the final model against the base; well below the sum of the steps where a run goes back and forth.
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
        style: root mean square over `features` of the change of the mean, each in SD of the base over responses.
    """

    answers: Change
    style: Change
    features: tuple[str, ...] = FEATURES


def surface(text: str) -> tuple[float, float, float, float]:
    """Characters a word, share of punctuation and of capitals (ASCII) among them, share of different words."""
    words, length = text.split(), max(1, len(text))
    punctuation, capitals = (len(text) - len(text.translate(without)) for without in (NO_PUNCTUATION, NO_CAPITALS))
    return (
        len(text) / max(1, len(words)),
        punctuation / length,
        capitals / length,
        len(set(words)) / len(words) if words else 1.0,
    )


class Responses:
    """Texts and style of every point of the base and the arms; the base's style is read once."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        base = self.style(BASE, 0)
        self.scale_F = base.std(axis=(0, 1, 2))

    def style(self, arm: str, point: int, stream: int = STREAM) -> FloatArray:
        """`[S, P, M, F]`, in the units of the features."""
        texts = self.ledger.array(arm, "response", point, stream)
        numbers = [self.ledger.numbers(arm, name, point, stream) for name in ("num_tokens", "vader")]
        read = np.array([surface(str(text)) for text in texts.flat]).reshape(*texts.shape, -1)
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


def root_mean_square(values: FloatArray) -> FloatArray:
    """Over the last axis."""
    return np.asarray(np.sqrt((values**2).mean(axis=-1)))


def style_change(moves_SNPF: FloatArray, reduce: Callable[[FloatArray], FloatArray], resamples: Resamples) -> Estimate:
    """A summary over N moves of the size of the mean move; a distance, so its interval is moved to its value.

    Args:
        moves_SNPF: change of each feature per prompt, SD of the base.
        reduce: over the last axis, of length N.
        resamples: of prompts and seeds.
    """
    num_seeds, _, n, _ = moves_SNPF.shape
    value = float(reduce(root_mean_square(moves_SNPF.mean(axis=2))).mean())
    draws_BSNF = np.einsum("bp,snpf->bsnf", resamples.prompts, moves_SNPF, optimize=True)
    draws = resamples.average_seeds(reduce(root_mean_square(draws_BSNF)))
    return recentred_estimate(value, draws, "SD of responses", n, num_seeds, minimum=0)


def answer_change(
    changed_SNP: FloatArray, reduce: Callable[[FloatArray], FloatArray], resamples: Resamples
) -> Estimate:
    """The same for the percent of changed answers, `[S, N, P]`."""
    num_seeds, _, n = changed_SNP.shape
    value = float(reduce(changed_SNP.mean(axis=2)).mean())
    draws = resamples.average_seeds(reduce(np.einsum("bp,snp->bsn", resamples.prompts, changed_SNP, optimize=True)))
    return recentred_estimate(value, draws, "percent", n, num_seeds, minimum=0, maximum=100)


def _mean(values: FloatArray) -> FloatArray:
    return np.asarray(values.mean(axis=-1))


def _largest(values: FloatArray) -> FloatArray:
    return np.asarray(values.max(axis=-1))


# -------------------------------------------------------------------------------------------------------------- one arm
def assess(responses: Responses, arm: str, resamples: Resamples) -> Behaviour:
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
    )
