"""What else was measured of the final models."""

from __future__ import annotations

from analysis.report.cells import Cell, Report, Table, cell, heads
from analysis.report.section import Section
from analysis.report.sections.glance import BLANK, cost, rate, row_maker

COST_ROWS = (
    ("device_seconds", "Device time", "seconds × devices (threads on a CPU)"),
    ("tokens_generated", "Tokens generated", "sampled in training"),
    ("tokens_trained", "Tokens trained", "through a backward pass"),
    ("peak_memory_bytes", "Peak memory", "of the process or the GPU"),
)


def scores_and_costs(report: Report) -> Table:
    """What else was measured of the final models."""
    row, measure = row_maker(report), report["scores"][0]
    rows = (
        row(
            "Mean measure", f"{measure['name']}, × 100: {measure['meaning']}", cell(report["base"]["measure"]), _measure
        ),
        *(
            row(f"Win rate by {card['name']}", report["judges"][card["name"]]["role"], BLANK, rate(card["name"]))
            for card in report["scores"]
            if not report["judges"][card["name"]]["decides"]
        ),
        row("Response length", "mean tokens of a response", cell(_length(report["arms"][0])["base"]), _mean_length),
        *(row(label, meaning, BLANK, cost(name)) for name, label, meaning in COST_ROWS),
    )
    return Table("Further scores and costs, with 95 % intervals", "", ("base", *heads(report)), rows)


def _measure(arm: Report) -> Cell:
    return cell(arm["measure"])


def _length(arm: Report) -> Report:
    found: Report = next(item for item in arm["style_drift"] if item["measure"] == "length")
    return found


def _mean_length(arm: Report) -> Cell:
    return cell(_length(arm)["ours"])


SECTION = Section(
    "Further scores and costs",
    "Scores, win rates and costs",
    40,
    lambda report, signed: {"scores_and_costs": scores_and_costs(report)},
)
