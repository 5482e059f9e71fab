"""Distributions of words, word pairs, function words, punctuation and openings, and how far two of them lie apart.

Whatever is chosen from the texts (the most frequent words) is chosen from both sides together, because a choice made on
one side alone would make the other look different by chance.

Shapes: P prompts, N responses, V columns.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import entr

from analysis.statistics.bootstrap import FloatArray
from analysis.style.corpus import IntArray, Tokens, Vocabulary
from analysis.style.lexicons import FUNCTION_WORDS

NUM_COLUMNS = 500  # most frequent words or pairs with a column of their own; the others share one
DELTA_WORDS = 150  # Burrows' choice
TOP_OPENINGS = 10

Tables = tuple[FloatArray, FloatArray]  # [P, V] of either side


def jensen_shannon(p: FloatArray, q: FloatArray) -> FloatArray:
    """Jensen-Shannon distance, base 2, over the last axis (0 = same, 1 = disjoint; Endres & Schindelin 2003).

    Args:
        p: non-negative counts or probabilities with a positive sum.
        q: the same for the other side.
    """
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    within = (entr(p).sum(axis=-1) + entr(q).sum(axis=-1)) / 2
    divergence = (entr((p + q) / 2).sum(axis=-1) - within) / np.log(2)
    distance: FloatArray = np.sqrt(np.clip(divergence, 0, 1))
    return distance


def burrows_delta(p: FloatArray, q: FloatArray, sd_V: FloatArray) -> FloatArray:
    """Mean difference of relative word frequencies in standard deviations, over the last axis (Burrows 2002).

    Args:
        p: word counts, the last column holding all words that are not compared.
        q: the same for the other side.
        sd_V: standard deviation of each compared word's relative frequency over texts.
    """
    difference = p / p.sum(axis=-1, keepdims=True) - q / q.sum(axis=-1, keepdims=True)
    delta: FloatArray = (np.abs(difference[..., :-1]) / sd_V).mean(axis=-1)
    return delta


def frequency_sd(one_PV: FloatArray, two_PV: FloatArray) -> FloatArray:
    """SD over prompts and sides of each word's relative frequency, without the last column; infinite if it is 0."""
    sd = np.concatenate([one_PV, two_PV]).std(axis=0)[:-1]
    return np.where(sd > 0, sd, np.inf)


def word_shares(one: Tokens, two: Tokens, prompt_N: IntArray, num_columns: int = NUM_COLUMNS) -> Tables:
    """Shares of the most frequent words of both sides together; the last column is all other words."""
    return _frequent(one.word_T, two.word_T, prompt_N[one.row_T], prompt_N[two.row_T], num_columns)


def pair_shares(one: Tokens, two: Tokens, prompt_N: IntArray) -> Tables:
    """Shares of the most frequent pairs of neighbouring words; the last column is all others.

    A word that ends its response is counted there too, so that a response of one word is no empty one.
    """
    size = max(int(tokens.word_T.max(initial=0)) for tokens in (one, two)) + 1
    first, second = (_pairs(tokens, size) for tokens in (one, two))
    return _frequent(first, second, prompt_N[one.row_T], prompt_N[two.row_T], NUM_COLUMNS)


def _pairs(tokens: Tokens, size: int) -> IntArray:
    following = np.full(len(tokens.word_T), -1)
    same = tokens.row_T[:-1] == tokens.row_T[1:]
    following[:-1][same] = tokens.word_T[1:][same]
    return np.where(following < 0, -1, tokens.word_T * size + following)


def most_frequent(number_T: IntArray, limit: int) -> IntArray:
    """The commonest numbers, the commonest first."""
    count = np.bincount(number_T)
    order = np.argsort(-count, kind="stable")[:limit]
    return order[count[order] > 0]


def _frequent(one_T: IntArray, two_T: IntArray, prompt_one: IntArray, prompt_two: IntArray, num_columns: int) -> Tables:
    codes, kinds = pd.factorize(np.concatenate([one_T, two_T]))
    count = np.bincount(codes).astype(np.float64)
    count[np.asarray(kinds) < 0] = 0  # the end of a response is no pair of its own
    frequent = np.argsort(-count, kind="stable")[:num_columns]
    frequent = frequent[count[frequent] > 0]
    column = np.full(len(count), len(frequent))
    column[frequent] = np.arange(len(frequent))
    num_prompts, width = int(prompt_one.max()) + 1, len(frequent) + 1
    split = len(one_T)
    return (
        table(prompt_one, column[codes[:split]], num_prompts, width),
        table(prompt_two, column[codes[split:]], num_prompts, width),
    )


def table(prompt_T: IntArray, column_T: IntArray, num_prompts: int, width: int) -> FloatArray:
    """Share of each column among all words of each prompt, `[P, V]`.

    A share, so that a single endless response does not stand for the whole model.
    """
    counts = np.bincount(prompt_T * width + column_T, minlength=num_prompts * width)
    return shares(counts.reshape(num_prompts, width).astype(np.float64))


def shares(counts_PV: FloatArray) -> FloatArray:
    """Each row over its sum."""
    share: FloatArray = counts_PV / counts_PV.sum(axis=1, keepdims=True)
    return share


def function_word_shares(tokens: Tokens, prompt_N: IntArray, vocabulary: Vocabulary) -> FloatArray:
    """Shares of each function word; the last column is all other words. `[P, V]`."""
    column = np.full(len(vocabulary.words), len(FUNCTION_WORDS))
    for position, word in enumerate(FUNCTION_WORDS):
        if word in vocabulary.words:
            column[vocabulary.words[word]] = position
    return table(prompt_N[tokens.row_T], column[tokens.word_T], int(prompt_N[-1]) + 1, len(FUNCTION_WORDS) + 1)


def mark_shares(marks_NC: FloatArray, lengths_N: IntArray, prompt_N: IntArray) -> FloatArray:
    """Shares of each punctuation mark; the last column is the words, so that none is empty. `[P, C + 1]`."""
    both = np.column_stack([marks_NC, lengths_N])
    return shares(np.stack([np.bincount(prompt_N, weights=column) for column in both.T], axis=1))


def opening_information(opening_N: IntArray) -> FloatArray:
    """-log2 of the share of responses with the same opening, in bits; its mean is the entropy of openings."""
    share = np.bincount(opening_N) / len(opening_N)
    information: FloatArray = -np.log2(share[opening_N])
    return information


def has_top_opening(opening_N: IntArray) -> FloatArray:
    """100 if the response begins with one of the commonest openings that occur twice or more, else 0.

    An opening that only one response has is not common, however few there are.
    """
    count = np.bincount(opening_N)
    top = np.argsort(-count, kind="stable")[:TOP_OPENINGS]
    top = top[count[top] > 1]
    return np.where(np.isin(opening_N, top), 100.0, 0.0)
