"""What was checked before training, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analysis.report.cells import Cell, Report, Row, Table
from analysis.report.section import Section


def fairness(report: Report) -> Table | None:
    """The checks that the plan made before anything was trained."""
    rows = tuple(
        Row(
            item["check"],
            "",
            (Cell(str(item["value"])), Cell("equal" if item["ok"] else "NOT EQUAL", tone="" if item["ok"] else "bad")),
        )
        for item in report["fairness"]
    )
    return Table("Equal for all arms, checked before training", "Check", ("value", "result"), rows) if rows else None


def provenance(report: Report) -> list[Table]:
    """Inputs and identities, what all jobs had in common, and what differed."""
    source = report["provenance"]
    hashes = {**{f"input: {name}": value for name, value in source["inputs"].items()}, **source["identities"]}
    tables = [
        Table("Hashes of inputs and specifications", "", ("sha256",), tuple(_text_rows(hashes.items()))),
        Table("Recorded the same by all jobs", "", ("value",), tuple(_text_rows(source["same"].items()))),
    ]
    different = (
        (f"{key}: {label}", value) for key, by_job in source["different"].items() for label, value in by_job.items()
    )
    tables.append(Table("Recorded differently", "", ("value",), tuple(_text_rows(different))))
    return [table for table in tables if table.rows]


def _text_rows(items: Iterable[tuple[str, Any]]) -> Iterable[Row]:
    return (Row(str(key), "", (Cell(str(value)),)) for key, value in items)


SECTION = Section(
    "Provenance",
    "Provenance",
    10,
    lambda report, signed: {"fairness": fairness(report), "provenance": provenance(report)},
)
