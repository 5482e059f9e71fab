"""Surface features of one response, without any model: length, markup, punctuation, person, and stock phrases.

Counting markup per length, with code left out, follows the idea of Arena-Hard's style control; the patterns are ours.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from analysis.style import lexicons
from analysis.style.scripts import (
    CASED,
    ENGLISH,
    EVERY_SCRIPT,
    SPACED,
    STOPPED,
    Fits,
    find_words,
    run_length,
    split_words,
)

EMPTY = ""  # stands for a response without words
LOOP_WORDS = 4
NO_PUNCTUATION, NO_CAPITALS = (dict.fromkeys(map(ord, signs)) for signs in (string.punctuation, string.ascii_uppercase))

LETTER_OR_DIGIT = re.compile(r"[^\W_]")
CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
HEADER = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
TABLE_ROW = re.compile(r"^[ \t]*\|[^\n]*\|[ \t]*$", re.MULTILINE)
EMOJI = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff☀-➿]")
SENTENCE_END = re.compile(r"[.!?…]+[\"'”)]*(?=\s|$)|[。！？｡।॥།။។៕؟۔։።]+|\n+")


@dataclass(frozen=True)
class Text:
    """One response.

    Attributes:
        prose: without its code blocks, with straight apostrophes.
        cased: its words as written.
        num_code_blocks: how many were taken out.
    """

    prose: str
    cased: tuple[str, ...]
    num_code_blocks: int

    @classmethod
    def read(cls, text: str) -> Text:
        """From what the model wrote."""
        prose, num_code_blocks = CODE_BLOCK.subn("\n", text)
        prose = prose.replace("’", "'")
        return cls(prose, tuple(find_words(prose)), num_code_blocks)

    @cached_property
    def lower(self) -> list[str]:
        """Its words in lower case."""
        return [word.lower() for word in self.cased]

    @cached_property
    def spaced(self) -> str:
        """Lower-case words with one space around each, for finding phrases."""
        return f" {' '.join(self.lower)} "

    @cached_property
    def num_sentences(self) -> int:
        """Pieces with words between stops and line breaks; at least 1."""
        return max(1, sum(bool(LETTER_OR_DIGIT.search(piece)) for piece in SENTENCE_END.split(self.prose)))

    def per_100_words(self, count: float) -> float:
        """A density."""
        return 100 * count / max(1, len(self.cased))

    def density(self, pattern: re.Pattern[str]) -> float:
        """Matches per 100 words."""
        return self.per_100_words(len(pattern.findall(self.prose)))

    def any_of(self, marks: str) -> float:
        """Any of these marks per 100 words."""
        return self.per_100_words(sum(map(self.prose.count, marks)))

    def share_of(self, group: frozenset[str]) -> float:
        """Words of a set per 100 words."""
        return self.per_100_words(sum(word in group for word in self.lower))

    def phrases(self, lexicon: Sequence[str]) -> float:
        """Phrases of a lexicon per 100 words."""
        return self.per_100_words(sum(self.spaced.count(f" {phrase} ") for phrase in lexicon))

    def has(self, lexicon: Sequence[str]) -> float:
        """100 if any phrase occurs, else 0: its mean is a share of responses in percent."""
        return 100.0 * any(f" {phrase} " in self.spaced for phrase in lexicon)

    def opens_with(self, lexicon: Sequence[str]) -> float:
        """100 if the response begins with a phrase, else 0."""
        return 100.0 * self.spaced.startswith(tuple(f" {phrase} " for phrase in lexicon))


def words(text: Text) -> list[str]:
    """The words in lower case; `EMPTY` alone if there is none."""
    return text.lower or [EMPTY]


def repeats(words: Sequence[str]) -> bool:
    """Whether a run of `LOOP_WORDS` words, or of so many letters as those have, comes twice."""
    runs = list(zip(*(words[start:] for start in range(run_length(words, LOOP_WORDS))), strict=False))
    return len(set(runs)) < len(runs)


def proportions(text: str) -> tuple[float, float, float, float]:
    """Characters a word, share of punctuation and of capitals (ASCII) among them, share of different words.

    Cheap enough for every response of every evaluation point; a word is what stands between blanks.
    """
    words, length = split_words(text), max(1, len(text))
    punctuation, capitals = (len(text) - len(text.translate(without)) for without in (NO_PUNCTUATION, NO_CAPITALS))
    return (
        len(text) / max(1, len(words)),
        punctuation / length,
        capitals / length,
        len(set(words)) / len(words) if words else 1.0,
    )


def automated_readability_index(text: Text) -> float:
    """4.71 characters per word + 0.5 words per sentence - 21.43 (Senter & Smith 1967): years of school, no syllables.

    0 for a text without words.
    """
    if not text.cased:
        return 0.0
    characters = sum(len(word) - word.count("'") for word in text.cased)
    return 4.71 * characters / len(text.cased) + 0.5 * len(text.cased) / text.num_sentences - 21.43


@dataclass(frozen=True)
class Feature:
    """A number that a response has on its own. `label` can follow "more" and "fewer"; `fits` says in which scripts."""

    name: str
    label: str
    unit: str
    value: Callable[[Text], float]
    meaning: str = ""
    fits: Fits = EVERY_SCRIPT


DENSITY, SHARE = "per 100 words", "percent"
FROM_LEXICONS = (
    Feature("first_person", "first-person words", DENSITY, lambda text: text.share_of(lexicons.FIRST_PERSON)),
    Feature("second_person", "second-person words", DENSITY, lambda text: text.share_of(lexicons.SECOND_PERSON)),
    Feature("hedges", "hedges", DENSITY, lambda text: text.phrases(lexicons.HEDGES), "perhaps, it seems, generally"),
    Feature("boosters", "boosters", DENSITY, lambda text: text.phrases(lexicons.BOOSTERS), "very, clearly, of course"),
    Feature("apologies", "responses that apologise", SHARE, lambda text: text.has(lexicons.APOLOGIES)),
    Feature(
        "refusals",
        "responses with a refusal phrase",
        SHARE,
        lambda text: text.has(lexicons.REFUSALS),
        "a phrase list: its hit rate depends on style, so this is no measure of safety",
    ),
    Feature(
        "flattery",
        "flattering or eager openers",
        SHARE,
        lambda text: text.opens_with(lexicons.FLATTERING_OPENERS),
        "“great question”, “certainly”",
    ),
    Feature(
        "closing_offers",
        "closing offers",
        SHARE,
        lambda text: text.has(lexicons.CLOSING_OFFERS),
        "“let me know if”, “hope this helps”",
    ),
    Feature(
        "self_reference", "responses that speak of being an AI", SHARE, lambda text: text.has(lexicons.SELF_REFERENCES)
    ),
)
FEATURES = (
    Feature("words", "words", "words", lambda text: float(len(text.cased))),
    Feature("characters", "characters", "characters", lambda text: float(len(text.prose)), "code blocks left out"),
    Feature("sentences", "sentences", "sentences", lambda text: float(text.num_sentences), fits=STOPPED),
    Feature(
        "words_per_sentence",
        "words per sentence",
        "words",
        lambda text: len(text.cased) / text.num_sentences,
        fits=STOPPED,
    ),
    Feature(
        "characters_per_word",
        "characters per word",
        "characters",
        lambda text: sum(map(len, text.cased)) / max(1, len(text.cased)),
        fits=SPACED,
    ),
    Feature(
        "readability",
        "school years to read it",
        "years",
        automated_readability_index,
        "automated readability index, from characters and sentences",
        ENGLISH,
    ),
    Feature("headers", "headers", DENSITY, lambda text: text.density(HEADER)),
    Feature("list_items", "list items", DENSITY, lambda text: text.density(LIST_ITEM)),
    Feature("bold", "bold passages", DENSITY, lambda text: text.density(BOLD)),
    Feature("table_rows", "table rows", DENSITY, lambda text: text.density(TABLE_ROW)),
    Feature("code_blocks", "responses with code", SHARE, lambda text: 100.0 * (text.num_code_blocks > 0)),
    Feature("line_breaks", "line breaks", DENSITY, lambda text: text.per_100_words(text.prose.count("\n"))),
    Feature("exclamations", "exclamation marks", DENSITY, lambda text: text.any_of("!！")),
    Feature("questions", "question marks", DENSITY, lambda text: text.any_of("?？؟")),
    Feature("emoji", "emoji", DENSITY, lambda text: text.density(EMOJI)),
    Feature(
        "capitals",
        "words in capitals",
        DENSITY,
        lambda text: text.per_100_words(sum(len(word) > 1 and word.isupper() for word in text.cased)),
        "of two letters or more",
        CASED,
    ),
    *(replace(feature, fits=ENGLISH) for feature in FROM_LEXICONS),
)
