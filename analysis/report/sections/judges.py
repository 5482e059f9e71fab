"""What judges beyond the scorers made of the final models."""

from __future__ import annotations

from typing import Any

from analysis.report.cells import Cell, Report, Row, Table, cell
from analysis.report.section import Section

COSTS = {  # metric -> what it is
    "judge/num_requests": "requests sent",
    "judge/num_cached_answers": "answers known from earlier runs",
    "judge/num_failed_requests": "requests that came to nothing",
    "judge/num_identical": "pairs of equal responses, a tie without asking",
    "judge/prompt_tokens": "tokens sent",
    "judge/completion_tokens": "tokens answered",
}


def asked(report: Report) -> list[dict[str, Any]]:
    """Each judge with its table and what it took."""
    return [{**judge, "table": contests(judge), "took": took(judge)} for judge in report["asked_judges"]]


def contests(judge: Report) -> Table:
    """Every contest: what the judge prefers, and whether its word counts."""
    rows = tuple(
        Row(f"{item['arm']} against {item['opponent']}", "", _cells(item, judge)) for item in judge["contests"]
    )
    columns = ("prefers the first, ties half", "same verdict in both orders", "pairs without a verdict", "counts")
    return Table(f"Judge {judge['name']}: {judge['description']}", "Pair", columns, rows)


def took(judge: Report) -> str:
    """Requests, tokens, money; empty for a judge that costs none of them."""
    numbers = judge["numbers"]
    parts = [f"{numbers[name]:,.0f} {what}" for name, what in COSTS.items() if numbers.get(name)]
    if "judge/cost" in numbers:
        parts.append(f"{numbers['judge/cost']:.4g} {judge['currency']} in all")
    if numbers.get("judge/cap_reached"):
        parts.append("the cost cap was reached, so the rest was not asked")
    return "; ".join(parts)


def _cells(contest: Report, judge: Report) -> tuple[Cell, ...]:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in contest["missing"].items())
    by_itself = "scores each response by itself" if judge["currency"] is None else "too few verdicts"
    return (
        cell(contest["preference"], remark="" if contest["preference"] else "too few verdicts"),
        cell(contest["swap_consistency"], remark="" if contest["swap_consistency"] else by_itself),
        Cell(f"{contest['num_missing']} of {contest['num_pairs']}", remark=reasons),
        Cell("yes") if contest["counts"] else Cell("no", remark=contest["why_not"], tone="bad"),
    )


SECTION = Section("Further judges", "Scores, win rates and costs", 30, lambda report, signed: {"asked": asked(report)})
