"""What the arms shared, and what each had of its own."""

from __future__ import annotations

from functools import partial

from analysis.report.cells import Cell, Report, Row, Table, arms_table, cell
from analysis.report.section import Section


def artifacts(report: Report) -> Table:
    """How good the shared artifacts are."""
    rows = tuple(Row(item["artifact"], item["meaning"], (cell(item["number"]),)) for item in report["artifacts"])
    return Table("What all arms share", "Artifact", ("value",), rows)


def learned_from(report: Report) -> Table:
    """Comparisons and knobs of every arm."""
    keys = list(dict.fromkeys(key for arm in report["arms"] for key in arm["knobs"]))
    comparisons = ("comparisons", "what it learned from", lambda arm: Cell(arm["comparisons"]))
    knobs = ((key.replace("_", " "), "", partial(_knob, key)) for key in keys)
    return arms_table(report, "What each arm learned from, and its own settings", (comparisons, *knobs))


def shared_costs(report: Report) -> Table:
    """Wall time of the shared jobs."""
    rows = tuple(
        Row(kind.replace("_", " "), "", (cell(number),)) for kind, number in report["shared_costs"].items() if number
    )
    return Table("Time spent once for all arms", "Shared job", ("wall clock",), rows)


def _knob(key: str, arm: Report) -> Cell:
    value = arm["knobs"].get(key)
    return Cell("–" if value is None else f"{value:g}" if isinstance(value, float) else str(value))


SECTION = Section(
    "What the arms learned from",
    "What the arms learned from",
    10,
    lambda report, signed: {
        "artifacts": artifacts(report),
        "shared_costs": shared_costs(report),
        "learned_from": learned_from(report),
    },
)
