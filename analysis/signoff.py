"""Sign a report, and tell whether what was signed is still what lies there.

`verify` compares report.json, the ledger, the record and the views with the hashes in the record, and names what
differs. It proves agreement with these hashes; that they are the ones people signed, only a copy kept elsewhere proves.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.ledger_hash import MANIFEST, Manifest, changes, manifest_of, read_manifest, sha256
from analysis.load import load_ledger
from analysis.report.build import build_report
from analysis.report.files import (
    HTML,
    JSON,
    MARKDOWN,
    OURS,
    ReportError,
    json_text,
    parse_report,
    rendered,
    replace_text,
)
from analysis.signatures import (
    RECORD,
    Record,
    Signature,
    SignoffError,
    append,
    locked,
    read_record,
    refuse_links,
    sign_entry,
)
from runner.ledger.files import timestamp
from runner.ledger.reader import newest_report, read_json

MAX_DIFFERENCES = 20  # named ones; the rest is counted
MAX_VALUE_LENGTH = 60  # characters of a value in a difference
SHOWN_ENTRY = re.compile(r"entry (\d+), SHA-256 ([0-9a-f]{64})")  # as both views show a signature
ABSENT = object()


@dataclass(frozen=True)
class Contents:
    """A report's folder, read once: what is checked is what is signed.

    Attributes:
        folder: where.
        files: name -> bytes of those that are there.
        record: the signatures.
        runs_dir: the ledger's folder, where one was found.
    """

    folder: Path
    files: Mapping[str, bytes]
    record: Record
    runs_dir: Path | None

    @cached_property
    def report_sha256(self) -> str:
        """Of report.json as it is now."""
        return sha256(self.files.get(JSON, b""))

    @cached_property
    def ledger_sha256(self) -> str | None:
        """The hash of the ledger that was signed; of an unsigned report, the one that it cites."""
        if self.record.signatures:
            return self.record.signatures[-1].ledger_sha256
        try:
            return str(parse_report(self.files[JSON])["ledger"]["sha256"])
        except (ReportError, LookupError, TypeError):
            return None

    @cached_property
    def manifest(self) -> Manifest | None:
        """The recorded files and hashes, if they are the ones that were signed."""
        content = self.files.get(MANIFEST, b"")
        if sha256(content) == self.ledger_sha256:
            return read_manifest(content)
        return None

    @cached_property
    def is_signed_report(self) -> bool:
        """Whether report.json is what every signature cites."""
        return {entry.report_sha256 for entry in self.record.signatures} == {self.report_sha256}

    @cached_property
    def views(self) -> dict[str, str] | str:
        """What HTML and Markdown must be, or why this version of the program cannot tell."""
        try:
            return rendered(self.files[JSON], self.record.signatures) if JSON in self.files else {}
        except ReportError as error:
            return str(error)


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: lines that name what differs, lines that say what agrees, and who signed."""

    problems: tuple[str, ...]
    agreements: tuple[str, ...]
    signatures: tuple[Signature, ...]


def sign(folder: Path, ledger: Path | None = None, **fields: str) -> Signature:
    """Append a signature to the record of a report and show it in the views; report.json stays as it is.

    Args:
        folder: of the report.
        ledger: folder of the sweep, if it is not the one that the report lies in.
        fields: name, role, decision and note.

    Raises:
        SignoffError: a field cannot be taken, or what lies there is not consistent: nothing is signed.
    """
    _require_folder(folder)
    with locked(folder):
        contents = read_contents(folder, ledger)
        if JSON not in contents.files or contents.ledger_sha256 is None:
            raise SignoffError(f"{folder} has no report that cites its ledger; `python -m analysis report` makes one")
        signature = sign_entry(
            contents.record, time=timestamp(), report_sha256=contents.report_sha256,
            ledger_sha256=contents.ledger_sha256, **fields,
        )  # fmt: skip
        problems = [*_own_problems(contents), *_ledger_problems(contents), *_view_problems(contents)]
        if problems:
            raise SignoffError(f"nothing was signed, because {folder} is not consistent: {'; '.join(problems)}")
        texts = rendered(contents.files[JSON], (*contents.record.signatures, signature))
        append(folder, signature)
        for name, text in texts.items():
            replace_text(folder / name, text)
    return signature


def verify(folder: Path, ledger: Path | None = None, kept_hashes: Sequence[str] = (), rebuild: bool = False) -> Verdict:
    """Compare a report's folder, and the ledger where it is there, with what was signed.

    Args:
        folder: of the report.
        ledger: folder of the sweep, if it is not the one that the report lies in.
        kept_hashes: hashes of entries of which a copy was kept elsewhere.
        rebuild: also build the report from the ledger again where all hashes agree.

    Raises:
        SignoffError: there is no report, or its files are links.
    """
    _require_folder(folder)
    with locked(folder) if os.access(folder, os.W_OK) else nullcontext():
        contents = read_contents(folder, ledger)
    own, of_ledger = _own_problems(contents), _ledger_problems(contents)
    problems = [*own, *of_ledger, *_view_problems(contents), *_kept_problems(contents, kept_hashes)]
    if contents.runs_dir and (own or of_ledger or rebuild):
        problems += _rebuild_problems(contents, contents.runs_dir, bool(of_ledger))
    return Verdict(tuple(problems), tuple(_agreements(contents, kept_hashes, rebuild)), contents.record.signatures)


def read_contents(folder: Path, ledger: Path | None) -> Contents:
    """Read a report's folder, and find its ledger.

    Raises:
        SignoffError: a file is a link, or ``ledger`` is no folder.
    """
    refuse_links(folder, OURS)
    files = {name: (folder / name).read_bytes() for name in OURS if (folder / name).is_file()}
    if ledger is not None and not ledger.is_dir():
        raise SignoffError(f"{ledger} is no folder")
    return Contents(folder, files, read_record(folder), ledger or _ledger_beside(folder, files.get(MANIFEST, b"")))


def _require_folder(folder: Path) -> None:
    if any((folder / name).exists() for name in (JSON, RECORD)):
        return
    newest = newest_report(folder)
    hint = f"; the newest report of this sweep is in {newest}" if (newest / JSON).is_file() else ""
    raise SignoffError(f"{folder} is not the folder of a report: it has no {JSON}{hint}")


def _ledger_beside(folder: Path, manifest: bytes) -> Path | None:
    """The folder that the report lies in, if any of the ledger's files is there: one lost must not hide the others."""
    parent = folder.resolve().parent
    try:
        recorded = list(read_manifest(manifest).files)
    except ValueError:
        recorded = []
    return parent if any((parent / path).is_file() for path in ("plan.json", *recorded)) else None


# -------------------------------------------------------------------------------------------------- what can disagree
def _own_problems(contents: Contents) -> list[str]:
    """Of the record, report.json and the manifest."""
    signatures, problems = contents.record.signatures, list(contents.record.problems)
    if JSON not in contents.files:
        problems.append(f"{JSON} is missing")
    differing = [entry for entry in signatures if entry.report_sha256 != contents.report_sha256]
    problems += [
        f"{JSON} was changed: its SHA-256 is {contents.report_sha256}, but {entry.words} signed {entry.report_sha256}"
        for entry in differing
        if JSON in contents.files
    ]
    if MANIFEST not in contents.files:
        problems.append(f"{MANIFEST}, the list of the ledger's files and hashes, is missing")
    elif contents.manifest is None:
        found = sha256(contents.files[MANIFEST])
        problems.append(f"{MANIFEST} was changed: its SHA-256 is {found}, but {contents.ledger_sha256} was recorded")
    return problems


def _ledger_problems(contents: Contents) -> list[str]:
    """Files and rows of the ledger that are not as they were when the report was made."""
    if contents.runs_dir is None:
        return []
    if contents.manifest is not None:
        return [f"ledger: {change}" for change in changes(contents.manifest, contents.runs_dir)]
    if _hash_now(contents.runs_dir) == contents.ledger_sha256:
        return []
    return [f"ledger: it is not the recorded one; without {MANIFEST} as it was, the changed files cannot be named"]


def _hash_now(runs_dir: Path) -> str | None:
    try:
        return manifest_of(runs_dir, read_json(runs_dir / "plan.json")).sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _view_problems(contents: Contents) -> list[str]:
    """HTML and Markdown that are not what report.json and the record give."""
    views = contents.views
    if isinstance(views, str):
        return [] if contents.is_signed_report else [views]
    return [
        problem
        for name, text in views.items()
        for problem in _view_problem(contents.folder, name, text, contents.files)
    ]


def _view_problem(folder: Path, name: str, expected: str, files: Mapping[str, bytes]) -> Iterator[str]:
    shown = files.get(name)
    if shown == expected.encode():
        return
    if shown is None:
        yield f"{name} is missing"
        return
    lost = set(SHOWN_ENTRY.findall(shown.decode(errors="replace"))) - set(SHOWN_ENTRY.findall(expected))
    for number, digest in sorted(lost):
        yield f"{name} shows entry {number} with SHA-256 {digest}, which {RECORD} does not have: removed or replaced"
    yield (
        f"{name} is not what {JSON} and {RECORD} give: one of them was changed, or another version of this program "
        f"wrote it; `python -m analysis report --from-json {folder / JSON}` writes it again"
    )


def _kept_problems(contents: Contents, kept_hashes: Sequence[str]) -> list[str]:
    present = {entry.sha256 for entry in contents.record.signatures}
    return [
        f"no entry of {RECORD} has the kept hash {kept}: this is not the record that the copy was taken from"
        for kept in kept_hashes
        if kept not in present
    ]


# ------------------------------------------------------------------------------------------------------------ rebuild
def _rebuild_problems(contents: Contents, runs_dir: Path, ledger_changed: bool) -> list[str]:
    """Name the values of report.json that a report built now from the ledger does not have."""
    try:
        built = build_report(load_ledger(runs_dir))
    except Exception as error:  # a changed ledger can break anything: the other findings must still be told
        return [f"no report can be built from the ledger any more: {error}"]
    if sha256(json_text(built).encode()) == contents.report_sha256:
        return []
    try:
        there = parse_report(contents.files.get(JSON, b""))
    except ReportError:
        return []
    expected = {"ledger.sha256", "ledger.num_files"} if ledger_changed else set()
    found = [item for item in differences(there, built) if item[0] not in expected]
    return [_cause(contents, built, ledger_changed), *_named(found)] if found else []


def _cause(contents: Contents, built: Mapping[str, Any], ledger_changed: bool) -> str:
    """Which side the differences come from, as far as it can be known."""
    signed = {entry.report_sha256 for entry in contents.record.signatures}
    if sha256(json_text(built).encode()) in signed:
        return f"the ledger still gives the report that was signed; {JSON} differs from it in"
    if ledger_changed:
        return f"a report of the ledger as it is now differs from {JSON} in"
    return (
        "this version of the program, from the unchanged ledger, gives another report than the signed one; "
        f"{JSON} differs from it in"
    )


def _named(found: Sequence[tuple[str, Any, Any]]) -> Iterator[str]:
    for path, ours, theirs in found[:MAX_DIFFERENCES]:
        yield f"  {path}: {_short(ours)} in {JSON}, {_short(theirs)} by the ledger"
    if len(found) > MAX_DIFFERENCES:
        yield f"  … and in {len(found) - MAX_DIFFERENCES} more values"


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, as ``arms[0].gold.value``; `ABSENT` where one has none."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*ours, *theirs)):
            name = f"{path}.{key}" if path else str(key)
            yield from differences(ours.get(key, ABSENT), theirs.get(key, ABSENT), name)
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index in range(max(len(ours), len(theirs))):
            left, right = (side[index] if index < len(side) else ABSENT for side in (ours, theirs))
            yield from differences(left, right, f"{path}[{index}]")
    elif ours != theirs or type(ours) is not type(theirs):
        yield path, ours, theirs


def _short(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


# --------------------------------------------------------------------------------------------------------- agreements
def _agreements(contents: Contents, kept_hashes: Sequence[str], rebuild: bool) -> Iterator[str]:
    """What was compared, for the case that all of it agrees."""
    signatures = contents.record.signatures
    yield f"{JSON} has the SHA-256 that every signature cites: {contents.report_sha256}"
    if contents.runs_dir and contents.manifest:
        again = ", and it gives this report when built again" if rebuild else ""
        yield f"all {len(contents.manifest.files)} files of the ledger in {contents.runs_dir} have their hashes{again}"
    else:
        yield "the ledger itself was NOT compared, because it is not here; --ledger RUNS_DIR says where it is"
    yield f"{MANIFEST} has the SHA-256 that every signature cites for the ledger: {contents.ledger_sha256}"
    if signatures:
        yield f"{RECORD} is an unbroken chain of {len(signatures)}; the last has SHA-256 {signatures[-1].sha256}"
    if isinstance(contents.views, str):
        yield f"{HTML} and {MARKDOWN} were NOT compared: {contents.views}"
    else:
        yield f"{HTML} and {MARKDOWN} are what {JSON} and {RECORD} give"
    for entry in signatures:
        if entry.sha256 in kept_hashes:
            yield f"entry {entry.number} has the hash that was kept elsewhere, so it and all before it are the same"
