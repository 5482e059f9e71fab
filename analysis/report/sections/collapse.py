"""Collapse detectors: the worst of every detector and arm, and every evaluation point of each arm."""

from __future__ import annotations

from functools import partial

from analysis.report.cells import Cell, Report, Row, Table, arms_table, cell, figure
from analysis.report.section import Section

MARKS = {"no": "ok", "inconclusive": "▲ watch", "yes": "■ fired", "not assessable": "–"}
TONES = {"no": "", "inconclusive": "even", "yes": "bad", "not assessable": "even"}


def overview(report: Report) -> Table:
    """Arms as columns; if a detector fired or is worth watching, at which point and with which value."""
    detectors = (
        (item["detector"]["label"], item["detector"]["meaning"], partial(_worst, place))
        for place, item in enumerate(report["arms"][0]["collapse"]["detections"])
    )
    flags = ("Flags while training", "rows in which training itself raised one", _flags)
    return arms_table(report, "Collapse detectors: the worst of all evaluation points", (*detectors, flags))


def details(report: Report) -> list[Table]:
    """One table an arm: detectors as rows, evaluation points as columns."""
    return [_points(arm) for arm in report["arms"]]


def _worst(place: int, arm: Report) -> Cell:
    item = arm["collapse"]["detections"][place]
    worst, reply = item["worst"], item["worst"]["reply"]
    if reply in {"no", "not assessable"}:
        return Cell(MARKS[reply], remark=worst["why"] if reply == "not assessable" else "", tone=TONES[reply])
    where = f"at point {worst['point']}, seed {worst['seed']}"
    limit = f"threshold {_number(worst['threshold'], item)}"
    why = f"; {worst['why']}" if worst["why"] else ""
    return Cell(f"{MARKS[reply]}: {_number(worst['number'], item)}", remark=f"{where}; {limit}{why}", tone=TONES[reply])


def _points(arm: Report) -> Table:
    detections = [item for item in arm["collapse"]["detections"] if item["worst"]["reply"] != "not assessable"]
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
    reply = reading["reply"]
    if reading["number"] is None:
        return Cell("–", remark=reading["why"], tone="even")
    shown = cell(reading["number"], signed=item["detector"]["signed"])
    words = f"{MARKS[reply]}; {reading['why']}" if reading["why"] else MARKS[reply]
    return Cell(shown.main, shown.interval, words, TONES[reply])


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
