"""Text from a model or a file, made safe to show. A response may hold anything: markup, control characters, fences."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_KEPT = {"\n", "\t"}
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
# controls, bidi overrides and zero-width, lone surrogates, private, unassigned, line and paragraph separators
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: str) -> str:
    """Spell out characters that cannot be seen or reorder what can: ⟨U+001B⟩. Newlines and tabs stay."""
    return "".join(f"⟨U+{ord(char):04X}⟩" if is_hidden(char) else char for char in text)


def is_hidden(char: str) -> bool:
    """Whether a character cannot be seen, newlines and tabs apart."""
    return unicodedata.category(char) in _HIDDEN and char not in _KEPT


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
    """Text for a line or a table cell of Markdown: nothing in it is markup, and it stays on its line."""
    escaped = _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_fence(text: str) -> str:
    """A fenced block whose fence is longer than any run of backticks inside it (CommonMark, section 4.5)."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
