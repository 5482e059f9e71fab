"""Who is preferred: against the base, PPO against DPO, at equal style, and on one scale."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.report.cells import NBSP, Cell, Number, Report, Row, Table, cell, deciding_judge
from analysis.report.section import Section
from analysis.statistics.bootstrap import minimum_detectable_effect

EVEN = 50.0
BASE = "base"


def matrix(report: Report) -> Table | None:
    """Arms from the base against each other, percent of pairs that the row's arm wins by the judge that decides."""
    judge = deciding_judge(report)
    pairs = {(pair["arm"], pair["opponent"]): pair["win_rate"][judge] for pair in report["head_to_head"]}
    rows, columns = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    body = tuple(Row(arm, "", tuple(_pair_cell(pairs.get((arm, other))) for other in columns)) for arm in rows)
    return (
        Table(f"Share of pairs that the arm of the row wins, by {judge}", "Arm ↓  against →", tuple(columns), body)
        if body
        else None
    )


def comparisons(report: Report) -> Table:
    """Every comparison by the judge that decides, with its tests and at equal style."""
    judge = deciding_judge(report)
    found = {name: rate for name, rates in _all_comparisons(report) if (rate := rates[judge]) is not None}
    rows = [Row(name, "", _comparison(rate)) for name, rate in found.items()]
    num_primary = sum(rate["adjusted_p"] is not None for rate in found.values())
    columns = (
        "share won",
        "reading",
        f"p, corrected for {num_primary} comparisons" if num_primary else "p",
        "sign test, p",
        "at equal style",
        "style premium",
        "ties",
        "missing",
    )
    return Table(f"Every comparison by {judge}: share of pairs that the first wins", "Comparison", columns, tuple(rows))


def by_judge(report: Report) -> Table:
    """Every comparison by the judges that do not decide."""
    judges = {name: card for name, card in report["judges"].items() if not card["decides"]}
    rows = tuple(
        Row(name, "", tuple(cell(rates[judge], remark=_no_verdict(rates[judge])) for judge in judges))
        for name, rates in _all_comparisons(report)
    )
    columns = tuple(f"{judge} ({card['independence']})" for judge, card in judges.items())
    return Table(
        "Every comparison by the other judges: share of pairs that the first wins", "Comparison", columns, rows
    )


def strengths(report: Report) -> Table | None:
    """All arms on one scale, the base at zero."""
    scale = report["strengths"]
    if scale is None:
        return None
    rows = [Row(BASE, "", (Cell("0", remark="reference"), Cell(f"50{NBSP}%", remark="reference")))]
    ranked = sorted(scale["strengths"], key=lambda item: -item["strength"]["value"])
    rows += [Row(item["arm"], "", (cell(item["strength"], signed=True), cell(item["win_rate"]))) for item in ranked]
    return Table(
        f"Strengths by {scale['judge']}, from all comparisons together ({scale['num_refits']} refits)",
        "Arm, strongest first",
        ("strength", "share of pairs against the base it stands for"),
        tuple(rows),
    )


def direct_checks(report: Report) -> Table | None:
    """Each direct result of two arms from the base beside what all other comparisons predict."""
    checks = report["strengths"]["checks"] if report["strengths"] else []
    rows = tuple(
        Row(
            f"{item['arm']} against {item['opponent']}",
            "",
            (
                cell(item["direct"]),
                cell(item["predicted"]),
                cell(item["difference"], signed=True),
                Cell("▲ judge intransitivity")
                if item["intransitive"]
                else Cell("● agree", remark=_unseen(_effect(item["difference"])), tone="even"),
            ),
        )
        for item in checks
    )
    columns = ("direct", "predicted", "direct minus predicted", "reading")
    caption = (
        "Direct result against the one that strengths predict when fitted without any contest of arms from the base; "
        "the intervals of the difference hold for all pairs together"
    )
    return Table(caption, "Pair", columns, rows) if rows else None


def outcomes(report: Report) -> Table:
    """Yes-or-no outcomes of responses, arm against base."""
    rows = tuple(
        Row(
            f"{arm['arm']}: {item['outcome']}",
            "",
            (
                cell(item["ours"]),
                cell(item["base"]),
                cell(item["difference"], signed=True, remark=_unseen_unless_shown(item["difference"], 0)),
                Cell(f"{item['num_more']} more, {item['num_less']} less"),
                Cell(f"{item['p']:.2g}"),
            ),
        )
        for arm in report["arms"]
        for item in arm["outcomes"]
    )
    columns = ("arm", "base", "difference", "prompts on which it happens", "McNemar's exact test, p")
    return Table("Yes-or-no outcomes of a response, arm against base (descriptive)", "Outcome", columns, rows)


def _all_comparisons(report: Report) -> Iterator[tuple[str, dict[str, Number]]]:
    for arm in report["arms"]:
        yield f"{arm['arm']} against the base", arm["win_rate"]
    for pair in (*report["head_to_head"], *report["staged"]):
        yield f"{pair['arm']} against {pair['opponent']}", pair["win_rate"]


def _comparison(rate: Report) -> tuple[Cell, ...]:
    corrected = "descriptive" if rate["adjusted_p"] is None else f"{rate['adjusted_p']:.2g}"
    missing = f"{rate['num_missing']} of {rate['num_pairs']}" if rate["num_missing"] else "none"
    return (
        cell(rate),
        _reading(rate),
        Cell(corrected),
        Cell(f"{rate['sign_test_p']:.2g}"),
        *_controlled(rate["controlled"]),
        cell(rate["ties"]),
        Cell(missing),
    )


def _controlled(control: Number) -> tuple[Cell, Cell]:
    if control is None:
        return Cell("not assessable", remark="no preferences", tone="even"), Cell("–")
    rates = control["rates"]
    if not rates["identified"]:
        return Cell("not identified", remark="too few pairs are alike in style", tone="even"), Cell("–")
    controlled_for = ", ".join(control["features"]) or "style does not differ"
    return cell(rates["controlled"], remark=controlled_for), cell(rates["style_premium"], signed=True)


def _reading(rate: Report) -> Cell:
    if rate["blocked"]:
        return Cell("no verdict", remark=rate["blocked"], tone="even")
    if rate["ahead"]:
        return Cell(f"▲ {'the base' if rate['ahead'] == BASE else rate['ahead']} ahead")
    if rate["adjusted_p"] is None:
        return Cell("descriptive", remark=_unseen_unless_shown(rate, EVEN), tone="even")
    if not rate["low"] <= EVEN <= rate["high"]:
        return Cell("● not shown", remark="clear by itself, not after correction for all comparisons", tone="even")
    return Cell("● no difference shown", remark=_unseen(rate["minimum_detectable_effect"]), tone="even")


def _pair_cell(rate: Number) -> Cell:
    if rate is None:
        return Cell("–", remark="not compared")
    reading = _reading(rate)
    return cell(rate, remark=f"{reading.main}; {reading.remark}".removesuffix("; "), tone=reading.tone)


def _no_verdict(rate: Number) -> str:
    if rate is None:
        return "no scores"
    return f"no verdict: {rate['blocked']}" if rate["blocked"] else ""


def _effect(number: Report) -> float:
    return minimum_detectable_effect(number["standard_error"])


def _unseen(effect: float) -> str:
    """What "no difference" does not exclude."""
    return f"a true one under {effect:.1f}{NBSP}points would often go unseen"


def _unseen_unless_shown(number: Report, reference: float) -> str:
    return _unseen(_effect(number)) if number["low"] <= reference <= number["high"] else ""


SECTION = Section(
    "PPO against DPO",
    "Scores, win rates and costs",
    20,
    lambda report, signed: {
        "matrix": matrix(report),
        "comparisons": comparisons(report),
        "by_judge": by_judge(report),
        "strengths": strengths(report),
        "direct_checks": direct_checks(report),
        "outcomes": outcomes(report),
    },
)
