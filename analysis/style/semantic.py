"""Meaning, as far as an embedding shows it: whether a response says something else, not only says it differently.

The embedder is an argument with a name. Without a model there is one that needs none: TF-IDF and SVD.

Shapes: N responses, D dimensions, P prompts, R random features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline

from analysis.statistics.bootstrap import FloatArray
from analysis.style.corpus import IntArray
from analysis.style.scripts import find_words

NUM_DIMENSIONS = 64
NUM_RANDOM_FEATURES = 256
NUM_FOR_BANDWIDTH = 400  # rows that the median distance is taken over


@dataclass(frozen=True)
class Embedder:
    """Texts, and the numbers of their prompts, to rows of length 1 (0 if nothing is known of a text), `[N, D]`."""

    name: str
    embed: Callable[[Sequence[str], IntArray], FloatArray]


def recorded_embedder(name: str, texts: Sequence[str], rows_ND: FloatArray) -> Embedder:
    """One that knows just these texts, by vectors that were computed elsewhere."""
    units = dict(zip(texts, unit_rows(rows_ND), strict=True))
    return Embedder(name, lambda texts, _: np.stack([units[text] for text in texts]))


def tfidf_embedder(texts: Sequence[str], prompt_N: IntArray) -> Embedder | None:
    """TF-IDF and SVD fitted on these texts; None if they share too few words.

    Fitted twice: on the even prompts for texts of the odd ones, and the other way round, in dimensions of their own.
    Texts lie nearer to an embedding that was fitted on them than others of the same model do, which would look like
    drift.
    """
    halves = [[text for text, prompt in zip(texts, prompt_N, strict=True) if prompt % 2 != half] for half in (0, 1)]
    spaces = [space for half in halves if (space := _fit(half))]
    if len(spaces) < len(halves):
        return None
    widths = [space.named_steps["svd"].n_components for space in spaces]

    def embed(texts: Sequence[str], prompt_N: IntArray) -> FloatArray:
        rows = np.zeros((len(texts), sum(widths)))
        for half, start in ((0, 0), (1, widths[0])):
            chosen = np.flatnonzero(prompt_N % 2 == half)
            block = spaces[half].transform([texts[int(at)] for at in chosen])
            rows[chosen, start : start + widths[half]] = unit_rows(block)
        return rows

    name = (
        f"TF-IDF and SVD in {min(widths)} dimensions, fitted on the base's responses to the other half of the prompts"
    )
    return Embedder(f"{name} (no language model)", embed)


def _fit(texts: Sequence[str]) -> Pipeline | None:
    tfidf = TfidfVectorizer(tokenizer=find_words, token_pattern=None, sublinear_tf=True, min_df=2)
    try:
        weights = tfidf.fit_transform(texts)
    except ValueError:  # no word occurs in two texts
        return None
    num_dimensions = min(NUM_DIMENSIONS, min(weights.shape) - 1)
    if num_dimensions < 2:
        return None
    svd = TruncatedSVD(num_dimensions, random_state=0).fit(weights)
    return Pipeline([("tfidf", tfidf), ("svd", svd)])


def unit_rows(rows_ND: FloatArray) -> FloatArray:
    """Rows divided by their length; a row of zeros stays."""
    length = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    units: FloatArray = np.divide(rows_ND, length, out=np.zeros_like(rows_ND), where=length > 1e-9)
    return units


def cosine_distance(one_ND: FloatArray, two_ND: FloatArray) -> FloatArray:
    """1 - cos of each pair of unit rows, `[N]`."""
    distance: FloatArray = 1 - (one_ND * two_ND).sum(axis=1)
    return distance


def median_distance(rows_ND: FloatArray, rng: np.random.Generator) -> float:
    """The usual bandwidth of a Gaussian kernel (median heuristic), over some of the rows; 1 if all are the same."""
    chosen = rng.permutation(len(rows_ND))[:NUM_FOR_BANDWIDTH]
    return float(np.median(pdist(rows_ND[chosen]))) or 1.0


@dataclass(frozen=True)
class RandomFeatures:
    """cos(x·w + b)·sqrt(2 / R): their inner products are those of a Gaussian kernel (Rahimi & Recht 2007).

    The maximum mean discrepancy (Gretton et al. 2012) of two sets is then the distance of their mean features, which
    takes time linear in the number of responses.
    """

    weights_DR: FloatArray
    offsets_R: FloatArray

    @classmethod
    def draw(cls, num_dimensions: int, bandwidth: float, rng: np.random.Generator) -> RandomFeatures:
        """For the kernel exp(-|x - y|² / (2 bandwidth²))."""
        weights = rng.normal(size=(num_dimensions, NUM_RANDOM_FEATURES)) / bandwidth
        return cls(weights, rng.uniform(0, 2 * np.pi, NUM_RANDOM_FEATURES))

    def per_prompt(self, rows_ND: FloatArray, prompt_N: IntArray) -> FloatArray:
        """Mean features of each prompt's responses, `[P, R]`."""
        features = np.cos(rows_ND @ self.weights_DR + self.offsets_R) * np.sqrt(2 / NUM_RANDOM_FEATURES)
        starts = np.flatnonzero(np.diff(prompt_N, prepend=-1))
        means: FloatArray = np.add.reduceat(features, starts) / np.bincount(prompt_N)[:, None]
        return means


def mean_discrepancy(one: FloatArray, two: FloatArray) -> FloatArray:
    """Distance of mean features over the last axis: the square root of the (biased) MMD²."""
    distance: FloatArray = np.linalg.norm(one - two, axis=-1)
    return distance
