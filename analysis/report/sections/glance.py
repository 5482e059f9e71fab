"""The table that a decision is read from."""

from __future__ import annotations

from collections.abc import Callable

from analysis.report.cells import Cell, Report, Row, Table, cell, deciding_judge, heads
from analysis.report.section import Section

BLANK = Cell("")
MARKS = {"beats the base": "▲", "is worse than the base": "▼", "is not shown to differ from the base": "●"}
MARK_TONES = {"▲": "good", "▼": "bad", "●": "even"}


def summary(report: Report) -> Table:
    """The table that a decision is read from: arms as columns."""
    reference, still = Cell("reference"), cell({"exact": 0.0, "unit": "nats"})
    row = row_maker(report)
    rows = (
        row(
            f"Verdict by {deciding_judge(report)}", "after correction for all primary comparisons", reference, _verdict
        ),
        row(
            "Win rate against the base",
            "pairs that gold prefers, ties half; 50 % is no difference",
            BLANK,
            rate("gold"),
        ),
        row("Gold gain", "arm minus base on the same prompts and random numbers", BLANK, _gain),
        row("Worst drop from the peak", "along training, in SD of the base over prompts; 0 is best", BLANK, _drawdown),
        row("KL to the base", "how far the model moved, per response", still, _kl),
        row("Style drift", "measures that clearly exceed what the base shows against itself", BLANK, _drift_count),
        row("Training time", "wall clock of one run, loading included", BLANK, cost("wall_seconds")),
    )
    return Table("Final models, with 95 % intervals", "", ("base", *heads(report)), rows)


def row_maker(report: Report) -> Callable[[str, str, Cell, Callable[[Report], Cell]], Row]:
    """Label, meaning, the base's cell and what makes an arm's -> a row with all arms."""
    return lambda label, meaning, base, make: Row(label, meaning, (base, *(make(arm) for arm in report["arms"])))


def _verdict(arm: Report) -> Cell:
    mark = MARKS[arm["verdict"]]
    return Cell(f"{mark} {arm['verdict']}", tone=MARK_TONES[mark])


def rate(judge: str) -> Callable[[Report], Cell]:
    """What makes an arm's cell of its win rate against the base by this judge."""

    def make(arm: Report) -> Cell:
        rate = arm["win_rate"][judge]
        if rate is None:
            return cell(None, remark="no scores")
        blocked = rate["blocked"] or ""
        return cell(None, remark=blocked, tone="even") if blocked.startswith("not assessable") else cell(rate)

    return make


def _drawdown(arm: Report) -> Cell:
    return cell(arm["stability"]["drawdown"])


def _kl(arm: Report) -> Cell:
    return cell(arm["kl"]["per_response"])


def _gain(arm: Report) -> Cell:
    gain = arm["gold_difference"]
    unseen = gain["low"] <= 0 <= gain["high"]
    return cell(
        gain,
        signed=True,
        remark=f"a gain under {gain['minimum_detectable_effect']:.1f} would often go unseen" if unseen else "",
    )


def _drift_count(arm: Report) -> Cell:
    tested = [item for item in arm["style_drift"] if item["reading"] in {"drifted", "within the floor"}]
    if not tested:
        return Cell("–", remark="not assessable", tone="even")
    return Cell(f"{sum(item['reading'] == 'drifted' for item in tested)} of {len(tested)}")


def cost(name: str) -> Callable[[Report], Cell]:
    """What makes an arm's cell of one cost."""
    return lambda arm: cell(arm["cost"][name])


SECTION = Section(
    "The arms at a glance", "Scores, win rates and costs", 10, lambda report, signed: {"summary": summary(report)}
)
