"""Training health: whether each run was sound."""

from __future__ import annotations

from analysis.report.cells import Report, Row, Table, cell, heads
from analysis.report.section import Section


def health(report: Report) -> Table:
    """Training metrics that show whether a run was sound."""
    meanings = report["health_metrics"]
    names = [name for name in meanings if any(name in arm["health"] for arm in report["arms"])]
    rows = tuple(
        Row(
            name,
            meanings[name],
            tuple(cell(arm["health"].get(name), remark="" if name in arm["health"] else " ") for arm in report["arms"]),
        )
        for name in names
    )
    return Table("Training health: mean over the last quarter of training", "", tuple(heads(report)), rows)


SECTION = Section(
    "Training health", "What the arms learned from", 20, lambda report, signed: {"health": health(report)}
)
