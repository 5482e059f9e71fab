"""The measures: which numbers of two corpora are compared, and what they are called.

Shapes: S seeds, P prompts, N responses, V columns, R random features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.statistics.bootstrap import FloatArray
from analysis.style import diversity, lexical, semantic
from analysis.style.corpus import Corpus, IntArray, Tokens
from analysis.style.lexical import Tables
from analysis.style.scripts import ENGLISH, EVERY_SCRIPT, Fits
from analysis.style.surface import FEATURES, LOOP_WORDS
from analysis.style.swaps import Between


@dataclass(frozen=True)
class Paired:
    """A number for each response or prompt, given the other side, so that lengths can be matched.

    `value` returns `[S, N]` or `[S, P]`; NaN if a prompt has none; `NotAssessableError` if none has.
    """

    name: str
    group: str
    label: str
    meaning: str
    unit: str
    value: Callable[[Corpus, Corpus], FloatArray]
    needs: str = ""  # a column that not all texts come with
    fits: Fits = EVERY_SCRIPT


@dataclass(frozen=True)
class Distance:
    """A distance between the sums over prompts of two tables `[P, V]`, drawn up from both sides together."""

    name: str
    label: str
    meaning: str
    tables: Callable[[Corpus, Corpus], list[Tables]]
    metric: Callable[[FloatArray, FloatArray], Between]
    fits: Fits = EVERY_SCRIPT


class NotAssessableError(ValueError):
    """The measure cannot be taken; the message says why."""


# ------------------------------------------------------------------------------------------------- measures by response
def _own(position: int) -> Callable[[Corpus, Corpus], FloatArray]:
    return lambda ours, _: ours.surface_SNF[:, :, position]


def _column(name: str, factor: float = 1.0) -> Callable[[Corpus, Corpus], FloatArray]:
    return lambda ours, _: factor * ours.columns[name]


def _by_seed(ours: Corpus, partner: Corpus, value: Callable[[Tokens, IntArray, Corpus, int], FloatArray]) -> FloatArray:
    """Seed by seed, each response cut to the shorter of its pair; the base goes with every seed."""
    rows = []
    for seed in range(max(ours.num_seeds, partner.num_seeds)):
        tokens, other = ours.tokens[seed % ours.num_seeds], partner.tokens[seed % partner.num_seeds]
        rows.append(value(tokens, np.minimum(tokens.lengths, other.lengths), ours, seed % ours.num_seeds))
    return np.stack(rows)


def _distinct(n: int) -> Callable[[Corpus, Corpus], FloatArray]:
    return partial(_by_seed, value=lambda tokens, cut, *_: 100 * diversity.distinct_share(tokens, n, cut))


def _repeated(tokens: Tokens) -> FloatArray:
    return 1 - diversity.distinct_share(tokens, LOOP_WORDS, tokens.lengths)


def _repetition(ours: Corpus, _: Corpus) -> FloatArray:
    return np.stack([100 * _repeated(tokens) for tokens in ours.tokens])


def _loops(ours: Corpus, _: Corpus) -> FloatArray:
    return np.stack([100.0 * (_repeated(tokens) > 0) for tokens in ours.tokens])


def _opening_entropy(ours: Corpus, _: Corpus) -> FloatArray:
    return np.stack([lexical.opening_information(opening) for opening in ours.opening_SN])


def _top_openings(ours: Corpus, _: Corpus) -> FloatArray:
    return np.stack([lexical.has_top_opening(opening) for opening in ours.opening_SN])


def _per_input(ours: Corpus, partner: Corpus) -> FloatArray:
    if len(ours.prompt_N) == ours.num_prompts:
        raise NotAssessableError("one response to each prompt")
    return _by_seed(
        ours, partner, lambda tokens, cut, _, __: diversity.per_input(tokens, ours.prompt_N, cut, ours.num_prompts)
    )


def _per_input_good(ours: Corpus, partner: Corpus) -> FloatArray:
    """Among responses whose score reaches the base's median; as many on either side, the first with the first."""
    if len(ours.prompt_N) == ours.num_prompts:
        raise NotAssessableError("one response to each prompt")
    rows = []
    for seed in range(max(ours.num_seeds, partner.num_seeds)):
        mine, other = seed % ours.num_seeds, seed % partner.num_seeds
        good = [side.columns["good"][at].astype(np.int64) for side, at in ((ours, mine), (partner, other))]
        here, there = diversity.matched_good_rows(good[0], good[1], ours.prompt_N)
        tokens, others = ours.tokens[mine].take(here), partner.tokens[other].take(there)
        cut = np.minimum(tokens.lengths, others.lengths)
        rows.append(diversity.per_input(tokens, ours.prompt_N[here], cut, ours.num_prompts))
    return np.stack(rows)


def _across_input(ours: Corpus, partner: Corpus) -> FloatArray:
    first = np.flatnonzero(np.diff(ours.prompt_N, prepend=-1))
    return _by_seed(ours, partner, lambda tokens, cut, *_: diversity.across_input(tokens.take(first), cut[first]))


def _across_input_good(ours: Corpus, partner: Corpus) -> FloatArray:
    """One good response of each prompt that has one on either side; NaN for the other prompts."""
    rows = []
    for seed in range(max(ours.num_seeds, partner.num_seeds)):
        mine, other = seed % ours.num_seeds, seed % partner.num_seeds
        good = [side.columns["good"][at].astype(np.int64) for side, at in ((ours, mine), (partner, other))]
        here, there, prompts = diversity.matched_good_first(good[0], good[1], ours.prompt_N)
        values = np.full(ours.num_prompts, np.nan)
        if len(prompts) > 1:
            tokens, others = ours.tokens[mine].take(here), partner.tokens[other].take(there)
            values[prompts] = diversity.across_input(tokens, np.minimum(tokens.lengths, others.lengths))
        rows.append(values)
    return np.stack(rows)


SEPARABILITY, MEANING, WORD_CHOICE = "separability", "meaning", "word choice"
DIVERSITY, OPENINGS, SURFACE = "diversity", "openings", "surface"
CUT = "in a response, both sides cut to the shorter's length"
PAIRED = (
    Paired(
        "opening_entropy", OPENINGS, "Entropy of openings", "of the first five words; low if many begin alike",
        "bits", _opening_entropy,
    ),
    Paired(
        "top_openings", OPENINGS, "Ten commonest openings", "responses that begin with one of them", "percent",
        _top_openings,
    ),
    Paired(
        "per_input_ead", DIVERSITY, "Variety within a prompt",
        "different n-grams among a prompt's responses, over the number expected (EAD)", "plain", _per_input,
    ),
    Paired(
        "per_input_ead_good", DIVERSITY, "Variety among good responses",
        "the same among responses whose measure reaches the base's median", "plain", _per_input_good,
        needs="good",
    ),
    Paired(
        "across_input_ead", DIVERSITY, "Variety across prompts",
        "different n-grams among one response of each prompt (EAD)", "plain", _across_input,
    ),
    Paired(
        "across_input_ead_good", DIVERSITY, "Variety across prompts, good responses",
        "the same among responses whose measure reaches the base's median", "plain", _across_input_good,
        needs="good",
    ),
    Paired("distinct_1", DIVERSITY, "Different words", CUT, "percent", _distinct(1)),
    Paired("distinct_2", DIVERSITY, "Different word pairs", CUT, "percent", _distinct(2)),
    Paired("repeated_4grams", DIVERSITY, "Repetition", "four-word runs seen before", "percent", _repetition),
    Paired("loop_share", DIVERSITY, "Loops", "responses with a repeated four-word run", "percent", _loops),
    Paired("length", SURFACE, "Length", "of the response", "tokens", _column("num_tokens"), "num_tokens"),
    Paired(
        "cut_share", SURFACE, "Cut off", "responses stopped at the length limit", "percent",
        _column("cut", 100.0), "cut",
    ),
)  # fmt: skip
PAIRED_FEATURES = tuple(
    Paired(
        item.name,
        SURFACE,
        item.label[0].upper() + item.label[1:],
        item.meaning,
        item.unit,
        _own(position),
        fits=item.fits,
    )
    for position, item in enumerate(FEATURES)
)


def of_score(name: str, meaning: str) -> Paired:
    """Of a further score, which is read from English words. Its column is called as the score."""
    return Paired(name, SURFACE, name, meaning, "plain", _column(name), name, ENGLISH)


# ------------------------------------------------------------------------------------------------------------ distances
def _by_tokens(count: Callable[[Tokens, Tokens, IntArray], Tables]) -> Callable[[Corpus, Corpus], list[Tables]]:
    return lambda ours, other: [count(tokens, other.tokens[0], ours.prompt_N) for tokens in ours.tokens]


def _function_words(ours: Corpus, other: Corpus) -> list[Tables]:
    theirs = lexical.function_word_shares(other.tokens[0], other.prompt_N, other.vocabulary)
    return [(lexical.function_word_shares(tokens, ours.prompt_N, ours.vocabulary), theirs) for tokens in ours.tokens]


def _marks(ours: Corpus, other: Corpus) -> list[Tables]:
    (*mine,), (theirs, *_) = (
        [lexical.mark_shares(*seed, side.prompt_N) for seed in zip(side.marks_SNC, side.lengths, strict=True)]
        for side in (ours, other)
    )
    return [(table, theirs) for table in mine]


def _jensen_shannon(*_: FloatArray) -> Between:
    return lexical.jensen_shannon


def _delta(one_PV: FloatArray, two_PV: FloatArray) -> Between:
    return partial(lexical.burrows_delta, sd_V=lexical.frequency_sd(one_PV, two_PV))


def discrepancy(one_PR: FloatArray, _: FloatArray) -> Between:
    """Of mean features, from their sums over prompts."""
    return lambda one, two: semantic.mean_discrepancy(one / len(one_PR), two / len(one_PR))


JSD = "Jensen–Shannon distance, 0 same to 1 disjoint"
DISTANCES = (
    Distance(
        "unigram_jsd", "Word choice", f"{JSD}, of word frequencies", _by_tokens(lexical.word_shares), _jensen_shannon
    ),
    Distance(
        "bigram_jsd", "Word pairs", f"{JSD}, of neighbouring words", _by_tokens(lexical.pair_shares), _jensen_shannon
    ),
    Distance(
        "function_word_jsd",
        "Function words",
        f"{JSD}, of words like the, of, but",
        _function_words,
        _jensen_shannon,
        ENGLISH,
    ),
    Distance("punctuation_jsd", "Punctuation", f"{JSD}, of marks per word", _marks, _jensen_shannon),
    Distance(
        "burrows_delta",
        "Burrows’ Delta",
        "mean difference of the 150 commonest words, in their SD over prompts",
        _by_tokens(partial(lexical.word_shares, num_columns=lexical.DELTA_WORDS)),
        _delta,
    ),
)
