"""Judges of a text that are no language models: gold and VADER."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import HashingVectorizer

from experiments.tasks.sentiment import Gold

NUM_FEATURES = 2**18


def vectorizer(gold: Gold) -> HashingVectorizer:
    """Presence of hashed n-grams, rows scaled to length 1, so that short and long texts give comparable log-odds."""
    return HashingVectorizer(
        analyzer=gold.analyzer,
        ngram_range=(1, gold.max_ngram),
        n_features=NUM_FEATURES,
        binary=True,
        alternate_sign=False,
        norm="l2",
    )


@dataclass(frozen=True)
class GoldScorer:
    """Probability that a text is positive, from n-gram logistic regression."""

    gold: Gold
    weights: NDArray[np.float32]  # [NUM_FEATURES]
    bias: float

    def score(self, texts: Sequence[str]) -> list[float]:
        """One probability in [0, 1] per text."""
        logits = vectorizer(self.gold).transform(texts) @ self.weights + self.bias
        return (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).tolist()  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the recipe as JSON; nothing is pickled."""
        save_file({"weights": self.weights, "bias": np.array([self.bias])}, folder / "gold.safetensors")
        (folder / "gold.json").write_text(self.gold.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> GoldScorer:
        """What `save` wrote."""
        tensors = load_file(folder / "gold.safetensors")
        gold = Gold.model_validate_json((folder / "gold.json").read_text())
        return cls(gold, tensors["weights"], float(tensors["bias"][0]))


def vader_scores(texts: Sequence[str]) -> list[float]:
    """VADER's compound sentiment in [-1, 1] (Hutto and Gilbert 2014): a lexicon, independent of gold and proxy."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]
