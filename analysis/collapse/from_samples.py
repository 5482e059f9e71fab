"""Collapse seen in the responses: entropy, variety, loops, truncation, empty and identical answers, distance.

Everything is held against the base's responses to the same prompts under the same random numbers. Intervals are over
prompts; a detector fires if the whole interval is beyond its threshold, in the seed that comes off worst.

A word is what stands between blanks, in lower case; in scripts without spaces every letter is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.collapse.readings import (
    Detection,
    Detector,
    Reading,
    detection,
    estimates,
    judge_interval,
    not_assessable,
    worst_seed,
)
from analysis.ledger import BASE, Ledger
from analysis.stability.over_time import Measured
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples
from analysis.style.scripts import split_words
from analysis.style.surface import repeats
from experiments.rules import CollapseRules

ENTROPY = Detector("entropy", "Entropy per token", "−log π of its own samples, percent of the base's")
DISTINCT = Detector(
    "distinct_2", "Different word pairs", "both sides cut to the shorter's length, percent of the base's"
)
LOOPS = Detector("loops", "Loops", "responses with a repeated run of four words, points over the base", signed=True)
TRUNCATED = Detector("truncated", "Cut", "responses cut at the length limit, points over the base", signed=True)
EMPTY = Detector("empty", "Empty", "responses of at most one token, points over the base", signed=True)
IDENTICAL = Detector(
    "identical", "Identical", "responses that answer other prompts too, points over the base", signed=True
)
DISTANCE = Detector("kl_per_token", "KL per token", "to the base, k1 estimator")
JUMP = Detector("kl_jump", "KL jump", "growth of KL per token since the last point; a doubling of a sizeable KL fires")


# ------------------------------------------------------------------------------------------------------- text functions
def distinct_2(words: Sequence[str], length: int) -> float:
    """Share of different word pairs among the first `length` words (Li et al. 2016, arXiv:1510.03055); 1 if none."""
    cut = words[:length]
    pairs = len(cut) - 1
    return len(set(pairwise(cut))) / pairs if pairs > 0 else 1.0


def given_to_several_prompts(texts_PM: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which responses, blanks aside, are given to another prompt too; empty ones are not counted, `[P, M]`."""
    prompts_of: dict[str, set[int]] = defaultdict(set)
    stripped = [[str(text).strip() for text in row] for row in texts_PM]
    for prompt, row in enumerate(stripped):
        for text in row:
            prompts_of[text].add(prompt)
    return np.array([[bool(text) and len(prompts_of[text]) > 1 for text in row] for row in stripped])


def split(texts_PM: npt.NDArray[Any]) -> list[list[list[str]]]:
    """The words of every response."""
    return [[split_words(str(text).lower()) for text in row] for row in texts_PM]


# ---------------------------------------------------------------------------------------------------------- one model
@dataclass(frozen=True)
class Marks:
    """Means over the samples of a prompt, `[S, P]`. Shares are 0 to 1; `distinct_2` is against the base's samples."""

    surprise: FloatArray  # nats a response, under the model itself
    distance: FloatArray  # nats a response, log pi - log pi_base
    tokens: FloatArray
    distinct_2: FloatArray
    distinct_2_of_base: FloatArray
    loops: FloatArray
    truncated: FloatArray
    empty: FloatArray
    identical: FloatArray

    @classmethod
    def of(cls, ledger: Ledger, arm: str, point: int, base_words: list[list[list[str]]]) -> Marks:
        """Read one evaluation point."""
        texts_SPM = ledger.array(arm, "response", point)
        tokens_SPM, policy_SPM, base_SPM = (
            ledger.numbers(arm, name, point) for name in ("num_tokens", "logp_policy", "logp_base")
        )
        per_text = np.array([_text_marks(split(texts_PM), base_words) for texts_PM in texts_SPM])  # [S, P, 3]
        identical = np.stack([given_to_several_prompts(texts_PM) for texts_PM in texts_SPM])
        return cls(
            surprise=-policy_SPM.mean(axis=2),
            distance=(policy_SPM - base_SPM).mean(axis=2),
            tokens=tokens_SPM.mean(axis=2),
            distinct_2=per_text[..., 0],
            distinct_2_of_base=per_text[..., 1],
            loops=per_text[..., 2],
            truncated=(ledger.array(arm, "finish_reason", point) == "length").mean(axis=2),
            empty=(tokens_SPM <= 1).mean(axis=2),
            identical=identical.mean(axis=2),
        )


def _text_marks(ours: list[list[list[str]]], base: list[list[list[str]]]) -> list[list[float]]:
    """distinct-2, that of the base, share of loops; one row a prompt."""
    marks = []
    for row, base_row in zip(ours, base, strict=True):
        lengths = [min(len(one), len(two)) for one, two in zip(row, base_row, strict=True)]
        triples = [
            (distinct_2(one, length), distinct_2(two, length), float(repeats(one)))
            for one, two, length in zip(row, base_row, lengths, strict=True)
        ]
        marks.append([float(np.mean(column)) for column in zip(*triples, strict=True)])
    return marks


# ------------------------------------------------------------------------------------------------------------- one arm
class SampleDetectors:
    """All detectors of one arm's responses, over its evaluation points."""

    def __init__(self, ledger: Ledger, arm: str, resamples: Resamples, rules: CollapseRules) -> None:
        self.seeds, self.rules, self.weights = ledger.seeds(arm), rules, resamples.prompts
        self.points = list(range(1, ledger.final_point + 1))
        base_words = split(ledger.array(BASE, "response")[0])
        self.base = Marks.of(ledger, BASE, 0, base_words)
        self.marks = [Marks.of(ledger, arm, point, base_words) for point in self.points]

    def all(self) -> Iterator[Detection]:
        """Every detector."""
        rules = self.rules
        yield self._entropy()
        yield self._ratio(DISTINCT, "distinct_2", "distinct_2_of_base", rules.min_distinct_2_ratio)
        yield self._extra(LOOPS, "loops", rules.max_extra_loops)
        yield self._extra(TRUNCATED, "truncated", rules.max_extra_truncated)
        yield self._extra(EMPTY, "empty", rules.max_extra_empty)
        yield self._extra(IDENTICAL, "identical", rules.max_extra_identical)
        yield from self._distance()

    def _stack(self, name: str) -> FloatArray:
        """`[S, N, P]`."""
        return np.stack([getattr(marks, name) for marks in self.marks], axis=1)

    def _draws(self, values_SNP: FloatArray) -> FloatArray:
        """Bootstrap means `[B, S, N]`."""
        num_seeds, num_points, n = values_SNP.shape
        flat = self.weights @ values_SNP.reshape(-1, n).T
        return flat.reshape(len(self.weights), num_seeds, num_points)

    def _detect(
        self, detector: Detector, value_SN: FloatArray, draws_BSN: FloatArray, unit: str, threshold: float, above: bool
    ) -> Detection:
        readings = [
            worst_seed(
                [
                    self._reading(point, seed, estimate, threshold, above)
                    for seed, estimate in zip(self.seeds, by_seed, strict=True)
                ],
                above,
            )
            for point, by_seed in zip(
                self.points, estimates(value_SN, draws_BSN, unit, self.weights.shape[1]), strict=True
            )
        ]
        return detection(detector, readings)

    @staticmethod
    def _reading(point: int, seed: int, estimate: Estimate, threshold: float, above: bool) -> Reading:
        reply = judge_interval(estimate, threshold, above)
        why = "beyond the threshold, but its interval is not" if reply == "inconclusive" else ""
        return Reading(point, seed, estimate, Measured(threshold, estimate.unit), reply, why)

    def _entropy(self) -> Detection:
        base_nats, base_tokens = self.base.surprise, self.base.tokens
        of_base = float(base_nats.mean() / base_tokens.mean())
        if of_base <= 0:
            return not_assessable(ENTROPY, self.points, "the base's own entropy is zero: it was sampled greedily")
        nats, tokens = self._stack("surprise"), self._stack("tokens")
        base_draws = (self.weights @ base_nats[0]) / (self.weights @ base_tokens[0])
        value = 100 * nats.mean(axis=2) / tokens.mean(axis=2) / of_base
        draws = 100 * self._draws(nats) / self._draws(tokens) / base_draws[:, None, None]
        return self._detect(ENTROPY, value, draws, "percent", 100 * self.rules.min_entropy_ratio, above=False)

    def _ratio(self, detector: Detector, name: str, reference: str, minimum: float) -> Detection:
        ours, theirs = self._stack(name), self._stack(reference)
        value = 100 * ours.mean(axis=2) / theirs.mean(axis=2)
        draws = 100 * self._draws(ours) / self._draws(theirs)
        return self._detect(detector, value, draws, "percent", 100 * minimum, above=False)

    def _extra(self, detector: Detector, name: str, maximum: float) -> Detection:
        base_SP = getattr(self.base, name)
        if base_SP.mean() + maximum > 1:
            why = f"{100 * base_SP.mean():.0f} % of the base's own responses: {100 * maximum:.0f} points more cannot be"
            return not_assessable(detector, self.points, why)
        extra = 100 * (self._stack(name) - base_SP[:, None])
        return self._detect(detector, extra.mean(axis=2), self._draws(extra), "percent", 100 * maximum, above=True)

    def _distance(self) -> Iterator[Detection]:
        nats, tokens = self._stack("distance"), self._stack("tokens")
        value, draws = nats.mean(axis=2) / tokens.mean(axis=2), self._draws(nats) / self._draws(tokens)
        unit, rules = "nats per token", self.rules
        yield self._detect(DISTANCE, value, draws, unit, rules.max_kl_per_token, above=True)
        growth, growth_draws = (np.diff(part, axis=-1, prepend=0) for part in (value, draws))
        before = np.concatenate([np.zeros((len(value), 1)), value[:, :-1]], axis=1)
        readings = []
        for position, by_seed in enumerate(estimates(growth, growth_draws, unit, self.weights.shape[1])):
            limits = np.maximum(rules.min_kl_jump, before[:, position])
            rows = zip(self.seeds, by_seed, limits, strict=True)
            found = [self._reading(self.points[position], seed, jump, float(limit), True) for seed, jump, limit in rows]
            readings.append(worst_seed(found, above=True))
        yield detection(JUMP, readings)
