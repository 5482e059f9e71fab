"""The command that started a sweep: kept in its plan, and shown so that it can be pasted into a shell."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

RUNNER = ("python", "-m", "runner")
KEY = re.compile(r"(?:\+\+|[+~])?([^=@]+)(?:@[^=]*)?=")  # of an override
SETS_ENVIRONMENT = "hydra.job.env_set"  # changes no specification, and might hold a secret
PLAIN_WORD = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)  # a text in Hydra's grammar, whatever follows the first letter


def recorded(arguments: Sequence[str]) -> tuple[str, ...]:
    """What a plan keeps of the runner's command line."""
    return tuple(word for word in arguments if word != "--plan" and not word.lstrip("+").startswith(SETS_ENVIRONMENT))


def changed(arguments: Sequence[str], changes: Mapping[str, str]) -> tuple[str, ...]:
    """A command line with other values of some keys.

    Args:
        arguments: of the runner.
        changes: key → value, in Hydra's grammar.
    """
    kept = [word for word in arguments if not ((match := KEY.match(word)) and match[1] in changes)]
    return (*kept, *(f"{key}={value}" for key, value in changes.items()))


def hydra_text(text: str) -> str:
    """A name as a value of Hydra's grammar, which takes ``20261130`` and ``20261130_2`` for numbers."""
    return text if PLAIN_WORD.fullmatch(text) else f"'{text}'"


def as_typed(words: Sequence[str]) -> str:
    """A command as typed into a shell: one line in which nothing is hidden and no word is anything but itself."""
    return " ".join(shlex.quote(word) if word.isprintable() else _spelt_out(word) for word in words)


def _spelt_out(word: str) -> str:
    """A word with control or invisible characters, in bash's and zsh's notation for bytes."""
    plain = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in "'\\"}
    spelt = (plain.get(byte) or rf"\x{byte:02x}" for byte in os.fsencode(word))
    return "$'" + "".join(spelt) + "'"
