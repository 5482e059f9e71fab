"""How far the style of a sweep's final models moved from the base, always beside how far the base moves from itself.

The measures are those of `analysis.style.drift`. Paired means compare arm and base under the same random numbers
(stream 1); distances and the classifier compare the arm with the base under stream 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.ledger import BASE, FLOOR_STREAM, STREAM, Ledger
from analysis.scores import values
from analysis.statistics.bootstrap import FloatArray, Resamples
from analysis.style import drift, scripts
from analysis.style.corpus import Corpus, Vocabulary, read_corpus
from analysis.style.drift import Apart, Reference, StyleDrift
from analysis.style.measures import of_score
from analysis.style.semantic import Embedder, recorded_embedder
from experiments.records import ScoreCard

EMBEDDING_SEED = 0  # of the random features


@dataclass(frozen=True)
class SweepStyle:
    """A sweep's final responses, read once."""

    ledger: Ledger
    resamples: Resamples

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of all arms and the base."""
        return Vocabulary.empty()

    @cached_property
    def reference(self) -> Reference:
        """The base under both sets of random numbers."""
        base, again = (self._read(BASE, stream) for stream in (STREAM, FLOOR_STREAM))
        rng = np.random.default_rng(EMBEDDING_SEED)
        scores = tuple(of_score(score.name, score.meaning) for score in self.ledger.secondary)
        rules = self.ledger.rules.style
        return Reference(base, again, self.resamples, rules, rng, self._recorded_embedder(), scores)

    def _recorded_embedder(self) -> Embedder | None:
        """Of the vectors in the ledger, if the sweep chose a sentence encoder."""
        if self.ledger.embeddings is None:
            return None
        final = self.ledger.samples[self.ledger.samples["point"].isin([0, self.ledger.final_point])]
        rows = self.ledger.embeddings.merge(final, on=["arm", "seed", "prompt_id", "sample_id", "stream"])
        vectors = np.array(rows["embedding"].tolist(), dtype=np.float64)
        return recorded_embedder(self.ledger.embedder, [str(text) for text in rows["response"]], vectors)

    @cached_property
    def arms(self) -> dict[str, Corpus]:
        """The final models of all arms."""
        return {arm: self._read(arm) for arm in self.ledger.arms}

    def at_point(self, arm: str, point: int) -> Corpus:
        """An arm's responses at one evaluation point."""
        return self._read(arm, point=point)

    @cached_property
    def drifts(self) -> dict[str, StyleDrift]:
        """All measures of each arm against the base."""
        return {arm: drift.style_drift(corpus, self.reference) for arm, corpus in self.arms.items()}

    def pairs(self) -> list[Apart]:
        """Arms trained from the base that the sweep compares, told apart over the seeds that both have."""
        return drift.tell_apart(
            [
                (one, two, self._with_seeds(one, seeds), self._with_seeds(two, seeds))
                for one, two in self.ledger.between_plain_arms()
                if (seeds := self.ledger.common_seeds(one, two))
            ],
            self.resamples,
            self.ledger.rules.style,
        )

    def context(self) -> dict[str, Any]:
        """What holds for all arms, for report.json."""
        embedder = self.reference.embedder
        return {
            "embedder": embedder.name if embedder else None,
            "rules": self.ledger.rules.style.model_dump(),
            "floor": "the base under one set of random numbers against another",
            "script": scripts.note(*self.reference.scripts, *(corpus.scripts for corpus in self.arms.values())),
            "pairs": [
                {**asdict(pair), "auc": pair.auc.as_dict(), "moved": [asdict(item) for item in pair.moved]}
                for pair in self.pairs()
            ],
        }

    def _with_seeds(self, arm: str, seeds: Sequence[int]) -> Corpus:
        return self.arms[arm].select_seeds([self.ledger.seeds(arm).index(seed) for seed in seeds])

    def _read(self, arm: str, stream: int = STREAM, point: int | None = None) -> Corpus:
        """The responses at a point (default: the final one), prompt by prompt, and what the ledger knows of each."""

        def flat(column: str) -> npt.NDArray[Any]:
            return self.ledger.array(arm, column, point, stream).reshape(len(texts), -1)

        def flat_score(score: ScoreCard) -> FloatArray:
            return values(self.ledger, score, arm, point, stream).reshape(len(texts), -1)

        cells = self.ledger.array(arm, "response", point, stream)
        texts = cells.reshape(len(cells), -1)
        columns = {"num_tokens": flat("num_tokens").astype(np.float64)}
        columns |= {score.name: flat_score(score) for score in self.ledger.secondary}
        columns["cut"] = (flat("finish_reason") == "length").astype(np.float64)
        columns["good"] = (flat_score(self.ledger.measure) >= self._base_median).astype(np.float64)
        prompts = np.repeat(np.arange(cells.shape[1]), cells.shape[2])
        return read_corpus(texts, prompts, columns, self.vocabulary)

    @cached_property
    def _base_median(self) -> float:
        return float(np.median(values(self.ledger, self.ledger.measure, BASE)))
