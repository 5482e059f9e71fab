from __future__ import annotations

import numpy as np
import pytest

from analysis.style import semantic


def test_cosine_distance_by_hand():
    rows = semantic.unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.tolist() == [[0.6, 0.8], [0.0, 0.0]]
    assert semantic.cosine_distance(rows, np.array([[1.0, 0.0], [1.0, 0.0]])).tolist() == pytest.approx([0.4, 1.0])


def test_random_features_have_the_gaussian_kernels_inner_products_and_its_discrepancy():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(30, 3)), 0.7 + rng.normal(size=(30, 3))

    def kernel(x, y):
        return np.exp(-((x[:, None] - y[None]) ** 2).sum(axis=2) / (2 * 1.5**2))

    exact = kernel(one, one).mean() + kernel(two, two).mean() - 2 * kernel(one, two).mean()
    found = []
    for seed in range(40):
        features = semantic.RandomFeatures.draw(3, 1.5, np.random.default_rng(seed))
        means = [features.per_prompt(side, np.arange(30)).mean(axis=0) for side in (one, two)]
        found.append(semantic.mean_discrepancy(*means) ** 2)
    assert np.mean(found) == pytest.approx(exact, rel=0.1)


def test_features_are_averaged_within_prompts():
    rows = np.random.default_rng(0).normal(size=(4, 2))
    features = semantic.RandomFeatures.draw(2, 1.0, np.random.default_rng(1))
    each = features.per_prompt(rows, np.arange(4))
    assert features.per_prompt(rows, np.array([0, 0, 1, 1])) == pytest.approx((each[::2] + each[1::2]) / 2)


def test_no_text_is_embedded_by_a_fit_on_its_own_prompt():
    """Unknown words of odd prompts are known from the even ones only."""
    texts = ["sea wave boat", "sea wave fish", "sea boat fish", "hill rock goat", "hill rock snow", "hill goat snow"]
    embedder = semantic.tfidf_embedder(texts, np.array([0, 0, 0, 1, 1, 1]))
    assert "TF-IDF" in embedder.name
    even, odd = embedder.embed(["sea boat", "sea boat"], np.array([0, 1]))
    assert np.linalg.norm(even) == 0
    assert np.linalg.norm(odd) == pytest.approx(1)


def test_texts_that_share_no_words_cannot_be_embedded():
    assert semantic.tfidf_embedder(["one", "two", "three", ""], np.arange(4)) is None


def test_median_distance_of_equal_rows_is_usable():
    assert semantic.median_distance(np.ones((5, 2)), np.random.default_rng(0)) == 1.0
