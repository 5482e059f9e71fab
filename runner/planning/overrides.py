"""Overrides that Hydra would not read as they were meant: a path with a comma, a name that is a number.

Hydra's grammar takes ``runs_dir=/a,b`` for two values, ``name=20261130`` for a number, and cannot read
``model.path=/a=b``. A text in double quotes is always taken as it is, so that is what a person is told to write.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from runner.planning.problems import secret_keys, text_keys

# As in Hydra's OverrideLexer.g4: what an unquoted text may hold, and what is no text though it holds nothing else.
UNQUOTED = re.compile(r"(?:[A-Za-z0-9_/\\+.$%*@?|: \t-]|\$\{[^}]*\}|\\[(){}\[\]:=, \t])*")
WHOLE = r"(?:0|[1-9](?:_?\d)*)"
POINT = rf"(?:{WHOLE}\.|(?:{WHOLE})?\.\d(?:_?\d)*)"
NUMBER = rf"[+-]?(?:{WHOLE}|{POINT}|(?:{WHOLE}|{POINT})e[+-]?\d(?:_?\d)*|inf|nan)"
NO_TEXT = re.compile(rf"{NUMBER}|true|false", re.IGNORECASE | re.ASCII)
HIDDEN = "…"  # in place of a value that may be a key


def misread(overrides: Iterable[str]) -> Iterator[str]:
    """What a person should write in place of the overrides of texts that Hydra would take for something else."""
    texts = text_keys()
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key.lstrip("+") in texts and not _is_text(value):
            yield f"{_shown(override)}: Hydra does not read this value as one text; {advice(override)}"


def advice(override: str) -> str:
    """How to write an override whose value is one text, ready for a shell."""
    key, _, value = _shown(override).partition("=")
    return f"write it like this: {shlex.quote(f'{key}={quoted(value)}')}"


def quoted(text: str) -> str:
    """A text as a value of Hydra's grammar: backslashes count only before a quotation mark or the end."""
    inside = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text)
    return f'"{inside}"'


def _is_text(value: str) -> bool:
    """Whether Hydra takes a value for one text, null or an interpolation; what is quoted is left to Hydra."""
    if value[:1] in {'"', "'"}:
        return True
    return bool(UNQUOTED.fullmatch(value)) and not NO_TEXT.fullmatch(value.strip())


def _shown(override: str) -> str:
    key = override.partition("=")[0]
    return f"{key}={HIDDEN}" if key.lstrip("+") in secret_keys() else override
