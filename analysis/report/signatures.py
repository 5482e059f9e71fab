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
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from analysis.ledger.manifest import sha256
from analysis.text import hidden_in, is_hidden, visible
from experiments.foreign import ForeignFileError, parse_json, read_plain

RECORD = "signatures.jsonl"
LOCK = ".signatures.lock"
LOCK_TIMEOUT_SECONDS = 120.0
MAX_NAME_LENGTH, MAX_NOTE_LENGTH, MAX_PROGRAM_LENGTH, MAX_PATH_LENGTH = 200, 10_000, 1_000, 1_000  # characters
MAX_ENTRIES, MAX_ENTRY_BYTES = 1_000, 4 * 2**20  # more is signed by nobody
MAX_RECORD_BYTES = 64 * 2**20
MAX_LOST_NAMED = 20  # entries
NO_DIGEST = "0" * 64  # stands in a page for the hash of the entry that cites the page
LOOK_ALIKE = {"LATIN", "CYRILLIC", "GREEK"}  # scripts that share the shapes of many letters
WORD = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f])+")  # letters and the marks on them

Decision = Literal["approve", "reject", "conditional"]
DECISIONS: tuple[str, ...] = get_args(Decision)


class SignoffError(ValueError):
    """Nothing can be signed, or there is nothing to verify. The message says why, for people."""


def _one_line(text: str) -> str:
    if any(char in text for char in "\n\t"):
        raise ValueError("it must be on one line")
    if not any(char.isalnum() and not is_hidden(char) for char in text):
        raise ValueError("it is empty: the tool signs for nobody")
    _refuse(hidden_in(text, with_emoji=False))
    text = unicodedata.normalize("NFC", text)
    for word in WORD.findall(text):
        scripts = {unicodedata.name(char, "").partition(" ")[0] for char in word} & LOOK_ALIKE
        if len(scripts) > 1:
            raise ValueError(
                f"{word} mixes letters that look alike: {' and '.join(sorted(map(str.capitalize, scripts)))}"
            )
    return text


def _no_hidden(text: str) -> str:
    _refuse([char for char in hidden_in(text, with_emoji=True) if unicodedata.category(char) != "Zs"])
    return unicodedata.normalize("NFC", text)


def _refuse(hidden: Sequence[str]) -> None:
    if hidden:
        codes = ", ".join(f"U+{ord(char):04X}" for char in sorted(hidden))
        raise ValueError(f"it has characters that cannot be seen: {codes}; type it anew, with plain spaces")


def _real_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=MAX_NAME_LENGTH), AfterValidator(_one_line)
]  # of a person or a role
Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_NOTE_LENGTH), AfterValidator(_no_hidden)]
Time = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}\+00:00$"),
    AfterValidator(_real_time),
]
Hashes = dict[Annotated[str, StringConstraints(max_length=MAX_PATH_LENGTH)], Hash]  # path -> SHA-256 of the file


class Signature(BaseModel):
    """One entry of the record. Its hash covers every field, so also, through ``previous``, all entries before it.

    Entries of earlier versions lack the fields that have a default here; their hash covers what they have.

    Attributes:
        program: which program signed, as `analysis.signoff.program` says it.
        rebuilt: whether that program built the same report from the ledger again before it signed.
        pages: SHA-256 of each page that shows this entry, with `NO_DIGEST` for the hash of the entry itself.
        adapters: SHA-256 of each file of the final adapters that were there.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    number: int = Field(ge=1, le=MAX_ENTRIES)
    time: Time
    name: Name
    role: Name
    decision: Decision
    note: Note
    report_sha256: Hash
    ledger_sha256: Hash
    program: Annotated[str, StringConstraints(max_length=MAX_PROGRAM_LENGTH)] = ""
    rebuilt: bool = False
    pages: Hashes = Field(default_factory=dict)
    adapters: Hashes = Field(default_factory=dict)
    previous: Hash | None

    @property
    def sha256(self) -> str:
        """Of the entry's fields as JSON with sorted keys."""
        return sha256(json.dumps(self.model_dump(exclude_unset=True), sort_keys=True).encode())

    @property
    def line(self) -> bytes:
        """What stands in the file."""
        content = {**self.model_dump(exclude_unset=True), "sha256": self.sha256}
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"

    @property
    def shown_note(self) -> str:
        """The note, its hidden characters spelled out."""
        return visible(self.note)

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
    if last and fields["time"] < last.time:
        raise SignoffError(
            f"this machine's clock says {fields['time']}, but {last.words} was signed at {last.time}: set the clock"
        )
    if len(record.signatures) >= MAX_ENTRIES:
        raise SignoffError(f"{RECORD} has {MAX_ENTRIES} entries, the most that one report can have")
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
    """The record of a report's folder; an empty one if there is no file."""
    path = folder / RECORD
    if not os.path.lexists(path):
        return Record()
    try:
        content = read_plain(path, MAX_RECORD_BYTES)
    except ForeignFileError as error:
        return Record((), (str(error),))
    if content.count(b"\n") > MAX_ENTRIES:
        return Record((), (f"{RECORD} has more than {MAX_ENTRIES} lines, the most that this program writes",))
    *lines, torn = content.split(b"\n")
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
    """Raises SignoffError if one of the files is a symbolic link: it could lead anywhere."""
    links = [name for name in names if (folder / name).is_symlink()]
    if links:
        raise SignoffError(f"{folder}: {', '.join(links)} must be a file of its own, not a symbolic link")


# ------------------------------------------------------------------------------------------------ what can be wrong
def _parse(line: bytes) -> tuple[Signature | None, str | None]:
    """An entry, and what is wrong with its line."""
    if len(line) > MAX_ENTRY_BYTES:
        return None, f"has {len(line):,} bytes, more than any entry"
    try:
        content = parse_json(line)
        written = content.pop("sha256")
        entry = Signature.model_validate(content)
    except ValidationError as error:
        return None, f"is no entry: {'; '.join(_words(detail) for detail in error.errors())}"
    except (ValueError, KeyError, TypeError, AttributeError):
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
    lost = sorted({*range(1, max(numbers, default=0))} - {*numbers} - unreadable)
    if len(lost) > MAX_LOST_NAMED:
        yield f"{len(lost)} entries before entry {max(numbers)} were removed from {RECORD}"
    yield from (f"entry {number} was removed from {RECORD}" for number in lost[:MAX_LOST_NAMED])
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
        if before and entry.time < before.time:
            yield f"{entry.words} is older ({entry.time}) than {before.words}, which it follows ({before.time})"


def _words(detail: Any) -> str:
    """One of pydantic's errors, without what was typed: that may hold anything."""
    message = re.sub(r"^Value error, ", "", str(detail["msg"]))
    return f"{'.'.join(map(str, detail['loc']))}: {message}"
