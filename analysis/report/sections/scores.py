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
    row = row_maker(report)
    rows = (
        row("Gold score", "mean probability of a positive text, × 100", cell(report["base"]["gold"]), _gold),
        row("Win rate by the second judge", "VADER, a sentiment lexicon", BLANK, rate("vader")),
        row(
            "Win rate by the training reward",
            "what PPO trains on: shown, never drives a verdict",
            BLANK,
            rate("proxy"),
        ),
        row("Response length", "mean tokens of a response", cell(_length(report["arms"][0])["base"]), _mean_length),
        *(row(label, meaning, BLANK, cost(name)) for name, label, meaning in COST_ROWS),
    )
    return Table("Further scores and costs, with 95 % intervals", "", ("base", *heads(report)), rows)


def _gold(arm: Report) -> Cell:
    return cell(arm["gold"])


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
