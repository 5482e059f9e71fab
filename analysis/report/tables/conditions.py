"""What the arms shared, what each had of its own, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analysis.report.cells import Cell, Report, Row, Table, cell, heads


def artifacts(report: Report) -> Table:
    """How good the shared artifacts are."""
    rows = tuple(Row(item["artifact"], item["meaning"], (cell(item["number"]),)) for item in report["artifacts"])
    return Table("What all arms share", "Artifact", ("value",), rows)


def learned_from(report: Report) -> Table:
    """Comparisons and knobs of every arm."""
    keys = list(dict.fromkeys(key for arm in report["arms"] for key in arm["knobs"]))
    arms = report["arms"]
    rows = [Row("comparisons", "what it learned from", tuple(Cell(arm["comparisons"]) for arm in arms))]
    rows += [Row(key.replace("_", " "), "", tuple(Cell(_knob(arm["knobs"].get(key))) for arm in arms)) for key in keys]
    return Table("What each arm learned from, and its own settings", "", tuple(heads(report)), tuple(rows))


def health(report: Report, meanings: dict[str, tuple[str, str]]) -> Table:
    """Training metrics that show whether a run was sound."""
    names = [name for name in meanings if any(name in arm["health"] for arm in report["arms"])]
    rows = tuple(
        Row(
            name,
            meanings[name][0],
            tuple(cell(arm["health"].get(name), remark="" if name in arm["health"] else " ") for arm in report["arms"]),
        )
        for name in names
    )
    return Table("Training health: mean over the last quarter of training", "", tuple(heads(report)), rows)


def shared_costs(report: Report) -> Table:
    """Wall time of the shared jobs."""
    rows = tuple(
        Row(kind.replace("_", " "), "", (cell(number),)) for kind, number in report["shared_costs"].items() if number
    )
    return Table("Time spent once for all arms", "Shared job", ("wall clock",), rows)


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


def _knob(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _text_rows(items: Iterable[tuple[str, Any]]) -> Iterable[Row]:
    return (Row(str(key), "", (Cell(str(value)),)) for key, value in items)
