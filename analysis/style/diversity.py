"""How varied the words are: within a response, among the responses to one prompt, and across prompts.

Longer text repeats more of its words, so both sides are cut to equal length, response by response, before counting.

Shapes: N responses, G groups (responses, or prompts), P prompts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.statistics.bootstrap import FloatArray
from analysis.style.corpus import MAX_NGRAM, IntArray, Tokens

VOCABULARY_SIZE = 50257  # V in the expectation; GPT-2's, as in Kirk et al. 2024 (arXiv:2310.06452)


def ngram_keys(tokens: Tokens, n: int, cut_N: IntArray) -> tuple[IntArray, IntArray]:
    """The n-grams inside the first `cut_N` words of each response: their numbers and their rows."""
    inside = (tokens.ngrams[n - 1] >= 0) & (tokens.place_T + n <= cut_N[tokens.row_T])
    return tokens.ngrams[n - 1][inside], tokens.row_T[inside]


def distinct_counts(
    tokens: Tokens, n: int, cut_N: IntArray, group_N: IntArray, num_groups: int
) -> tuple[IntArray, IntArray]:
    """How many different n-grams, and how many in all, each group of responses has. `[G]` twice."""
    gram, row = ngram_keys(tokens, n, cut_N)
    group = group_N[row]
    size = int(gram.max(initial=0)) + 1
    different = pd.unique(group * size + gram) // size
    return np.bincount(different, minlength=num_groups), np.bincount(group, minlength=num_groups)


def distinct_share(tokens: Tokens, n: int, cut_N: IntArray) -> FloatArray:
    """Share of different n-grams in each response (Li et al. 2016, arXiv:1510.03055); 1 if there is none. `[N]`."""
    rows = np.arange(tokens.num_rows)
    different, total = distinct_counts(tokens, n, cut_N, rows, tokens.num_rows)
    share: FloatArray = np.divide(different, total, out=np.ones(tokens.num_rows), where=total > 0)
    return share


def expected_distinct(total: IntArray | FloatArray) -> FloatArray:
    """V (1 - ((V - 1) / V)^C): expected kinds among C random n-grams (Liu et al. 2022, arXiv:2202.13587)."""
    shrink = np.log1p(-1 / VOCABULARY_SIZE)
    return np.asarray(-VOCABULARY_SIZE * np.expm1(np.asarray(total, dtype=np.float64) * shrink))


def expectation_adjusted_distinct(different: IntArray | FloatArray, total: IntArray | FloatArray) -> FloatArray:
    """EAD of one n: different n-grams over `expected_distinct`; NaN if there are none.

    Over 1 if there are nearly as many n-grams as V and few of them repeat, since V counts words.
    """
    expected = expected_distinct(total)
    share: FloatArray = np.divide(different, expected, out=np.full(expected.shape, np.nan), where=expected > 0)
    return share


def per_input(tokens: Tokens, prompt_N: IntArray, cut_N: IntArray, num_prompts: int) -> FloatArray:
    """EAD of all responses to one prompt together, mean over n = 1 to 5. `[P]`, NaN if there is no text.

    An n for which a prompt's responses are too short is left out of its mean.
    """
    values = np.stack(
        [
            expectation_adjusted_distinct(*distinct_counts(tokens, n, cut_N, prompt_N, num_prompts))
            for n in range(1, MAX_NGRAM + 1)
        ]
    )
    present = np.isfinite(values)
    total = np.where(present, values, 0.0).sum(axis=0)
    nothing = np.full(num_prompts, np.nan)
    mean: FloatArray = np.divide(total, present.sum(axis=0), out=nothing, where=present.any(axis=0))
    return mean


def across_input(tokens: Tokens, cut_N: IntArray) -> FloatArray:
    """EAD of one response of each prompt together, mean over n = 1 to 5: one value for each prompt. `[P]`.

    The values are the jackknife's linear ones, θ + (P - 1)(mean of θ without p - θ without p): their mean is the EAD
    θ, and their spread is its sampling error (Efron & Tibshirani 1993, section 11.5).
    """
    num_prompts = tokens.num_rows
    values = []
    for n in range(1, MAX_NGRAM + 1):
        gram, prompt = ngram_keys(tokens, n, cut_N)
        if len(gram):
            whole, without_P = _leave_one_out(gram, prompt, num_prompts)
            values.append(whole + (num_prompts - 1) * (without_P.mean() - without_P))
    return np.mean(values, axis=0) if values else np.full(num_prompts, np.nan)


def matched_good_first(
    ours_good_N: IntArray, base_good_N: IntArray, prompt_N: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows of the first good response to each prompt on either side, if both have one, and which prompts those are.

    Args:
        ours_good_N: 1 if the response is good.
        base_good_N: the same for the other side.
        prompt_N: the prompts, ascending.
    """
    (ours, of_ours), (base, of_base) = (_first_good(good, prompt_N) for good in (ours_good_N, base_good_N))
    return ours[np.isin(of_ours, of_base)], base[np.isin(of_base, of_ours)], np.intersect1d(of_ours, of_base)


def _first_good(good_N: IntArray, prompt_N: IntArray) -> tuple[IntArray, IntArray]:
    rows = np.flatnonzero(good_N)
    kept, at = np.unique(prompt_N[rows], return_index=True)
    return rows[at], kept


def _leave_one_out(gram: IntArray, prompt: IntArray, num_prompts: int) -> tuple[float, FloatArray]:
    """EAD of one n over all prompts, and without each of them."""
    size = int(gram.max()) + 1
    pair = pd.unique(prompt * size + gram)
    owners = np.bincount(pair % size)
    own = np.bincount(pair[owners[pair % size] == 1] // size, minlength=num_prompts)
    total = np.bincount(prompt, minlength=num_prompts)
    rest = total.sum() - total
    different = int(np.sum(owners > 0))
    whole = float(expectation_adjusted_distinct(np.array(different), np.array(total.sum())))
    without = expectation_adjusted_distinct(different - own, rest)
    return whole, np.where(rest > 0, without, whole)


def matched_good_rows(ours_good_N: IntArray, base_good_N: IntArray, prompt_N: IntArray) -> tuple[IntArray, IntArray]:
    """Rows of good responses on either side: of each prompt the first k, k the smaller number of the two, k at least 2.

    Args:
        ours_good_N: 1 if the response is good.
        base_good_N: the same for the other side.
        prompt_N: the prompts, ascending.
    """
    ours_rank, base_rank = (_rank_within(good, prompt_N) for good in (ours_good_N, base_good_N))
    count = np.minimum(*(np.bincount(prompt_N, weights=good) for good in (ours_good_N, base_good_N)))
    limit = np.where(count >= 2, count, 0)[prompt_N]
    ours, base = (
        np.flatnonzero((good > 0) & (rank <= limit))
        for good, rank in ((ours_good_N, ours_rank), (base_good_N, base_rank))
    )
    return ours, base


def _rank_within(good_N: IntArray, prompt_N: IntArray) -> IntArray:
    """1 for the first good response of a prompt, 2 for its second."""
    running = np.cumsum(good_N)
    before = np.concatenate([[0], running])[np.searchsorted(prompt_N, prompt_N)]
    return np.asarray(running - before)
