"""Collapse detectors: the worst of every detector and arm, and every evaluation point of each arm."""

from __future__ import annotations

from analysis.report.cells import Cell, Report, Row, Table, cell, figure, heads
from analysis.report.section import Section

MARKS = {"ok": "ok", "watch": "▲ watch", "fired": "■ fired", "not assessable": "–"}
TONES = {"ok": "", "watch": "even", "fired": "bad", "not assessable": "even"}


def overview(report: Report) -> Table:
    """Arms as columns; where a detector fired or watches, at which point, with which value."""
    arms = report["arms"]
    rows = [
        Row(item["detector"]["label"], item["detector"]["meaning"], tuple(_worst(arm, place) for arm in arms))
        for place, item in enumerate(arms[0]["collapse"]["detections"])
    ]
    rows.append(Row("Flags while training", "rows in which training itself raised one", tuple(map(_flags, arms))))
    return Table("Collapse detectors: the worst of all evaluation points", "", tuple(heads(report)), tuple(rows))


def details(report: Report) -> list[Table]:
    """One table an arm: detectors as rows, evaluation points as columns."""
    return [_points(arm) for arm in report["arms"]]


def _worst(arm: Report, place: int) -> Cell:
    item = arm["collapse"]["detections"][place]
    worst, status = item["worst"], item["worst"]["status"]
    if status in {"ok", "not assessable"}:
        return Cell(MARKS[status], remark=worst["why"] if status == "not assessable" else "", tone=TONES[status])
    where = f"at point {worst['point']}, seed {worst['seed']}"
    limit = f"threshold {_number(worst['threshold'], item)}"
    why = f"; {worst['why']}" if worst["why"] else ""
    return Cell(
        f"{MARKS[status]}: {_number(worst['number'], item)}", remark=f"{where}; {limit}{why}", tone=TONES[status]
    )


def _points(arm: Report) -> Table:
    detections = [item for item in arm["collapse"]["detections"] if item["worst"]["status"] != "not assessable"]
    points = [reading["point"] for reading in arm["collapse"]["detections"][0]["readings"]]
    rows = tuple(
        Row(
            item["detector"]["label"],
            f"fires beyond {_number(item['worst']['threshold'], item)}",
            tuple(_reading(reading, item) for reading in item["readings"]),
        )
        for item in detections
    )
    return Table(f"Collapse detectors of {arm['arm']}, every evaluation point", "", tuple(map(str, points)), rows)


def _reading(reading: Report, item: Report) -> Cell:
    status = reading["status"]
    if reading["number"] is None:
        return Cell("–", remark=reading["why"], tone="even")
    shown = cell(reading["number"], signed=item["detector"]["signed"])
    words = f"{MARKS[status]}; {reading['why']}" if reading["why"] else MARKS[status]
    return Cell(shown.main, shown.interval, words, TONES[status])


def _number(number: Report, item: Report) -> str:
    return figure(number["exact"] if "exact" in number else number["value"], number["unit"], item["detector"]["signed"])


def _flags(arm: Report) -> Cell:
    raised = {name: counts for name, counts in arm["collapse"]["flags"].items() if counts[0]}
    if not arm["collapse"]["flags"]:
        return Cell("–", remark="not recorded", tone="even")
    if not raised:
        return Cell("none")
    words = " · ".join(f"{name.replace('_', ' ')} {up} of {rows}" for name, (up, rows) in raised.items())
    return Cell("", remark=words)


SECTION = Section(
    "Collapse",
    "Stability",
    20,
    lambda report, signed: {"collapse": overview(report), "collapse_points": details(report)},
)
