"""Training health: whether each run was sound."""

from __future__ import annotations

from functools import partial

from analysis.report.cells import Cell, Report, Table, arms_table, cell
from analysis.report.section import Section


def health(report: Report) -> Table:
    """Training metrics that show whether a run was sound."""
    meanings = report["health_metrics"]
    rows = [
        (name, meanings[name], partial(_cell, name))
        for name in meanings
        if any(name in arm["health"] for arm in report["arms"])
    ]
    return arms_table(report, "Training health: mean over the last quarter of training", rows)


def _cell(name: str, arm: Report) -> Cell:
    return cell(arm["health"].get(name), remark="" if name in arm["health"] else " ")


SECTION = Section(
    "Training health", "What the arms learned from", 20, lambda report, signed: {"health": health(report)}
)
