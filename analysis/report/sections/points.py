"""The numbers behind the learning curves and the frontier."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.report.cells import Cell, Report, Row, Table, bare, cell
from analysis.report.figures import recorded_axes
from analysis.report.section import Section


def points(report: Report, axes: Mapping[str, str]) -> Table:
    """Every evaluation point of every arm: what training had taken by then, KL and gold.

    Args:
        report: report.json.
        axes: key of the curve -> its name, those that were recorded.
    """
    rows = tuple(
        Row(
            f"{arm['arm']}, point {item['point']}",
            "",
            (*(Cell(bare(item[axis], 0)) for axis in axes), cell(item["kl"]), cell(item["gold"])),
        )
        for arm in report["arms"]
        for item in arm["curve"]
    )
    columns = (*axes.values(), "KL to the base", "mean gold, 0 to 100")
    return Table("What the curves and the frontier show; point 0 is the base", "Arm", columns, rows)


SECTION = Section(
    "Every evaluation point",
    "Every evaluation point",
    10,
    lambda report, signed: {"points": points(report, recorded_axes(report))},
)
