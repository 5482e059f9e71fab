"""``signatures.jsonl`` beside report.json: who accepted which report, one line an entry, each citing the one before it.

The chain shows a change, removal or exchange of entries that others follow. It cannot show that somebody wrote the
whole record anew: for that, the hash of the last entry has to be kept elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from analysis.ledger_hash import sha256
from analysis.report.text import is_hidden, visible

RECORD = "signatures.jsonl"
LOCK = ".signatures.lock"
LOCK_TIMEOUT_SECONDS = 120.0
MAX_NAME_LENGTH, MAX_NOTE_LENGTH = 200, 10_000  # characters
JOINERS = {"\u200c", "\u200d"}  # hidden, but Persian, Indic scripts and emoji are spelled with them
BLANK_LETTERS = {"\u115f", "\u1160", "\u2800", "\u3164", "\uffa0"}  # look like nothing, yet are no spaces

Decision = Literal["approve", "reject", "conditional"]
DECISIONS: tuple[str, ...] = get_args(Decision)


class SignoffError(ValueError):
    """Nothing can be signed, or there is nothing to verify. The message says why, for people."""


def _one_line(text: str) -> str:
    if any(char in text for char in "\n\t"):
        raise ValueError("it must be on one line")
    if not any(char.isalnum() and char not in BLANK_LETTERS for char in text):
        raise ValueError("it is empty: the tool signs for nobody")
    return _no_hidden(text)


def _no_hidden(text: str) -> str:
    hidden = sorted({f"U+{ord(char):04X}" for char in text if is_hidden(char) and char not in JOINERS})
    if hidden:
        raise ValueError(f"it has characters that cannot be seen: {', '.join(hidden)}")
    return unicodedata.normalize("NFC", text)


Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=MAX_NAME_LENGTH), AfterValidator(_one_line)
]  # of a person or a role
Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_NOTE_LENGTH), AfterValidator(_no_hidden)]


class Signature(BaseModel):
    """One entry of the record. Its hash covers every field, so also, through ``previous``, all entries before it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    number: int = Field(ge=1)
    time: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}\+00:00$")
    name: Name
    role: Name
    decision: Decision
    note: Note
    report_sha256: Hash
    ledger_sha256: Hash
    previous: Hash | None

    @property
    def sha256(self) -> str:
        """Of the entry's fields as JSON with sorted keys."""
        return sha256(json.dumps(self.model_dump(), sort_keys=True).encode())

    @property
    def line(self) -> bytes:
        """What stands in the file."""
        return json.dumps({**self.model_dump(), "sha256": self.sha256}, ensure_ascii=False).encode() + b"\n"

    @property
    def words(self) -> str:
        """Who decided what, on one line."""
        return f"entry {self.number} ({self.name}, {self.role}: {self.decision})"


@dataclass(frozen=True)
class Record:
    """The entries in the order of the file, and what is wrong with it, in words."""

    signatures: tuple[Signature, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nobody has signed and nothing hints at anybody who has."""
        return not self.signatures and not self.problems


def sign_entry(record: Record, **fields: Any) -> Signature:
    """The entry that follows on the record.

    Raises:
        SignoffError: a field cannot be taken; all that is wrong is listed.
    """
    last = record.signatures[-1] if record.signatures else None
    try:
        signature = Signature(number=len(record.signatures) + 1, previous=last.sha256 if last else None, **fields)
    except ValidationError as error:
        raise SignoffError("; ".join(f"--{_words(detail)}" for detail in error.errors())) from None
    if signature.decision == "conditional" and not signature.note:
        raise SignoffError("--note: a conditional decision needs the condition")
    return signature


def append(folder: Path, signature: Signature) -> None:
    """Write the entry to the end of the record, and to the disk, before anything else happens."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with open(folder / RECORD, "ab", opener=lambda path, _: os.open(path, flags, 0o644)) as stream:
        stream.write(signature.line)
        stream.flush()
        os.fsync(stream.fileno())


def read_record(folder: Path) -> Record:
    """The record of a report's folder; an empty one where there is no file."""
    path = folder / RECORD
    if not os.path.lexists(path):
        return Record()
    *lines, torn = path.read_bytes().split(b"\n")
    problems, entries = [], []
    for number, line in enumerate(lines, start=1):
        entry, problem = _parse(line)
        entries.append(entry)
        problems += [f"line {number} of {RECORD} {problem}"] if problem else []
    if torn:
        start = visible(torn[:60].decode(errors="replace"))
        problems.append(
            f"the last line of {RECORD} is torn ({len(torn)} bytes: {start} …): a signing was interrupted there, or "
            "the end was cut off"
        )
    return Record(tuple(entry for entry in entries if entry), (*problems, *_chain_problems(entries)))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other signers, and rebuilds of the report, out of a report's folder.

    Raises:
        SignoffError: somebody else stays in it.
    """
    refuse_links(folder, (LOCK, RECORD))
    try:
        with FileLock(folder / LOCK, timeout=LOCK_TIMEOUT_SECONDS):
            yield
    except Timeout:
        raise SignoffError(f"another process has been writing in {folder} for {LOCK_TIMEOUT_SECONDS:.0f} s") from None


def refuse_links(folder: Path, names: Sequence[str]) -> None:
    """Raises SignoffError where one of the files is a symbolic link: it could lead anywhere."""
    links = [name for name in names if (folder / name).is_symlink()]
    if links:
        raise SignoffError(f"{folder}: {', '.join(links)} must be a file of its own, not a symbolic link")


# ------------------------------------------------------------------------------------------------ what can be wrong
def _parse(line: bytes) -> tuple[Signature | None, str | None]:
    """An entry, and what is wrong with its line."""
    try:
        content = json.loads(line)
        written = content.pop("sha256")
        entry = Signature.model_validate(content)
    except ValidationError as error:
        return None, f"is no entry: {'; '.join(_words(detail) for detail in error.errors())}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, "is no entry of a record"
    if entry.sha256 != written:
        return entry, f"was changed: {entry.words} does not have the hash that it carries"
    return entry, None if line + b"\n" == entry.line else f"was written by something else than `sign`: {entry.words}"


def _chain_problems(entries: Sequence[Signature | None]) -> Iterator[str]:
    """Entries that are missing, doubled, in another order, or follow another entry than the one before them."""
    unreadable = {position for position, entry in enumerate(entries, start=1) if entry is None}
    found = [entry for entry in entries if entry]
    numbers = [entry.number for entry in found]
    if numbers != sorted(numbers):
        yield f"the entries of {RECORD} were put into another order: {', '.join(map(str, numbers))}"
    for number, count in sorted(Counter(numbers).items()):
        if count > 1:
            yield f"{RECORD} has {count} entries with the number {number}"
    for number in range(1, max(numbers, default=0)):
        if number not in numbers and number not in unreadable:
            yield f"entry {number} was removed from {RECORD}"
    yield from _link_problems(found)


def _link_problems(entries: Sequence[Signature]) -> Iterator[str]:
    by_number = {entry.number: entry for entry in entries}
    for entry in entries:
        before = by_number.get(entry.number - 1)
        if entry.number == 1 and entry.previous is not None:
            yield f"{entry.words} is the first, yet it was added after another one, which was removed"
        elif before and entry.previous != before.sha256:
            yield (
                f"{entry.words} was added after another entry than the {before.words} that stands before it now: "
                "one of the two was changed"
            )


def _words(detail: Any) -> str:
    """One of pydantic's errors, without what was typed: that may hold anything."""
    message = re.sub(r"^Value error, ", "", str(detail["msg"]))
    return f"{'.'.join(map(str, detail['loc']))}: {message}"
