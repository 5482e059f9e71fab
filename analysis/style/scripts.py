"""In which scripts texts are written: what can be asked of them, and where a word ends without a space.

A measure that was made for English words, capitals, spaces or full stops says nothing of texts without them, and a
number would look like an answer. So each measure names the scripts that it fits, and is taken only if nearly all
words of every side belong to them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

MAX_OTHER = 0.2  # share of words in scripts that a measure does not fit
# Scripts without spaces between words, and the blocks that hold their letters.
UNSPACED: dict[str, tuple[tuple[int, int], ...]] = {
    "Chinese or Japanese": (
        (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x3035), (0x3041, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x312F),
        (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
        (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
    ),
    "Thai": ((0x0E01, 0x0E4E),),
    "Lao": ((0x0E81, 0x0ECE), (0x0EDC, 0x0EDF)),
    "Tibetan": ((0x0F00, 0x0F00), (0x0F40, 0x0FBC)),
    "Burmese": (
        (0x1000, 0x103F), (0x1050, 0x108F), (0x109A, 0x109F), (0xA9E0, 0xA9EF), (0xA9FA, 0xA9FE), (0xAA60, 0xAA7F),
    ),
    "Khmer": ((0x1780, 0x17D3), (0x17D7, 0x17DD)),
    "Tai": ((0x1950, 0x19CF), (0x1A20, 0x1A7F), (0xAA80, 0xAADF)),
    "Balinese or Javanese": ((0x1B00, 0x1B4C), (0xA980, 0xA9C0)),
}  # fmt: skip
LETTERS_A_WORD = {"Chinese or Japanese": 2}  # about; the others have longer words
OTHER_LETTERS_A_WORD = 4
UNSTOPPED = {"Thai", "Lao", "Tai"}  # sentences end with a space, as other pauses do
MARKS_BETWEEN = (0x0590, 0x1CFF)  # vowel signs, tones, points: no letters, but parts of the word they stand in


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    """Inside the brackets of a regular expression."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


LETTERS = _class(block for blocks in UNSPACED.values() for block in blocks)
SIGNS = "".join(
    re.escape(chr(code)) for code in range(*MARKS_BETWEEN) if unicodedata.category(chr(code)) in {"Mn", "Mc", "Me"}
)
SPECIAL = re.compile(f"[{LETTERS}{SIGNS}]")
PLAIN_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SPACED_LETTER = rf"(?:[^\W_{LETTERS}][{SIGNS}\u200c\u200d]*)"
ANY_WORD = re.compile(rf"[{LETTERS}][{SIGNS}]*|{_SPACED_LETTER}+(?:'{_SPACED_LETTER}+)*")
UNSPACED_LETTER = re.compile(rf"([{LETTERS}][{SIGNS}]*)")


def find_words(text: str) -> list[str]:
    """Runs of letters, digits and apostrophes; in scripts without spaces, every letter with its signs is one."""
    return (ANY_WORD if SPECIAL.search(text) else PLAIN_WORD).findall(text)


def split_words(text: str) -> list[str]:
    """What stands between blanks; in scripts without spaces, every letter with its signs by itself."""
    return (UNSPACED_LETTER.sub(r" \1 ", text) if SPECIAL.search(text) else text).split()


# --------------------------------------------------------------------------------------------------------------- words
Scripts = Counter[str]  # script -> number of words


def scripts_of(words: Iterable[str]) -> Scripts:
    """How many words of each script there are, by their first letters; numbers are in none."""
    found: Scripts = Counter()
    for letter, count in Counter(word[:1] for word in words).items():
        if letter.isalpha():
            found[script(letter)] += count
    return found


@lru_cache(maxsize=4096)
def script(letter: str) -> str:
    """The script's name, such as Latin, Hangul or Thai."""
    code = ord(letter)
    for name, blocks in UNSPACED.items():
        if any(first <= code <= last for first, last in blocks):
            return name
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "Latin" if first in {"FULLWIDTH", "FEMININE", "MASCULINE"} else first.capitalize()


def run_length(words: Collection[str], num_words: int) -> int:
    """How many of these words say as much as `num_words` words do if each is more than a letter."""
    (name, count), *_ = scripts_of(words).most_common(1) or [("", 0)]
    if name not in UNSPACED or count <= len(words) / 2:
        return num_words
    return num_words * LETTERS_A_WORD.get(name, OTHER_LETTERS_A_WORD)


@dataclass(frozen=True)
class Fits:
    """The scripts that a measure was made for: only some, or all but some."""

    only: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()

    def of(self, name: str) -> bool:
        """Whether letters of the script fit."""
        return name not in self.never and (not self.only or name in self.only)


EVERY_SCRIPT = Fits()
ENGLISH = Fits(only=frozenset({"Latin"}))
CASED = Fits(only=frozenset({"Latin", "Greek", "Cyrillic", "Armenian"}))
SPACED = Fits(never=frozenset(UNSPACED))
STOPPED = Fits(never=frozenset(UNSTOPPED))


def unfit(fits: Fits, *sides: Scripts) -> str:
    """Why the texts of some side are in no script that a measure fits; empty if those of every side are."""
    for side in sides:
        others = Counter({name: count for name, count in side.items() if not fits.of(name)})
        share = others.total() / max(1, side.total())
        if share > MAX_OTHER:
            return f"not assessable for this script: {100 * share:.0f} % of the words are {_names(others)}"
    return ""


def note(*sides: Scripts) -> str:
    """What to know of the words of these texts; empty if spaces end nearly all of them."""
    together = sum(sides, Counter[str]())
    unspaced = Counter({name: together[name] for name in UNSPACED if together[name]})
    if all(unfit(SPACED, side) == "" for side in sides):
        return ""
    return f"Words in {_names(unspaced)} have no spaces between them, so every letter counts as a word"


def _names(found: Scripts) -> str:
    """The commonest script, and that there are others."""
    (name, count), *_ = found.most_common(1)
    return name if count > (1 - MAX_OTHER) * found.total() else f"{name} and others"
