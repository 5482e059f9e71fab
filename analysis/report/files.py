"""The files of a report's folder. report.json and the ledger's manifest are facts; HTML and Markdown are views of them.

What is signed is never written again: a report that differs from a signed one goes to the next numbered folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from analysis.ledger import Ledger
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html
from analysis.report.schema import REPORT_SCHEMA, ReportSchemaError, checked
from analysis.report.signatures import RECORD, Signature, SignoffError, locked, read_record, refuse_links
from experiments.foreign import parse_json
from runner.ledger.files import replacing
from runner.ledger.manifest import MANIFEST, sha256
from runner.ledger.reader import NUMBERED_REPORT, newest_report
from runner.ledger.reports import HTML, JSON, MARKDOWN, sealed, torn_files

__all__ = ["HTML", "JSON", "MARKDOWN", "OURS", "ReportError", "Written", "render_again", "write_report"]

OURS = (JSON, MANIFEST, MARKDOWN, HTML, RECORD)


class ReportError(ValueError):
    """A report.json that cannot be shown. The message says why, for people."""


@dataclass(frozen=True)
class Written:
    """Where a report is, what it says, and what a reader must know about the place."""

    folder: Path
    headline: str
    remark: str = ""


def write_report(ledger: Ledger) -> Written:
    """Build the report of a sweep and write it, unless the newest one is signed and the same.

    Raises:
        SignoffError: the newest report's folder cannot be written to safely.
    """
    report = build_report(ledger)
    files = {JSON: json_text(report), MANIFEST: ledger.manifest.text, **views(report)}
    while True:
        folder = newest_report(ledger.folder)
        if folder.is_symlink():
            raise SignoffError(f"{folder} is a symbolic link; a report is written only into the sweep's own folder")
        folder.mkdir(exist_ok=True)
        with locked(folder):
            if newest_report(ledger.folder) == folder:  # else another process has made a newer one meanwhile
                place, remark = _place(folder, files)
                return Written(place, report["headline"], remark)


def render_again(path: Path) -> list[Path]:
    """Write the HTML and Markdown of a report.json, and of the record beside it, anew; returns their paths.

    Raises:
        ReportError: the file holds no report.
        SignoffError: the record beside it is damaged.
    """
    if path.suffix != ".json":
        raise ReportError(f"{path} is no JSON file by its name")
    with locked(path.parent):
        refuse_links(path.parent, (*OURS, path.name))
        record = read_record(path.parent)
        if record.problems:
            raise SignoffError(f"{path.parent}: {'; '.join(record.problems)}")
        texts = rendered(path.read_bytes(), record.signatures)
        paths = [path.with_suffix(Path(name).suffix) for name in texts]
        for target, text in zip(paths, texts.values(), strict=True):
            replace_text(target, text)
    return paths


def rendered(content: bytes, signatures: Sequence[Signature]) -> dict[str, str]:
    """The views of a report.json's bytes.

    Raises:
        ReportError: they hold no report of this version.
    """
    report = parse_report(content)
    try:
        return views(report, signatures)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        TemplateError,
    ) as error:
        raise ReportError(f"{JSON} cannot be shown: {type(error).__name__}: {error}") from error


def parse_report(content: bytes) -> dict[str, Any]:
    """The dictionary in a report.json's bytes.

    Raises:
        ReportError: they hold no report of this version.
    """
    try:
        report = parse_json(content)
    except ValueError as error:
        raise ReportError(f"{JSON} is not valid JSON: {error}") from None
    if not isinstance(report, dict) or report.get("schema") != REPORT_SCHEMA:
        raise ReportError(f"{JSON} is no report with schema {REPORT_SCHEMA}, which this version reads")
    try:
        return checked(report)
    except ReportSchemaError as error:
        raise ReportError(str(error)) from None


def json_text(report: Mapping[str, Any]) -> str:
    """The content of report.json."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def views(report: Mapping[str, Any], signatures: Sequence[Signature] = ()) -> dict[str, str]:
    """Name -> content of what people read; each page is sealed with the report that it shows."""
    pages = {MARKDOWN: render_markdown(report, signatures), HTML: render_html(report, signatures)}
    of_report = sha256(json_text(report).encode())
    return {name: sealed(page, of_report) for name, page in pages.items()}


def replace_text(path: Path, text: str) -> None:
    """Write atomically: a reader sees the old file or the new one. A link in the way is replaced, not followed."""
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


# ------------------------------------------------------------------------------------------------------------ placing
def _place(folder: Path, files: Mapping[str, str]) -> tuple[Path, str]:
    """Write into the folder if nobody has signed there, into a new one if the report differs; else mend at most."""
    refuse_links(folder, OURS)
    record = read_record(folder)
    if record.is_empty:
        for name, text in files.items():
            replace_text(folder / name, text)
        return folder, ""
    there = folder / JSON
    if there.is_file() and there.read_bytes() == files[JSON].encode() and not (torn_files(folder) and record.problems):
        return folder, f"{folder} is signed and says the same; {_mend(folder, files, record.signatures)}"
    return _new_folder(folder, files)


def _mend(folder: Path, files: Mapping[str, str], signatures: Sequence[Signature]) -> str:
    """Give a signed report its manifest and pages again, if they are lost or torn: they follow from report.json."""
    if not torn_files(folder):
        return "nothing was written"
    texts = {MANIFEST: files[MANIFEST], **views(parse_report(files[JSON].encode()), signatures)}
    for name, text in texts.items():
        replace_text(folder / name, text)
    return f"{', '.join(texts)} were written again"


def _new_folder(folder: Path, files: Mapping[str, str]) -> tuple[Path, str]:
    numbers = [int(m[1]) for path in folder.parent.iterdir() if (m := NUMBERED_REPORT.fullmatch(path.name))]
    new = folder.with_name(f"report-{max([1, *numbers]) + 1}")
    unfinished = new.with_name(f".{new.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name, text in files.items():
        replace_text(unfinished / name, text)
    unfinished.rename(new)
    return new, f"{folder} is signed and stays as it is; this report differs from it"
