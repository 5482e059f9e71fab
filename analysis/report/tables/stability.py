"""Over training, over samples, over seeds."""

from __future__ import annotations

from collections.abc import Callable

from analysis.report.cells import Cell, Report, Row, Table, cell, heads


def stability(report: Report) -> Table:
    """Over training, over samples, over seeds."""
    arms = report["arms"]

    def row(label: str, meaning: str, make: Callable[[Report], Cell]) -> Row:
        return Row(label, meaning, tuple(make(arm["stability"]) for arm in arms))

    rows = (
        row(
            "Worst drop from the peak",
            "largest fall below the running best, base SD",
            lambda item: cell(item["drawdown"]),
        ),
        row(
            "Worst step",
            "smallest change between two evaluations; negative is a fall",
            lambda item: cell(item["worst_step"], signed=True),
        ),
        row(
            "Final over peak",
            "how much of the best gold score the final model keeps",
            lambda item: cell(item["final_over_peak"]),
        ),
        row("Spread within a prompt", "SD of gold over samples of one prompt, base SD", _within_prompt),
        row("Across seeds", "final gold of each seed", _seed_cell),
    )
    return Table("Stability, with 95 % intervals", "", tuple(heads(report)), rows)


def _within_prompt(item: Report) -> Cell:
    if item["within_prompt"] is None:
        return Cell("not assessable", remark="one sample per prompt", tone="even")
    return cell(item["within_prompt"], remark=f"base {item['within_prompt_base']['value']:.2f}")


def _seed_cell(item: Report) -> Cell:
    seeds = item["seeds"]
    if not seeds["assessable"]:
        return Cell("not assessable", remark=seeds["reason"].removeprefix("not assessable: "), tone="even")
    values = " · ".join(f"{value:.1f}" for value in seeds["values"])
    if seeds["interquartile_range"] is None:
        return Cell(values, remark=seeds["reason"])
    return Cell(values, remark=f"IQR {seeds['interquartile_range']:.1f}, worst {seeds['worst']:.1f}")
