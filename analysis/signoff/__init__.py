"""Sign a report, and tell whether what was signed is still what lies there.

Both build the report from its ledger again: a report.json that says something else is neither signed nor "as signed".
`verify` also compares report.json, the ledger, the record, the views and the final adapters with the hashes in the
record, and names what differs. It proves agreement with these hashes; that they are the ones people signed, only a copy
kept elsewhere proves.
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

from analysis.ledger.load import load_ledger
from analysis.ledger.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Manifest,
    changes,
    is_inside,
    manifest_of,
    read_manifest,
    sha256,
)
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
from analysis.report.signatures import (
    NO_DIGEST,
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
from analysis.signoff.adapters import adapter_changes, final_adapters
from analysis.signoff.program import program
from experiments.foreign import ForeignFileError, parse_json, read_object, read_plain
from runner.ledger.files import timestamp
from runner.ledger.reader import newest_report

MAX_DIFFERENCES = 20  # named ones; the rest is counted
MAX_NAMED = 5  # files in one line
MAX_VALUE_LENGTH = 60  # characters of a value in a difference
SHOWN_ENTRY = re.compile(r"entry (\d+), SHA-256 ([0-9a-f]{64})")  # as both views show a signature
SEAL = re.compile(
    rb"<!-- SHA-256 of [\w.]+: [0-9a-f]{64}; of all above: [0-9a-f]{64} -->\n\Z"
)  # a page may end with it
ABSENT = object()
ANOTHER_PROGRAM = "an earlier version, which did not record itself"


@dataclass(frozen=True)
class Contents:
    """A report's folder, read once: what is checked is what is signed.

    Attributes:
        folder: where.
        files: name -> bytes of those that are there.
        record: the signatures.
        runs_dir: the ledger's folder, if one was found.
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
        except (RecursionError, MemoryError, RuntimeError) as error:  # of a report.json that was made to break it
            return f"{JSON} cannot be shown: {type(error).__name__}"

    @cached_property
    def other_views(self) -> list[str]:
        """The views that are there and are not what this version of the program writes."""
        if self.has_signed_views or isinstance(self.views, str):
            return []
        return [name for name, text in self.views.items() if self.files.get(name, text.encode()) != text.encode()]

    @cached_property
    def has_unbound_views(self) -> bool:
        """Whether an earlier version signed, which cited no pages: it may have written them in another way."""
        return self.is_signed_report and not self.record.signatures[-1].pages

    @cached_property
    def has_signed_views(self) -> bool:
        """Whether the views are, byte for byte, those that the last signer's program wrote."""
        last = self.record.signatures[-1] if self.record.signatures else None
        if last is None or not last.pages or not self.is_signed_report:
            return False
        return {name: page_hash(self.files.get(name, b""), last) for name in (HTML, MARKDOWN)} == last.pages

    @cached_property
    def signed_by_this_program(self) -> bool:
        """Whether this very program signed, so that it must come to the same report again."""
        return any(entry.program == program() for entry in self.record.signatures)


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        problems: lines that name what differs.
        agreements: lines that say what agrees, and the gaps.
        gaps: lines that say what was not compared.
        signatures: who signed.
        has_ledger: whether the ledger was there.
        was_rebuilt: whether the report was built from it again.
    """

    problems: tuple[str, ...]
    agreements: tuple[str, ...]
    gaps: tuple[str, ...]
    signatures: tuple[Signature, ...]
    has_ledger: bool
    was_rebuilt: bool


def sign(folder: Path, ledger: Path | None = None, without_ledger: bool = False, **fields: str) -> Signature:
    """Append a signature to the record of a report and show it in the views; report.json stays as it is.

    Args:
        folder: of the report.
        ledger: folder of the sweep, if it is not the one that the report lies in.
        without_ledger: sign also if the ledger is gone; the entry says that nothing was built again.
        fields: name, role, decision and note.

    Raises:
        SignoffError: a field cannot be taken, or what lies there is not consistent: nothing is signed.
    """
    _require_folder(folder)
    with locked(folder):
        contents = read_contents(folder, ledger)
        if JSON not in contents.files or contents.ledger_sha256 is None:
            raise SignoffError(f"{folder} has no report that cites its ledger; `python -m analysis report` makes one")
        draft = sign_entry(
            contents.record, time=timestamp(), report_sha256=contents.report_sha256,
            ledger_sha256=contents.ledger_sha256, program=program(), rebuilt=contents.runs_dir is not None, **fields,
        )  # fmt: skip
        if contents.runs_dir is None and not without_ledger:
            raise SignoffError(
                f"nothing was signed, because the ledger of {folder} is not here: --ledger RUNS_DIR says where it is, "
                "--without-ledger signs a report that nobody can build again"
            )
        problems = [*_own_problems(contents), *_ledger_problems(contents), *_view_problems(contents)]
        if contents.runs_dir and not problems:
            problems = _rebuild_problems(contents, contents.runs_dir, ledger_changed=False)
        if problems:
            raise SignoffError(f"nothing was signed, because {folder} is not consistent: {'; '.join(problems)}")
        adapters = final_adapters(contents.runs_dir) if contents.runs_dir else {}
        texts = rendered(contents.files[JSON], (*contents.record.signatures, draft))
        pages = {name: page_hash(text.encode(), draft) for name, text in texts.items()}
        signature = draft.model_copy(update={"pages": pages, "adapters": adapters})
        texts = rendered(contents.files[JSON], (*contents.record.signatures, signature))
        append(folder, signature)
        for name, text in texts.items():
            replace_text(folder / name, text)
    return signature


def page_hash(page: bytes, entry: Signature) -> str:
    """SHA-256 of a page that shows an entry, without what depends on the entry's own hash: that, and a seal below."""
    return sha256(SEAL.sub(b"", page.replace(entry.sha256.encode(), NO_DIGEST.encode())))


def verify(folder: Path, ledger: Path | None = None, kept_hashes: Sequence[str] = (), rebuild: bool = False) -> Verdict:
    """Compare a report's folder, and the ledger if it is there, with what was signed.

    The report is built from the ledger again if this program signed it, or if something differs, to name it.

    Args:
        folder: of the report.
        ledger: folder of the sweep, if it is not the one that the report lies in.
        kept_hashes: hashes of entries of which a copy was kept elsewhere.
        rebuild: build it again also if another version of the program signed.

    Raises:
        SignoffError: there is no report, or its files are links.
    """
    _require_folder(folder)
    with locked(folder) if os.access(folder, os.W_OK) else nullcontext():
        contents = read_contents(folder, ledger)
    own, of_ledger = _own_problems(contents), _ledger_problems(contents)
    changed, absent = _adapter_problems(contents)
    problems = [*own, *of_ledger, *changed, *_view_problems(contents), *_kept_problems(contents, kept_hashes)]
    was_rebuilt = bool(contents.runs_dir and (own or of_ledger or rebuild or contents.signed_by_this_program))
    if contents.runs_dir and was_rebuilt:
        problems += _rebuild_problems(contents, contents.runs_dir, bool(of_ledger))
    gaps = tuple(_gaps(contents, was_rebuilt, absent))
    return Verdict(
        tuple(problems), (*_agreements(contents, kept_hashes, was_rebuilt), *gaps), gaps, contents.record.signatures,
        contents.runs_dir is not None, was_rebuilt,
    )  # fmt: skip


def read_contents(folder: Path, ledger: Path | None) -> Contents:
    """Read a report's folder, and find its ledger.

    Raises:
        SignoffError: a file is a link or far too large, or ``ledger`` is no folder.
    """
    refuse_links(folder, OURS)
    try:
        files = {name: read_plain(folder / name, MAX_MANIFEST_BYTES) for name in OURS if os.path.lexists(folder / name)}
    except ForeignFileError as error:
        raise SignoffError(str(error)) from None
    if ledger is not None and not ledger.is_dir():
        raise SignoffError(f"{ledger} is no folder")
    return Contents(folder, files, read_record(folder), _ledger_in(ledger or folder.resolve().parent, files))


def _require_folder(folder: Path) -> None:
    if any((folder / name).exists() for name in (JSON, RECORD)):
        return
    newest = newest_report(folder)
    hint = f"; the newest report of this sweep is in {newest}" if (newest / JSON).is_file() else ""
    raise SignoffError(f"{folder} is not the folder of a report: it has no {JSON}{hint}")


def _ledger_in(runs_dir: Path, files: Mapping[str, bytes]) -> Path | None:
    """The folder, if any of the ledger's files is there: one lost must not hide the others."""
    try:
        recorded = list(read_manifest(files.get(MANIFEST, b"")).files)
    except ValueError:
        recorded = []
    inside = filter(is_inside, ("plan.json", *recorded))
    return runs_dir if any((runs_dir / path).is_file() for path in inside) else None


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
        return manifest_of(runs_dir, read_object(runs_dir / "plan.json")).sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _adapter_problems(contents: Contents) -> tuple[list[str], list[str]]:
    """Final adapters that are not those of an entry, and the files of them that are not there."""
    changed: list[str] = []
    absent: list[str] = []
    if contents.runs_dir is None:
        return changed, absent
    for entry in contents.record.signatures:
        problems, lost = adapter_changes(entry.adapters, contents.runs_dir)
        changed += [f"final adapter of {entry.words}: {problem}" for problem in problems]
        absent += lost
    return changed, sorted(set(absent))


def _view_problems(contents: Contents) -> list[str]:
    """Views that are neither the pages that the last entry cites nor what report.json and the record give."""
    views, signatures = contents.views if not contents.has_signed_views else {}, contents.record.signatures
    if isinstance(views, str):
        if not contents.is_signed_report:
            return [views]
        cites = [f"{HTML} or {MARKDOWN} is not the page that {signatures[-1].words} cites"]
        return cites if signatures[-1].pages else []
    problems = [f"{name} is missing" for name in views if name not in contents.files]
    problems += [
        problem for name in views for problem in _lost_entries(name, contents.files.get(name, b""), views[name])
    ]
    if contents.has_unbound_views:
        return problems
    return problems + [
        f"{name} is not what {JSON} and {RECORD} give: one of them was changed, or another version of this program "
        f"wrote it; `python -m analysis report --from-json {contents.folder / JSON}` writes it again"
        for name in contents.other_views
    ]


def _lost_entries(name: str, shown: bytes, expected: str) -> Iterator[str]:
    lost = set(SHOWN_ENTRY.findall(shown.decode(errors="replace"))) - set(SHOWN_ENTRY.findall(expected))
    for number, digest in sorted(lost):
        yield f"{name} shows entry {number} with SHA-256 {digest}, which {RECORD} does not have: removed or replaced"


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
        text = json_text(build_report(load_ledger(runs_dir)))
    except Exception as error:  # a changed ledger can break anything: the other findings must still be told
        return [f"no report can be built from the ledger any more: {error}"]
    built_sha256 = sha256(text.encode())
    if built_sha256 == contents.report_sha256:
        return []
    content, built = contents.files.get(JSON, b""), json.loads(text)
    try:
        there = parse_report(content)
    except ReportError as error:
        return [f"the ledger gives a report, but {error}", *_named(_of_any_form(content, built))]
    expected = {"ledger.sha256", "ledger.num_files"} if ledger_changed else set()
    found = [item for item in differences(there, built) if item[0] not in expected]
    if found:
        return [_cause(contents, built_sha256, ledger_changed), *_named(found)]
    return [] if ledger_changed else [f"{JSON} has the values that the ledger gives, but something else wrote it"]


def _of_any_form(content: bytes, built: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The differences of a report.json that the schema refuses; none if it is of another version or no object."""
    try:
        there = parse_json(content)
    except ValueError:
        return []
    same_version = isinstance(there, dict) and there.get("schema") == built["schema"]
    return list(differences(there, built)) if same_version else []


def _cause(contents: Contents, built_sha256: str, ledger_changed: bool) -> str:
    """Which side the differences come from, as far as it can be known."""
    signed = {entry.report_sha256 for entry in contents.record.signatures}
    if built_sha256 in signed:
        return f"the ledger still gives the report that was signed; {JSON} differs from it in"
    if ledger_changed:
        return f"a report of the ledger as it is now differs from {JSON} in"
    if contents.signed_by_this_program:
        return (
            f"the unchanged ledger does not give the report that was signed with this very program; {JSON} differs in"
        )
    return (
        f"the unchanged ledger gives another report: {JSON} was changed, or another version of this program made it "
        f"(`python -m analysis report {contents.runs_dir}` makes a new one); it differs in"
    )


def _named(found: Sequence[tuple[str, Any, Any]]) -> Iterator[str]:
    for path, ours, theirs in found[:MAX_DIFFERENCES]:
        yield f"  {path}: {_short(ours)} in {JSON}, {_short(theirs)} by the ledger"
    if len(found) > MAX_DIFFERENCES:
        yield f"  … and in {len(found) - MAX_DIFFERENCES} more values"


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, as ``arms[0].measure.value``; `ABSENT` if one has none."""
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
def _agreements(contents: Contents, kept_hashes: Sequence[str], was_rebuilt: bool) -> Iterator[str]:
    """What was compared, for the case that all of it agrees."""
    signatures = contents.record.signatures
    yield f"{JSON} has the SHA-256 that every signature cites: {contents.report_sha256}"
    if contents.runs_dir and contents.manifest:
        again = ", and it gives this report when built again" if was_rebuilt else ""
        yield f"all {len(contents.manifest.files)} files of the ledger in {contents.runs_dir} have their hashes{again}"
    yield f"{MANIFEST} has the SHA-256 that every signature cites for the ledger: {contents.ledger_sha256}"
    if signatures:
        yield f"{RECORD} is an unbroken chain of {len(signatures)}; the last has SHA-256 {signatures[-1].sha256}"
    if contents.has_signed_views:
        yield f"{HTML} and {MARKDOWN} have the SHA-256 that the last signature cites"
    elif not isinstance(contents.views, str) and not contents.other_views:
        yield f"{HTML} and {MARKDOWN} are what {JSON} and {RECORD} give"
    for entry in signatures:
        if entry.sha256 in kept_hashes:
            yield f"entry {entry.number} has the hash that was kept elsewhere, so it and all before it are the same"


def _gaps(contents: Contents, was_rebuilt: bool, absent_adapters: Sequence[str]) -> Iterator[str]:
    """What was not compared, and why."""
    signatures = contents.record.signatures
    if contents.runs_dir is None:
        yield (
            "the ledger itself was NOT compared, nor were the final adapters, because it is not here; "
            "--ledger RUNS_DIR says where it is"
        )
    elif signatures and not was_rebuilt:
        signed_by = " and ".join(dict.fromkeys(entry.program or ANOTHER_PROGRAM for entry in signatures))
        yield f"the report was NOT built again, because it was signed with {signed_by}; this is {program()}"
        yield "--rebuild builds it all the same, and names what this version finds otherwise"
    if contents.runs_dir and signatures and not any(entry.adapters for entry in signatures):
        yield "no signature cites a final adapter, so none was looked at"
    if absent_adapters:
        more = f" and {len(absent_adapters) - MAX_NAMED} more" if len(absent_adapters) > MAX_NAMED else ""
        named = ", ".join(absent_adapters[:MAX_NAMED])
        yield f"of the final adapters, what is not here any more was NOT compared: {named}{more}"
    if not contents.has_signed_views and isinstance(contents.views, str):
        yield f"{HTML} and {MARKDOWN} were NOT compared: {contents.views}"
    elif contents.has_unbound_views and contents.other_views:
        yield (
            f"{' and '.join(contents.other_views)} were NOT compared: an earlier version signed, which cited no pages, "
            f"and this one would write others; `python -m analysis report --from-json {contents.folder / JSON}` does"
        )
    for page in sorted(contents.folder.glob("*.pdf"))[:MAX_NAMED]:
        yield f"{page.name} was NOT compared: a PDF is a copy that no signature cites"
    for entry in signatures:
        if entry.program and not entry.rebuilt:
            yield f"{entry.words} was signed without the ledger, so NOT compared with it then"
