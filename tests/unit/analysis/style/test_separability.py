from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from analysis.style import separability
from analysis.style.corpus import Vocabulary, read_corpus


def test_auc_by_hand_and_against_scipy():
    ours, theirs = np.array([3.0, 1.0]), np.array([2.0, 1.0])
    # pairs: 3>2, 3>1, 1<2, 1=1: (1 + 1 + 0 + 1/2) / 4
    for contributions in (separability.auc_contributions, separability.rank_differences):
        values = contributions(ours, theirs, np.array([0, 1]))
        shift = 0.5 if contributions is separability.rank_differences else 0
        assert values.mean() + shift == pytest.approx(0.625)
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=40).round(1), rng.normal(0.5, size=40).round(1)
    auc = mannwhitneyu(one, two).statistic / 1600
    prompts = np.repeat(np.arange(10), 4)
    assert separability.auc_contributions(one, two, prompts).mean() == pytest.approx(auc)
    assert separability.rank_differences(one, two, prompts).mean() + 0.5 == pytest.approx(auc)


def test_swapping_a_prompts_sides_turns_the_sign_of_its_number():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 6))
    prompts = np.array([0, 0, 1, 1, 2, 2])
    swapped = prompts == 1
    before = separability.rank_differences(one, two, prompts)
    after = separability.rank_differences(np.where(swapped, two, one), np.where(swapped, one, two), prompts)
    assert after == pytest.approx(before * [1, -1, 1])


def corpora(ours: list[str], theirs: list[str], samples: int = 2):
    vocabulary = Vocabulary.empty()
    prompts = np.repeat(np.arange(len(ours) // samples), samples)
    return [read_corpus(np.array([side], dtype=object), prompts, {}, vocabulary) for side in (ours, theirs)]


def plain_texts(rng: np.random.Generator, count: int) -> list[str]:
    vocabulary = ["film", "story", "people", "some", "scenes", "plain", "old", "town"]
    return [" ".join(rng.choice(vocabulary, size=rng.integers(12, 20))) + "." for _ in range(count)]


def test_what_was_changed_is_named():
    rng = np.random.default_rng(0)
    theirs = plain_texts(rng, 80)
    ours = [text.replace(".", "!").replace("story", "movie") for text in plain_texts(rng, 80)]
    found = separability.separate(*corpora(ours, theirs))
    assert found.auc_SP.mean() > 0.99
    directions = [item.direction for item in found.moved]
    assert "more exclamation marks" in directions
    assert "more of the word “movie”" in directions
    assert "fewer of the mark ." in directions


def test_the_same_texts_on_both_sides_cannot_be_told_apart():
    texts = plain_texts(np.random.default_rng(1), 60)
    found = separability.separate(*corpora(texts, list(texts)))
    assert found.auc_SP.mean() == pytest.approx(0.5)
    assert found.swap_SP == pytest.approx(0)


def test_nothing_is_learnt_about_a_prompt_that_is_tested():
    """A prompt's two responses on a side share a fingerprint: knowing one of them gives the other away."""
    is_ours, prompts = np.arange(160) < 80, np.tile(np.repeat(np.arange(40), 2), 2)

    def mean_auc(groups: np.ndarray) -> float:
        found = []
        for seed in range(12):
            fingerprint = np.random.default_rng(seed).normal(size=(2, 40, 30))
            values = np.concatenate([np.repeat(side, 2, axis=0) for side in fingerprint])
            score = separability.held_out_scores(values, is_ours, groups)
            found.append(separability.auc_contributions(score[:80], score[80:], prompts[:80]).mean())
        return float(np.mean(found))

    assert mean_auc(prompts) == pytest.approx(0.5, abs=0.07)
    assert mean_auc(np.arange(160)) > 0.7


def test_too_few_prompts_for_five_folds():
    texts = plain_texts(np.random.default_rng(3), 8)
    assert separability.separate(*corpora(texts, texts)) is None
