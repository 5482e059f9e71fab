from __future__ import annotations

import numpy as np
import pytest

from analysis.style import diversity
from analysis.style.corpus import Numbering, Tokens

V = diversity.VOCABULARY_SIZE


def tokens(*responses: str) -> Tokens:
    numbering = Numbering()
    return Tokens.of([[numbering[word] for word in text.split()] for text in responses])


def slow_ead(responses: list[list[str]]) -> float:
    """The formula, n-gram by n-gram."""
    values = []
    for n in range(1, 6):
        grams = [tuple(words[at : at + n]) for words in responses for at in range(len(words) - n + 1)]
        if grams:
            values.append(len(set(grams)) / (V * (1 - ((V - 1) / V) ** len(grams))))
    return float(np.mean(values))


def test_expected_number_by_hand():
    assert diversity.expected_distinct(np.array([1]))[0] == pytest.approx(1)
    assert diversity.expected_distinct(np.array([2]))[0] == pytest.approx(2 - 1 / V)
    assert diversity.expected_distinct(np.array([10**9]))[0] == pytest.approx(V)
    assert np.isnan(diversity.expectation_adjusted_distinct(np.array([0]), np.array([0])))[0]


def test_distinct_share_is_cut_to_equal_length():
    side = tokens("a b a b")
    assert diversity.distinct_share(side, 1, np.array([4]))[0] == 0.5
    assert diversity.distinct_share(side, 1, np.array([2]))[0] == 1.0
    assert diversity.distinct_share(side, 2, np.array([4]))[0] == pytest.approx(2 / 3)
    assert diversity.distinct_share(tokens("a"), 2, np.array([1]))[0] == 1.0


def test_variety_within_prompts_agrees_with_the_formula():
    texts = ["a b c a", "a b d", "x x x x x x", "y z"]
    side = tokens(*texts)
    found = diversity.per_input(side, np.array([0, 0, 1, 1]), side.lengths, 2)
    split = [text.split() for text in texts]
    assert found.tolist() == pytest.approx([slow_ead(split[:2]), slow_ead(split[2:])])


def test_variety_across_prompts_and_its_jackknife_agree_with_the_formula():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefg"), size=6)) for _ in range(7)]
    side, split = tokens(*texts), [text.split() for text in texts]
    values = diversity.across_input(side, side.lengths)
    assert values.mean() == pytest.approx(slow_ead(split))
    without = np.array([slow_ead(split[:at] + split[at + 1 :]) for at in range(7)])
    assert values - values.mean() == pytest.approx(6 * (without.mean() - without))


def test_words_beyond_the_cut_do_not_count_across_prompts():
    side = tokens("a b z1 z2 z3", "a c")
    assert diversity.across_input(side, np.array([2, 2])).mean() == pytest.approx(slow_ead([["a", "b"], ["a", "c"]]))


def test_good_responses_are_matched_in_number():
    prompts = np.repeat([0, 1, 2], 3)
    ours = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0])
    base = np.array([0, 1, 1, 1, 1, 1, 1, 1, 1])
    mine, theirs = diversity.matched_good_rows(ours, base, prompts)
    assert mine.tolist() == [0, 1, 3, 5]  # two good ones of prompts 0 and 1; prompt 2 has one only
    assert theirs.tolist() == [1, 2, 3, 4]


def test_the_first_good_responses_are_matched_by_prompt():
    prompts = np.repeat([0, 1, 2, 3], 2)
    ours = np.array([0, 1, 1, 1, 0, 0, 1, 0])
    base = np.array([1, 0, 0, 1, 1, 1, 0, 0])
    mine, theirs, matched = diversity.matched_good_first(ours, base, prompts)
    assert matched.tolist() == [0, 1]  # ours has none of prompt 2, the base none of prompt 3
    assert mine.tolist() == [1, 2]
    assert theirs.tolist() == [0, 3]
