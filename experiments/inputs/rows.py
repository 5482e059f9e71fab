"""The rows of a file, and the line on which each begins, as an editor counts.

Nothing is guessed: a field of a table is the string that stands there ("NA", "0123" and "1e5" too), and a value of JSON
keeps its type. What cannot be read is refused with its line, the reason and what to do.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from experiments.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".jsonl", ".ndjson", ".json")  # in any case, and with .gz behind them
MAX_CHARACTERS = 2**30  # of a file, unpacked: no file takes all the memory
MAX_FIELD = 1_000_000  # characters: a quote that never closes makes one field of all that follows
MAX_SHOWN = 40  # characters of a value in a message
MAX_NAMES = 20  # columns in a message
WIDE = (b"\xff\xfe", b"\xfe\xff")  # what UTF-16 and UTF-32 begin with
GZIP = b"\x1f\x8b"
BOM = "\ufeff"
SPACE = re.compile(r"\s*")
RECODE = "save it as UTF-8, or convert it: iconv -f ENCODING -t UTF-8 FILE > NEW_FILE"


@dataclass(frozen=True)
class Row:
    """A row by column, and the number of its first line."""

    line: int
    values: Mapping[str, object]


def suffix_of(path: Path) -> str:
    """The suffix that names the format, in lower case: ``.csv`` of ``texts.CSV.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_rows(path: Path, shown: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file of one of `SUFFIXES`. JSON is an object a line, or one list of objects.

    Args:
        path: the file.
        shown: what a refusal begins with, such as ``data.path=texts.csv``.
        columns: those that are needed.

    Raises:
        InputError: the file cannot be read, has no rows, or lacks a column or has it twice.
    """
    source = _Source(path, shown)
    separator = SEPARATORS.get(suffix_of(path))
    rows = _table(source, separator, columns) if separator else _objects(source, columns)
    row = None
    try:
        for row in rows:
            yield row
    except (OSError, EOFError, zlib.error) as error:
        source.refuse(f"it cannot be read ({getattr(error, 'strerror', None) or error})", source.number)
    if row is None:
        source.refuse(f"the file has no rows; it needs the columns {' and '.join(columns)}")


def shown_value(value: object) -> str:
    """A value for a message: on one line, without control characters, and short."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


class _Source:
    """The lines of a file, counted as they are read."""

    def __init__(self, path: Path, shown: str) -> None:
        self._path, self._shown = path, shown
        self.number = 0  # of the last line that was read
        self.torn = False  # whether that line has no end

    def refuse(self, why: str, line: int = 0) -> NoReturn:
        """Raise InputError about one of the lines, or about the whole file."""
        where = f", line {line}" if line else ""
        raise InputError(f"{self._shown}{where}: {why}") from None

    def lines(self) -> Iterator[str]:
        """Each with its end, and without a byte-order mark."""
        left = MAX_CHARACTERS
        with self._path.open("rb") as file, _unpacked(file) as stream:
            if stream.peek(2)[:2] in WIDE:
                self.refuse(f"its encoding is UTF-16 or UTF-32, not UTF-8; {RECODE}", 1)
            text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
            while line := text.readline(left + 1):
                self.number += 1
                left -= len(line)
                if left < 0:
                    self.refuse(f"the file has more than {MAX_CHARACTERS:,} characters; take a part of it", self.number)
                self.torn = not line.endswith(("\n", "\r"))
                self._check(line)
                yield line.removeprefix(BOM)

    def _check(self, line: str) -> None:
        if "\0" in line:
            self.refuse(f"there is a NUL byte: the file is damaged, or UTF-16 or UTF-32; {RECODE}", self.number)
        try:
            line.encode()
        except UnicodeEncodeError as error:  # a byte that is no UTF-8 was read as half of a surrogate pair
            byte = f"0x{ord(line[error.start]) & 0xFF:02x}"
            self.refuse(f"the byte {byte} is not UTF-8 but perhaps Latin-1 or Windows-1252; {RECODE}", self.number)


def _unpacked(file: io.BufferedReader) -> io.BufferedReader:
    """The file or, where it begins as gzip does, what is packed in it."""
    return cast(io.BufferedReader, gzip.GzipFile(fileobj=file)) if file.peek(2)[:2] == GZIP else file


# --------------------------------------------------------------------------------------------------------------- tables
def _table(source: _Source, separator: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows below the header."""
    csv.field_size_limit(MAX_FIELD)
    records = _records(source, csv.reader(source.lines(), delimiter=separator, strict=True))
    first, names = next(records, (0, []))
    if not names:
        return
    _check_columns(source, names, columns)
    if twice := [name for name in columns if names.count(name) > 1]:
        source.refuse(f"the header names the column {' and '.join(twice)} twice; rename or remove one", first)
    for line, fields in records:
        if len(fields) != len(names):
            source.refuse(_wrong_width(len(fields), len(names), separator) + _cut(source), line)
        yield Row(line, dict(zip(names, fields, strict=True)))


def _records(source: _Source, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, each with its first line."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            source.refuse(_table_fault(str(error)), line)
        if fields is None:
            return
        if fields:
            yield line, fields


def _table_fault(said: str) -> str:
    """What the csv module says, in words for a person."""
    if said.startswith(("unexpected end of data", "field larger than")):
        return f"a field of this row ends neither within {MAX_FIELD:,} characters nor before the file: close its quote"
    if "expected after" in said:
        return (
            "text follows a closing quote: close the quote that opens here; in a quoted field, write each quote twice"
        )
    return f"this is no row of a table ({said})"


def _wrong_width(num_fields: int, num_names: int, separator: str) -> str:
    name = {",": "comma", "\t": "tab"}[separator]
    return f"{num_fields} fields here, but {num_names} in the header: put a text that holds a {name} in quotes"


def _cut(source: _Source) -> str:
    return "; the file ends inside this line, as if cut off: write it again, or remove the line" if source.torn else ""


def _check_columns(source: _Source, found: Collection[str], columns: Sequence[str]) -> None:
    if missing := sorted(set(columns) - set(found)):
        there = ", ".join(_shown_name(name) for name in itertools.islice(found, MAX_NAMES)) or "none"
        more = ", …" if len(found) > MAX_NAMES else ""
        source.refuse(f"column {' and '.join(missing)} missing; it has {there}{more}; it needs {' and '.join(columns)}")


def _shown_name(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= MAX_SHOWN else shown_value(name)


# ----------------------------------------------------------------------------------------------------------------- JSON
def _objects(source: _Source, columns: Sequence[str]) -> Iterator[Row]:
    """An object a line or, where the file begins with a bracket, the objects of one list."""
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _object(pairs, columns))
    lines = source.lines()
    first = next((line for line in lines if line.strip()), "")
    values = _values_of_list if first.lstrip().startswith("[") else _values_of_lines
    seen: dict[str, None] = {}
    line = 0
    for line, value in values(source, first, lines, decoder):
        if not isinstance(value, dict):
            source.refuse(f"{shown_value(value)} is no object with {' and '.join(columns)}", line)
        seen |= dict.fromkeys(value)
        yield Row(line, value)
    if line:
        _check_columns(source, seen, columns)


def _values_of_lines(
    source: _Source, first: str, rest: Iterator[str], decoder: json.JSONDecoder
) -> Iterator[tuple[int, Any]]:
    for text in filter(None, map(str.strip, itertools.chain([first], rest))):
        value, end = _value(source, decoder, text, 0, source.number)
        if end < len(text):
            source.refuse("something follows the object: each line must hold one", source.number)
        yield source.number, value


def _values_of_list(
    source: _Source, first: str, rest: Iterator[str], decoder: json.JSONDecoder
) -> Iterator[tuple[int, Any]]:
    line = source.number  # where `counted` lies in `text`
    text = first + "".join(rest)
    counted, at = 0, text.index("[") + 1
    while True:
        at = _after_space(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text.startswith("]", at):
            break
        value, end = _value(source, decoder, text, at, line)
        yield line, value
        at = _after_space(text, end)
        if text.startswith(",", at):
            at += 1
        elif not text.startswith("]", at):
            source.refuse(f"neither a comma nor the list's end follows this object{_cut(source)}", line)
    if text[at + 1 :].strip():
        source.refuse("something follows the list: the file must hold one list, or one object a line", line)


def _after_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _value(source: _Source, decoder: json.JSONDecoder, text: str, at: int, line: int) -> tuple[Any, int]:
    """The value that begins at `at`, in `line`, and where it ends."""
    try:
        return decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        line += text.count("\n", at, error.pos)
        source.refuse(f"this is not valid JSON ({error.msg}){_cut(source)}", line)
    except RecursionError:
        source.refuse("its JSON is nested too deeply", line)
    except ValueError as error:  # a repeated key, a number of thousands of digits
        source.refuse(f"its JSON cannot be used ({str(error).partition(';')[0]})", line)


def _object(pairs: list[tuple[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """A dict; of a key that is there twice, nobody can say which value is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        for name in columns:
            if names.count(name) > 1:
                raise ValueError(f"the key {name} is there twice")
    return found
