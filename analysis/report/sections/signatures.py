"""Who signed what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analysis.report.cells import Cell, Row, Table
from analysis.report.section import MAIN, Section
from analysis.report.signatures import DECISIONS, Signature

TONES = {"approve": "good", "reject": "bad", "conditional": "even"}


def signatures(signed: Sequence[Signature]) -> Table | None:
    """One row an entry, in the order of signing; None if nobody has signed."""
    if not signed:
        return None
    counts = Counter[str](entry.decision for entry in signed)
    summary = ", ".join(f"{counts[decision]} {decision}" for decision in DECISIONS if counts[decision])
    rows = tuple(Row(f"{entry.number}. {entry.name}", entry.role, _cells(entry)) for entry in signed)
    return Table(f"Signatures, in the order they were made: {summary}.", "who", ("decision", "hashes"), rows)


def _cells(entry: Signature) -> tuple[Cell, ...]:
    when = f"{entry.time[:10]} {entry.time[11:16]} UTC"
    cited = f"report.json {entry.report_sha256}; ledger {entry.ledger_sha256}"
    return (
        Cell(entry.decision, remark=when, tone=TONES[entry.decision]),
        # verify looks for these words in a page, to name an entry that the record has lost
        Cell(f"entry {entry.number}, SHA-256 {entry.sha256}", remark=f"signs {cited}"),
    )


SECTION = Section("Signatures", MAIN, 80, lambda report, signed: {"signatures": signatures(signed), "signed": signed})
