"""The three questions: what each answer rests on."""

from __future__ import annotations

from typing import Any

from analysis.report.cells import Cell, Report, Row, Table, cell
from analysis.report.section import MAIN, Section

REPLIES = {"yes": "Yes", "no": "No", "inconclusive": "Inconclusive", "not assessable": "Not assessable"}


def questions(report: Report) -> list[dict[str, Any]]:
    """For each: the question, the reply in words, the sentence, its evidence as a table, and what would change it."""
    return [
        {
            "question": item["question"],
            "reply": item["in_words"] or REPLIES[item["reply"]],
            "sentence": item["sentence"],
            "evidence": _evidence(item),
            "would_change": item["would_change"],
        }
        for item in report["questions"]
    ]


def _evidence(item: Report) -> Table | None:
    rows = tuple(
        Row(
            found["name"],
            found["meaning"],
            (
                cell(found["number"]) if found["number"] else Cell("not assessable", tone="even"),
                Cell("", remark=found["threshold"]),
                Cell("", remark=found["reading"]),
            ),
        )
        for found in item["evidence"]
    )
    caption = f"Evidence, weightiest first: {item['question']}"
    return (
        Table(caption, "Evidence", ("value", "threshold, registered before training", "reading"), rows)
        if rows
        else None
    )


SECTION = Section("The three questions", MAIN, 20, lambda report, signed: {"questions": questions(report)})
