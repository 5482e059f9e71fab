"""How far the style moved."""

from __future__ import annotations

from analysis.report.cells import NBSP, Cell, Report, Row, Table, cell, figure, heads

DRIFT_MARKS = {"above the floor": "▲", "not above the floor": "○"}


def style_drift(report: Report) -> Table:
    """Measures as rows; the floor beside the arms."""
    first = report["arms"][0]["style_drift"]
    rows = []
    for position, item in enumerate(first):
        unit = item["change"]["unit"]
        floor = Cell(f"≤{NBSP}" + figure(item["floor"], unit), remark="base against itself")
        base = cell(item["base"]) if item["base"] else Cell("")
        rows.append(
            Row(
                _drift_label(item["measure"]),
                item["meaning"],
                (base, floor, *(_drift_cell(arm["style_drift"][position]) for arm in report["arms"])),
            )
        )
    return Table(
        "Change against the base, with 95 % intervals", "", ("base", "noise floor", *heads(report)), tuple(rows)
    )


def _drift_label(measure: str) -> str:
    return {
        "length": "Length",
        "words": "Words",
        "cut_share": "Cut off",
        "distinct_1": "Distinct-1",
        "distinct_2": "Distinct-2",
        "repeated_4grams": "Repetition",
        "loop_share": "Loops",
        "sentiment": "Sentiment",
        "unigram_jsd": "Word choice",
    }[measure]


def _drift_cell(item: Report) -> Cell:
    ratio = "" if item["ratio"] is None else f"{item['ratio']['value']:.1f}{NBSP}×{NBSP}floor, "
    remark = f"{DRIFT_MARKS[item['reading']]} {ratio}{item['reading']}"
    return cell(
        item["change"],
        signed=item["ours"] is not None,
        remark=remark,
        tone="" if item["reading"] == "above the floor" else "even",
    )
