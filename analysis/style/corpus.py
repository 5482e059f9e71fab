"""Responses turned into numbers once: surface features, word numbers, punctuation and openings.

A word is a run of letters, digits and apostrophes, in lower case, and in scripts without spaces every letter; fenced
code is left out of everything but the count of code blocks; a response without words counts as one special word.

Shapes: S seeds, P prompts, N responses (all prompts' samples in a row), F features, C punctuation marks, T words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.statistics.bootstrap import FloatArray
from analysis.style.scripts import SIGNS, Scripts, scripts_of
from analysis.style.surface import FEATURES, Text, words

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

OPENING_WORDS = 5
MAX_NGRAM = 5
MARKS = tuple(".,;:!?'\"“”‘’()[]{}*#-–—…/_`|<>%&+=•~@$")
LINE_BREAK, OTHER_MARK = "line break", "another mark"
MARK_NAMES = (*MARKS, LINE_BREAK, OTHER_MARK)
_MARK = re.compile(rf"[^\w\s{SIGNS}]|_|\n")


class Numbering(dict[Hashable, int]):
    """Gives each new key the next number."""

    def __missing__(self, key: Hashable) -> int:
        self[key] = number = len(self)
        return number


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of words and openings, shared by all corpora that are compared."""

    words: Numbering
    openings: Numbering

    @classmethod
    def empty(cls) -> Vocabulary:
        """Grows with every corpus that is read."""
        return cls(Numbering(), Numbering())

    def word(self, number: int) -> str:
        """The word of a number."""
        return str(self._by_number[number]) if number < len(self._by_number) else ""

    @cached_property
    def _by_number(self) -> list[Hashable]:
        return list(self.words)


@dataclass(frozen=True)
class Tokens:
    """The words of N responses in one row.

    Attributes:
        word_T: number of the word.
        row_T: which response it belongs to, ascending.
        place_T: its place in the response, from 0.
        num_rows: N.
    """

    word_T: IntArray
    row_T: IntArray
    place_T: IntArray
    num_rows: int

    @classmethod
    def of(cls, responses: Sequence[Sequence[int]]) -> Tokens:
        """From one list of word numbers per response."""
        lengths = np.array([len(response) for response in responses], dtype=np.int64)
        row = np.repeat(np.arange(len(responses)), lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        flat = np.fromiter((number for response in responses for number in response), np.int64, len(row))
        return cls(flat, row, place, len(responses))

    @cached_property
    def lengths(self) -> IntArray:
        """Words per response, `[N]`."""
        return np.bincount(self.row_T, minlength=self.num_rows)

    @cached_property
    def ngrams(self) -> tuple[IntArray, ...]:
        """For n = 1 to `MAX_NGRAM`: a number for the n-gram from each word on, −1 if the response ends first."""
        grams = [pd.factorize(self.word_T)[0].astype(np.int64)]
        size = int(grams[0].max(initial=0)) + 1
        for n in range(2, MAX_NGRAM + 1):
            gram = np.full(len(self.word_T), -1)
            whole = np.flatnonzero(self.row_T[: len(gram) - n + 1] == self.row_T[n - 1 :])
            gram[whole] = pd.factorize(grams[-1][whole] * size + grams[0][whole + n - 1])[0]
            grams.append(gram)
        return tuple(grams)

    def take(self, rows: IntArray) -> Tokens:
        """Some of the responses, renumbered in the given (ascending) order."""
        new = np.full(self.num_rows, -1)
        new[rows] = np.arange(len(rows))
        kept = new[self.row_T] >= 0
        return Tokens(self.word_T[kept], new[self.row_T[kept]], self.place_T[kept], len(rows))


@dataclass(frozen=True)
class Corpus:
    """The responses of one model under one set of random numbers.

    Row i of any two corpora that are compared answers the same prompt (and, in a sweep, under the same random numbers
    if the stream is the same).

    Attributes:
        texts_SN: as they came from the model.
        prompt_N: number of the prompt that the response answers.
        surface_SNF: `FEATURES` of each response.
        marks_SNC: how often each of `MARK_NAMES` occurs.
        tokens: the words, for each seed.
        opening_SN: number of the first `OPENING_WORDS` words.
        columns: what else is known of each response, `[S, N]`, such as its number of tokens.
        vocabulary: what the numbers mean.
        scripts: of all words together.
    """

    texts_SN: npt.NDArray[Any]
    prompt_N: IntArray
    surface_SNF: FloatArray
    marks_SNC: FloatArray
    tokens: tuple[Tokens, ...]
    opening_SN: IntArray
    columns: Mapping[str, FloatArray]
    vocabulary: Vocabulary
    scripts: Scripts

    @property
    def num_prompts(self) -> int:
        """P."""
        return int(self.prompt_N[-1]) + 1

    @property
    def num_seeds(self) -> int:
        """S."""
        return len(self.tokens)

    @property
    def lengths(self) -> list[IntArray]:
        """Words of each response."""
        return [tokens.lengths for tokens in self.tokens]

    def per_prompt(self, values_SN: FloatArray) -> FloatArray:
        """Mean over the responses of each prompt, `[S, P]`."""
        count = np.bincount(self.prompt_N)
        return np.stack([np.bincount(self.prompt_N, weights=values) / count for values in values_SN])

    def select_seeds(self, positions: Sequence[int]) -> Corpus:
        """Some of the seeds."""
        index = list(positions)
        return Corpus(
            self.texts_SN[index],
            self.prompt_N,
            self.surface_SNF[index],
            self.marks_SNC[index],
            tuple(self.tokens[position] for position in index),
            self.opening_SN[index],
            {name: values[index] for name, values in self.columns.items()},
            self.vocabulary,
            self.scripts,
        )


def read_corpus(
    texts_SN: npt.NDArray[Any], prompt_N: IntArray, columns: Mapping[str, FloatArray], vocabulary: Vocabulary
) -> Corpus:
    """Read each response once.

    Args:
        texts_SN: the responses.
        prompt_N: number of each response's prompt, ascending from 0.
        columns: further numbers of each response, `[S, N]`.
        vocabulary: of the comparison; grows.
    """
    read = [[Text.read(str(text)) for text in texts] for texts in texts_SN]
    numbers = [[[vocabulary.words[word] for word in words(text)] for text in texts] for texts in read]
    return Corpus(
        texts_SN=texts_SN,
        prompt_N=prompt_N,
        surface_SNF=np.array([[[feature.value(text) for feature in FEATURES] for text in texts] for texts in read]),
        marks_SNC=np.array([[count_marks(text.prose) for text in texts] for texts in read]),
        tokens=tuple(Tokens.of(rows) for rows in numbers),
        opening_SN=np.array([[vocabulary.openings[tuple(row[:OPENING_WORDS])] for row in rows] for rows in numbers]),
        columns=columns,
        vocabulary=vocabulary,
        scripts=scripts_of(word for texts in read for text in texts for word in text.cased),
    )


def count_marks(text: str) -> list[float]:
    """How often each of `MARK_NAMES` occurs."""
    found = Counter(_MARK.findall(text))
    known = [float(found.pop(mark, 0)) for mark in MARKS]
    return [*known, float(found.pop("\n", 0)), float(sum(found.values()))]
