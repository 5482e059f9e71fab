"""What each arm must have, the recommendation that follows, and the table of rules it follows from."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.cells import Cell, Report, Row, Table, cell, heads
from analysis.report.section import MAIN, Section

OUTCOMES = {  # outcome -> (what is shown, tone)
    "yes": ("✓ pass", "good"),
    "no": ("✗ fail", "bad"),
    "inconclusive": ("● inconclusive", "even"),
    "not assessable": ("○ not assessable", "even"),
}
CHOICES = {
    "PPO": "Shape with PPO",
    "DPO": "Set with DPO",
    "PPO then DPO": "PPO, then DPO",
    "base": "Stay with the base",
    "inconclusive": "Inconclusive: run more",
}


def gates(report: Report) -> Table:
    """Arms as columns; value, interval and outcome in every cell."""
    by_arm: dict[str, Sequence[Report]] = report["gates"]
    arms = heads(report)
    rows = [
        Row(gate["name"], f"{gate['meaning']}; passes: {gate['rule']}", tuple(_cell(by_arm[arm][at]) for arm in arms))
        for at, gate in enumerate(by_arm[arms[0]])
    ]
    return Table(
        "Gates of the final models on all evaluation prompts, with 95 % intervals", "Gate", tuple(arms), tuple(rows)
    )


def rules(report: Report) -> Table:
    """The table of rules; the first row that applies decides."""
    found = report["recommendation"]
    rows = tuple(
        Row(
            rule["when"],
            "",
            (
                Cell(CHOICES[rule["then"]]),
                Cell("–" if rule["rests_on"] == "nothing" else rule["rests_on"]),
                Cell("▲ this one" if at == found["row"] else "applies not" if at < found["row"] else ""),
            ),
        )
        for at, rule in enumerate(found["rules"])
    )
    return Table(
        "How the recommendation follows: the first row that applies",
        "When",
        ("then", "confidence by", "in this sweep"),
        rows,
    )


def _cell(gate: Report) -> Cell:
    said, tone = OUTCOMES[gate["outcome"]]
    remark = f"{said}; {gate['note']}" if gate["note"] else said
    if gate["number"] is None and gate["times"] is None:
        return Cell(said, remark=gate["note"], tone=tone)
    return cell(gate["number"] or {"exact": gate["times"], "unit": "times"}, remark=remark, tone=tone)


SECTION = Section(
    "What each arm passes", MAIN, 10, lambda report, signed: {"gates": gates(report), "decision_rules": rules(report)}
)
