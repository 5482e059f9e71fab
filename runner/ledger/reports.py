"""Whether a sweep's report can be taken as it is: its four files are whole, and its ledger is the one of now.

The files vouch for each other: report.json cites the SHA-256 of the manifest, which has those of the ledger's files,
and each page ends with a seal, the SHA-256 of report.json and of all that stands above. So nothing has to be rendered
for the check. A seal shows damage; who changed a page on purpose could also write a new one (see `analysis.signoff`).
The version of the program is not looked at: `python -m analysis report RUNS_DIR` writes a report anew in any case.
"""

from __future__ import annotations

from pathlib import Path

from runner.ledger.manifest import MANIFEST, changed_files, read_manifest, sha256
from runner.ledger.reader import newest_report, read_json

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"
MAX_FILES_NAMED = 3


def sealed(page: str, report_sha256: str) -> str:
    """A page with its seal, an HTML comment, which Markdown hides as well.

    Args:
        page: its text.
        report_sha256: of the report.json that it shows.
    """
    page = f"{page.rstrip()}\n"
    return page + _seal(page.encode(), report_sha256)


def is_whole(page: bytes, report_sha256: str) -> bool:
    """Whether a page ends with the seal of this report.json and of its own text."""
    above = page[: -len(_seal(b"", report_sha256))]
    return page == above + _seal(above, report_sha256).encode()


def report_problems(runs_dir: Path) -> list[str]:
    """Why the newest report of a sweep cannot be taken as it is, in words; nothing if it can.

    Args:
        runs_dir: the sweep's folder.
    """
    return torn_files(newest_report(runs_dir)) or _other_ledger(newest_report(runs_dir), runs_dir)


def torn_files(folder: Path) -> list[str]:
    """What is missing or damaged among the four files of a report's folder, in words."""
    try:
        cited = read_json(folder / JSON)["ledger"]["sha256"]
        report_sha256 = sha256((folder / JSON).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [f"{folder.name}/{JSON} is missing or cannot be read"]
    found = [name for name in (MARKDOWN, HTML) if not is_whole(_content(folder / name), report_sha256)]
    if sha256(_content(folder / MANIFEST)) != cited:
        found.insert(0, MANIFEST)
    return [f"{folder.name}/{name} is missing or not what belongs to {JSON}" for name in found]


def _other_ledger(folder: Path, runs_dir: Path) -> list[str]:
    """That a report was made from other files than a report made now would be."""
    try:
        changed = changed_files(read_manifest(_content(folder / MANIFEST)), runs_dir)
    except ValueError as error:
        return [str(error)]
    if not changed:
        return []
    more = f" and {len(changed) - MAX_FILES_NAMED} more" if len(changed) > MAX_FILES_NAMED else ""
    return [
        f"{folder.name} was made from another ledger: {', '.join(changed[:MAX_FILES_NAMED])}{more} differ from then"
    ]


def _seal(above: bytes, report_sha256: str) -> str:
    return f"<!-- SHA-256 of {JSON}: {report_sha256}; of all above: {sha256(above)} -->\n"


def _content(path: Path) -> bytes:
    """A file's bytes, none if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
