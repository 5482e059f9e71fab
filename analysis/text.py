"""Text from a model or a file, made safe to show. A response may hold anything: markup, control characters, fences."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_KEPT = {"\n", "\t"}
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
# controls, bidi overrides and zero-width, lone surrogates, private, unassigned, line and paragraph separators
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Default_Ignorable_Code_Point of DerivedCoreProperties.txt, Unicode 14.0 to 16.0: 4,174 code points.
_IGNORABLE = tuple(
    range(first, last + 1)
    for first, last in (
        (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
        (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
    )
)  # fmt: skip
_BLANK = {"\u2800", "\U0001d159", "\U00016fe4"}  # drawn as nothing, yet neither ignorable nor a space
_NON_JOINER, _JOINER = "\u200c", "\u200d"
_EMOJI_STYLES = {"\ufe0e", "\ufe0f"}
_KEYCAP = "\u20e3"
# What GitHub and GFM renderers make a link or a mention of without any markup: https://… www.… a@b.c @name #12 GH-12
_LINK_TOKEN = re.compile(r"\S*(?://|@|www\.)\S*", re.IGNORECASE)
_LINK_POINT = re.compile(r"(?<=/)(?=/)|(?<=@)|(?=\.\w)")
_REFERENCE = re.compile(r"(?<=#)(?=\d)|(?<=\bGH-)(?=\d)", re.IGNORECASE)
_NOTHING = "<!-- -->"  # shows nothing, and parts what would be recognised as a whole


def visible(text: str) -> str:
    """Spell out characters that cannot be seen or reorder what can: ⟨U+001B⟩.

    Newlines and tabs stay, and so do the joiners and emoji styles that a script or an emoji is spelled with.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if is_hidden(char) and not _is_spelling(text, position, with_emoji=True) else char
        for position, char in enumerate(text)
    )


@cache
def is_hidden(char: str) -> bool:
    """Whether a character cannot be seen, or is a space that only looks like one; newlines and tabs apart."""
    if char in _KEPT or char == " ":
        return False
    category = unicodedata.category(char)
    ignorable = any(ord(char) in codes for codes in _IGNORABLE)
    return category in _HIDDEN or category == "Zs" or ignorable or char in _BLANK


def hidden_in(text: str, with_emoji: bool) -> list[str]:
    """The hidden characters of a text that nothing is spelled with, each once.

    Args:
        text: of any language.
        with_emoji: whether emoji may hold joiners and styles. In a name they may not: many look the same without.
    """
    found = (
        char for position, char in enumerate(text) if is_hidden(char) and not _is_spelling(text, position, with_emoji)
    )
    return list(dict.fromkeys(found))


def all_visible(value: Any) -> Any:
    """`visible` for every string of a JSON value, keys included."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): all_visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [all_visible(item) for item in value]
    return value


def markdown_inline(text: object) -> str:
    """Text for a line or a table cell of Markdown: it stays on its line, and nothing in it is markup or a link."""
    escaped = _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    unlinked = _LINK_TOKEN.sub(lambda token: _LINK_POINT.sub(_NOTHING, token[0]), escaped)
    return _REFERENCE.sub(_NOTHING, unlinked)


def markdown_fence(text: str) -> str:
    """A fenced block whose fence is longer than any run of backticks inside it (CommonMark, section 4.5)."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


# ---------------------------------------------------------------------------------- hidden characters that are spelling
def _is_spelling(text: str, position: int, with_emoji: bool) -> bool:
    """Whether a hidden character changes what is seen at this place, as in Persian, Indic scripts and emoji."""
    char, before, after = text[position], text[position - 1 : position], text[position + 1 : position + 2]
    if _is_virama(before) and (char == _JOINER or (char == _NON_JOINER and after.isalpha())):
        return True
    if char == _NON_JOINER:
        return _joins_next(_letter(text[:position][::-1])) and _joins_previous(_letter(text[position + 1 :]))
    if not with_emoji:
        return False
    if char == _JOINER:
        return (_is_picture(before) or before in _EMOJI_STYLES) and _is_picture(after)
    return char in _EMOJI_STYLES and (_is_picture(before) or after == _KEYCAP)


def _is_virama(char: str) -> bool:
    """Whether it is the sign by which Indic scripts suppress a vowel (RFC 5892, appendix A)."""
    return char != "" and unicodedata.combining(char) == 9


def _is_picture(char: str) -> bool:
    """Whether it may begin an emoji, or colours its skin."""
    return char != "" and unicodedata.category(char) in {"So", "Sk"} and ord(char) > 0x7F


def _letter(text: str) -> str:
    """The first character that is no mark on another one, within reach of any real word."""
    return next((char for char in text[:8] if unicodedata.category(char) != "Mn"), "")


def _joins_next(char: str) -> bool:
    return char in _joining_letters()["<initial>"]


def _joins_previous(char: str) -> bool:
    return char in _joining_letters()["<final>"]


@cache
def _joining_letters() -> dict[str, set[str]]:
    """Arabic letters by the forms that Unicode has for them: one with an initial form is joined to the next letter."""
    letters: dict[str, set[str]] = {"<initial>": set(), "<final>": set()}
    for code in (*range(0xFB50, 0xFDFF), *range(0xFE70, 0xFF00)):
        form, *base = unicodedata.decomposition(chr(code)).split() or [""]
        if form in letters and len(base) == 1:
            letters[form].add(chr(int(base[0], 16)))
    return letters
