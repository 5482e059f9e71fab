from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from analysis.style import lexical
from analysis.style.corpus import Numbering, Tokens, Vocabulary, count_marks


def tokens(*responses: str) -> tuple[Tokens, ...]:
    numbering = Numbering()
    return tuple(Tokens.of([[numbering[word] for word in text.split()] for text in side]) for side in responses)


def test_jensen_shannon_by_hand():
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): JSD = (log2(4/3) + 1/2 log2(2/3) + 1/2 log2 2) / 2
    by_hand = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5) / 2
    assert lexical.jensen_shannon(np.array([2.0, 0.0]), np.array([5.0, 5.0])) == pytest.approx(np.sqrt(by_hand))
    assert lexical.jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 7.0])) == pytest.approx(1.0)
    assert lexical.jensen_shannon(np.array([3.0, 1.0]), np.array([6.0, 2.0])) == pytest.approx(0.0, abs=1e-7)


def test_jensen_shannon_agrees_with_scipy():
    p, q = np.random.default_rng(0).integers(0, 9, size=(2, 50)).astype(float)
    assert lexical.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2))


def test_burrows_delta_by_hand():
    # shares 0.5, 0.25 against 0.25, 0.25 with SD 0.1 and 0.2: (2.5 + 0) / 2
    one, two = np.array([2.0, 1.0, 1.0]), np.array([1.0, 1.0, 2.0])
    assert lexical.burrows_delta(one, two, np.array([0.1, 0.2])) == pytest.approx(1.25)


def test_a_word_that_never_varies_does_not_count_in_delta():
    same = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert np.isinf(lexical.frequency_sd(same, same)).all()


def test_words_are_chosen_from_both_sides_and_weigh_the_same_in_every_prompt():
    one, two = tokens(["a a a b", "c"], ["a b b b", "b"])
    shares = lexical.word_shares(one, two, np.array([0, 1]), num_columns=2)
    # b occurs five times, a four times, c once and shares the last column
    assert shares[0].tolist() == [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]
    assert shares[1].tolist() == [[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]]


def test_word_pairs_do_not_cross_responses():
    one, two = tokens(["a b", "a b"], ["b a", "a"])
    shares = lexical.pair_shares(one, two, np.array([0, 0]))
    # pairs: ab twice on one side, ba once on the other; the ends of responses share the last column
    assert shares[0].tolist() == [[0.5, 0.0, 0.5]]
    assert shares[1].tolist() == [[0.0, pytest.approx(1 / 3), pytest.approx(2 / 3)]]


def test_function_words_and_marks():
    vocabulary = Vocabulary.empty()
    side = Tokens.of([[vocabulary.words[word] for word in ("the", "film", "of", "the")]])
    shares = lexical.function_word_shares(side, np.array([0]), vocabulary)[0]
    assert shares[lexical.FUNCTION_WORDS.index("the")] == 0.5
    assert shares[lexical.FUNCTION_WORDS.index("of")] == shares[-1] == 0.25
    marks = np.array([count_marks("a, b, c!\n§")])
    assert lexical.mark_shares(marks, np.array([3]), np.array([0]))[0, -1] == 3 / 8


def test_openings_by_hand():
    # shares 1/2, 1/4, 1/4: entropy 1.5 bits
    openings = np.array([0, 0, 1, 2])
    assert lexical.opening_information(openings).tolist() == [1, 1, 2, 2]
    assert lexical.has_top_opening(openings).tolist() == [100, 100, 0, 0]
    many = np.repeat(np.arange(12), np.arange(14, 2, -1))
    assert lexical.has_top_opening(many).sum() == 100 * np.arange(14, 4, -1).sum()  # ten of the twelve
