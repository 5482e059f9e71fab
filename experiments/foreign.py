"""Read files and texts that others may have written: never block, read up to a bound, show without side effects.

Anyone who can write to a folder can put a pipe, a link or a device in place of a file. So only regular ("plain") files
are read here. A folder on the path may be a symbolic link, the file itself may not.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

# What a value of an unexpected shape raises when it is parsed or used.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
MAX_JSON_BYTES = 2**27
MAX_JSON_DEPTH = 64  # of nested lists and objects
MAX_DIGITS = 40  # of an integer: no counter needs more, and a float may be unable to hold them
MAX_LINE = 300  # characters
TOO_DEEP = f"lists and objects are nested deeper than {MAX_JSON_DEPTH}"


class ForeignFileError(ValueError):
    """A file is no plain file, or is larger, more deeply nested or of another form than this program writes."""


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading. Does not wait for a pipe's writer and does not follow a link.

    Raises:
        FileNotFoundError: there is no such file.
        ForeignFileError: it is no plain file, or cannot be opened; the message names it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ForeignFileError(f"{path} cannot be read: {_why(path, error)}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ForeignFileError(f"{path} cannot be read: it is no plain file")
    return os.fdopen(descriptor, "rb")


def append_plain(path: Path) -> BufferedWriter:
    """Open a plain file for appending; it is created if it is missing.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(descriptor, "ab")


def read_plain(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The content of a plain file.

    Raises:
        FileNotFoundError: there is no such file.
        ForeignFileError: it is no plain file, cannot be read, or is longer than `max_bytes`; the message names it.
    """
    with open_plain(path) as stream:
        try:
            content = stream.read(max_bytes + 1)
        except OSError as error:
            raise ForeignFileError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise ForeignFileError(f"{path} cannot be read: it is larger than {max_bytes:,} bytes")
    return content


def read_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read or holds no JSON object; the message names the file.
    """
    content = read_plain(path, max_bytes)
    try:
        return parse_object(content)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def parse_object(content: bytes | str) -> dict[str, Any]:
    """The object in a JSON text, see `parse_json`.

    Raises:
        ValueError: there is none; the message is to follow the name of the place.
    """
    try:
        value = parse_json(content)
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("holds no JSON object")
    return value


def parse_json(content: bytes | str) -> Any:
    """A JSON value with limited nesting and finite numbers, safe for recursion and arithmetic.

    Raises:
        ValueError: the text is not JSON.
        ForeignFileError: it is nested deeper than `MAX_JSON_DEPTH`, or a number has too many digits.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text, parse_float=_finite, parse_int=_short, parse_constant=_finite)
    except RecursionError:
        raise ForeignFileError(TOO_DEEP) from None
    require_shallow(value)
    return value


def require_shallow(value: Any) -> None:
    """Raise ForeignFileError if a JSON value is nested too deeply for recursive functions."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [item for part in level for item in _containers(part)]
        if not level:
            return
    raise ForeignFileError(TOO_DEEP)


def clean(text: object, limit: int = MAX_LINE) -> str:
    """The text of a model, server or foreign file as one line that cannot move the cursor or colour the terminal."""
    return "".join(char if char.isprintable() else " " for char in str(text)[:limit])


def clean_lines(text: object, limit: int = 100 * MAX_LINE) -> str:
    """The same for a text of several lines."""
    return "\n".join(clean(line, limit) for line in str(text)[:limit].split("\n"))


def _why(path: Path, error: Exception) -> str:
    if path.is_symlink():
        return "it is a link"
    return error.strerror or "" if isinstance(error, OSError) else str(error)


def _containers(value: Any) -> Iterator[Any]:
    """The lists and objects inside one."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (part for part in parts if isinstance(part, dict | list))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ForeignFileError(f"{clean(text, 20)} is no finite number")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ForeignFileError(f"a number has {len(text)} digits")
    return int(text)
