"""What each arm must have, the recommendation that follows, and the table of rules it follows from."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.cells import Cell, Report, Row, Table, arms_table, cell
from analysis.report.section import MAIN, Section

OUTCOMES = {  # reply -> (what is shown, tone)
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
    """Arms as columns; value, interval and reply in every cell."""
    of_arm: dict[str, Sequence[Report]] = report["gates"]
    rows = [
        (gate["name"], f"{gate['meaning']}; passes: {gate['rule']}", lambda arm, at=at: _cell(of_arm[arm["arm"]][at]))
        for at, gate in enumerate(of_arm[report["arms"][0]["arm"]])
    ]
    caption = "Gates of the final models on all evaluation prompts, with 95 % intervals"
    return arms_table(report, caption, rows, "Gate")


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
    columns = ("then", "confidence by", "in this sweep")
    return Table("How the recommendation follows: the first row that applies", "When", columns, rows)


def _cell(gate: Report) -> Cell:
    said, tone = OUTCOMES[gate["reply"]]
    remark = f"{said}; {gate['note']}" if gate["note"] else said
    if gate["number"] is None and gate["times"] is None:
        return Cell(said, remark=gate["note"], tone=tone)
    return cell(gate["number"] or {"exact": gate["times"], "unit": "times"}, remark=remark, tone=tone)


SECTION = Section(
    "What each arm passes", MAIN, 10, lambda report, signed: {"gates": gates(report), "decision_rules": rules(report)}
)
