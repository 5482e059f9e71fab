"""How far the style moved from the base, always beside how far the base moves from itself.

Paired means compare arm and base under the same random numbers (stream 1). Distances of distributions compare the arm
under stream 1 with the base under stream 2, because common random numbers would make an unchanged model look closer
than chance. The floor is the base under stream 1 against the base under stream 2.

A word is a run of letters, digits and apostrophes, in lower case; an empty response counts as one special word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.load import BASE, FLOOR_STREAM, STREAM, Ledger
from analysis.statistics import (
    CONFIDENCE_LEVEL,
    Estimate,
    FloatArray,
    Resamples,
    estimate_from_draws,
    mean_draws,
    mean_estimate,
    ratio_estimate,
    recentred_estimate,
)

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
LOOP_WORDS = 4
EMPTY = ""  # stands for a response without words

Words = list[str]
ABOVE, NOT_ABOVE = "above the floor", "not above the floor"


@dataclass(frozen=True)
class Drift:
    """One measure of one arm.

    Attributes:
        ours, base: the two means; None for a distance, which has no value of its own for either side.
        change: arm minus base, or the distance between them.
        base_vs_base: the same number for the base's two sets of random numbers.
        floor: what the base shows against itself in 95 % of random swaps of the two sets, prompt by prompt, in the unit
            of the change.
        ratio: size of the change over the floor; None where the floor is zero.
        reading: ABOVE where the whole interval of the ratio is over 1, otherwise NOT_ABOVE.
    """

    measure: str
    meaning: str
    ours: Estimate | None
    base: Estimate | None
    change: Estimate
    base_vs_base: Estimate
    floor: float
    ratio: Estimate | None
    reading: str


@dataclass(frozen=True)
class Divergence:
    """KL(arm || base) from the arm's own samples: mean of log pi - log pi_base (the k1 estimator), in nats."""

    per_response: Estimate
    per_token: Estimate


@dataclass(frozen=True)
class Paired:
    """A paired measure: a number for each response, given its partner's text, so that lengths can be matched."""

    name: str
    meaning: str
    unit: str
    score: Callable[[Response, Response], float]


@dataclass(frozen=True)
class Response:
    """What the measures see of a response."""

    words: Words
    num_tokens: float
    vader: float
    cut: bool  # stopped by the length limit

    @property
    def repeated(self) -> float:
        """Share of four-word runs seen before in this response."""
        return repeated_share(self.words)


# -------------------------------------------------------------------------------------------------------- text features
def words(text: str) -> Words:
    """The words of a response."""
    return WORD.findall(text.lower()) or [EMPTY]


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def distinct(tokens: Words, length: int, n: int) -> float:
    """Share of different n-grams among the first `length` words (Li et al. 2016, arXiv:1510.03055); 1 if there is none.

    Raw distinct-n falls with length, so both sides of a pair are cut to the length of the shorter.
    """
    grams = ngrams(tokens[:length], n)
    return len(set(grams)) / len(grams) if grams else 1.0


def repeated_share(tokens: Words, n: int = LOOP_WORDS) -> float:
    """Share of n-grams that occurred before in the same response."""
    grams = ngrams(tokens, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _distinct(n: int) -> Callable[[Response, Response], float]:
    return lambda ours, partner: 100 * distinct(ours.words, min(len(ours.words), len(partner.words)), n)


MEASURES = (
    Paired("length", "response length", "tokens", lambda ours, _: ours.num_tokens),
    Paired("words", "response length", "words", lambda ours, _: float(len(ours.words))),
    Paired("cut_share", "responses cut at the length limit", "percent", lambda ours, _: 100.0 * ours.cut),
    Paired("distinct_1", "different words, both sides cut to the shorter's length", "percent", _distinct(1)),
    Paired("distinct_2", "different word pairs, both sides cut to the shorter's length", "percent", _distinct(2)),
    Paired("repeated_4grams", "four-word runs seen before", "percent", lambda ours, _: 100 * ours.repeated),
    Paired("loop_share", "responses with a repeated run", "percent", lambda ours, _: 100.0 * (ours.repeated > 0)),
    Paired("sentiment", "VADER of prompt and response, −1 to 1", "compound", lambda ours, _: ours.vader),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ pure statistics
def jensen_shannon(p: FloatArray, q: FloatArray) -> FloatArray:
    """Jensen-Shannon distance, base 2, over the last axis (0 = same, 1 = disjoint; Endres & Schindelin 2003).

    Args:
        p: non-negative counts or probabilities with a positive sum.
        q: the same for the other side.
    """
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.sqrt(np.clip(divergence, 0, 1))


def _relative_entropy(p: FloatArray, q: FloatArray) -> FloatArray:
    """KL(p || q) in bits over the last axis, with 0 log 0 = 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    total: FloatArray = (p * np.log2(ratio)).sum(axis=-1)
    return total


def paired_floor(differences_P: FloatArray, resamples: Resamples) -> float:
    """What |mean difference| stays under in 95 % of random sign flips per prompt (the base against itself)."""
    flips = 2 * resamples.swaps - 1
    return float(np.quantile(np.abs(flips @ differences_P) / len(differences_P), CONFIDENCE_LEVEL))


def distance_floor(one_PV: FloatArray, two_PV: FloatArray, resamples: Resamples) -> float:
    """What the distance stays under in 95 % of random swaps of the two sides per prompt.

    Args:
        one_PV: word counts per prompt under one set of random numbers.
        two_PV: the same under the other.
        resamples: for its swaps.
    """
    swapped = _weighted_distances(resamples.swaps, one_PV - two_PV, two_PV.sum(axis=0), one_PV.sum(axis=0))
    return float(np.quantile(swapped, CONFIDENCE_LEVEL))


def _weighted_distances(weights: FloatArray, moved: FloatArray, start: FloatArray, other: FloatArray) -> FloatArray:
    """Distances `[B]` between start + w·moved and other - w·moved, in blocks that fit in memory."""
    blocks = np.array_split(weights, max(1, weights.shape[0] // 256))
    return np.concatenate([jensen_shannon(start + block @ moved, other - block @ moved) for block in blocks])


def distance_draws(ours_PV: FloatArray, theirs_PV: FloatArray, prompts: FloatArray) -> FloatArray:
    """Bootstrap distances `[B]`: both sides' word counts reweighted by prompt, the distance computed again."""
    blocks = np.array_split(prompts, max(1, prompts.shape[0] // 256))
    return np.concatenate([jensen_shannon(block @ ours_PV, block @ theirs_PV) for block in blocks])


def reading(ratio: Estimate | None, change: Estimate) -> str:
    """In words, by the interval. A floor of zero is exceeded by any change that excludes zero."""
    if ratio is None:
        return ABOVE if change.excludes(0) else NOT_ABOVE
    return ABOVE if ratio.low > 1 else NOT_ABOVE


# -------------------------------------------------------------------------------------------------------------- one arm
def assess(ledger: Ledger, arm: str, resamples: Resamples) -> list[Drift]:
    """All measures of the final model of one arm against the base."""
    ours, base, again = responses(ledger, arm), responses(ledger, BASE), responses(ledger, BASE, FLOOR_STREAM)
    paired = [_paired_drift(measure, ours, base, again, resamples) for measure in MEASURES]
    return [*paired, _unigram_drift(ours, base, again, resamples)]


def divergence(ledger: Ledger, arm: str, resamples: Resamples, point: int | None = None) -> Divergence:
    """KL to the base at one evaluation point, by response and by token."""
    policy, base = (ledger.numbers(arm, column, point) for column in ("logp_policy", "logp_base"))
    nats, tokens = (policy - base).mean(axis=2), ledger.numbers(arm, "num_tokens", point).mean(axis=2)
    return Divergence(mean_estimate(nats, resamples, "nats"), ratio_estimate(nats, tokens, resamples, "nats per token"))


def responses(ledger: Ledger, arm: str, stream: int = STREAM) -> npt.NDArray[Any]:
    """The final model's responses, `[S, P, M]` of `Response`."""
    columns = [ledger.array(arm, name, stream=stream) for name in ("response", "num_tokens", "vader", "finish_reason")]
    cells = np.empty(columns[0].shape, dtype=object)
    for index in np.ndindex(cells.shape):
        text, num_tokens, vader, finish = (column[index] for column in columns)
        cells[index] = Response(words(str(text)), float(num_tokens), float(vader), finish == "length")
    return cells


def _scores(measure: Paired, ours: npt.NDArray[Any], partner: npt.NDArray[Any]) -> FloatArray:
    """Mean over samples, `[S, P]`."""
    scored = np.frompyfunc(measure.score, 2, 1)(ours, partner)
    means: FloatArray = scored.astype(np.float64).mean(axis=2)
    return means


def _paired_drift(
    measure: Paired, ours: npt.NDArray[Any], base: npt.NDArray[Any], again: npt.NDArray[Any], resamples: Resamples
) -> Drift:
    ours_SP, base_SP = _scores(measure, ours, base), _scores(measure, base, ours)
    self_SP = _scores(measure, base, again) - _scores(measure, again, base)
    change = mean_estimate(ours_SP - base_SP, resamples, measure.unit)
    floor = paired_floor(self_SP[0], resamples)
    ratio = None
    if floor > 0:
        draws = np.abs(mean_draws(ours_SP - base_SP, resamples)) / floor
        ratio = estimate_from_draws(abs(change.value) / floor, draws, "times the floor", change.n, change.num_seeds)
    return Drift(
        measure.name,
        measure.meaning,
        mean_estimate(ours_SP, resamples, measure.unit),
        mean_estimate(base_SP, resamples, measure.unit),
        change,
        mean_estimate(self_SP, resamples, measure.unit),
        floor,
        ratio,
        reading(ratio, change),
    )


def _unigram_drift(
    ours: npt.NDArray[Any], base: npt.NDArray[Any], again: npt.NDArray[Any], resamples: Resamples
) -> Drift:
    vocabulary = _vocabulary(ours, base, again)
    ours_SPV, base_PV, again_PV = (
        _counts(ours, vocabulary), _counts(base, vocabulary)[0], _counts(again, vocabulary)[0],
    )  # fmt: skip
    num_seeds, n = ours.shape[:2]
    value = float(np.mean([jensen_shannon(counts.sum(axis=0), again_PV.sum(axis=0)) for counts in ours_SPV]))
    draws = resamples.average_seeds(
        np.stack([distance_draws(counts, again_PV, resamples.prompts) for counts in ours_SPV], axis=1)
    )
    floor = distance_floor(base_PV, again_PV, resamples)
    change = recentred_estimate(value, draws, "distance", n, num_seeds, minimum=0, maximum=1)
    ratio = None
    if floor > 0:
        ratio = recentred_estimate(value / floor, draws / floor, "times the floor", n, num_seeds, minimum=0)
    self_value = float(jensen_shannon(base_PV.sum(axis=0), again_PV.sum(axis=0)))
    self_draws = distance_draws(base_PV, again_PV, resamples.prompts)
    return Drift(
        "unigram_jsd",
        "Jensen–Shannon distance of word frequencies, 0 to 1",
        None,
        None,
        change,
        recentred_estimate(self_value, self_draws, "distance", n, minimum=0, maximum=1),
        floor,
        ratio,
        reading(ratio, change),
    )


def _vocabulary(*cells: npt.NDArray[Any]) -> dict[str, int]:
    seen = sorted({word for group in cells for response in group.flat for word in response.words})
    return {word: position for position, word in enumerate(seen)}


def _counts(cells: npt.NDArray[Any], vocabulary: dict[str, int]) -> FloatArray:
    """Word counts per prompt, `[S, P, V]`."""
    counts = np.zeros((*cells.shape[:2], len(vocabulary)))
    for seed, prompt in np.ndindex(cells.shape[:2]):
        for word, count in Counter(word for response in cells[seed, prompt] for word in response.words).items():
            counts[seed, prompt, vocabulary[word]] = count
    return counts
