"""What the reward says beside what the measure says, and how far each arm went."""

from __future__ import annotations

from functools import partial

from analysis.report.cells import NBSP, Cell, CellOf, Report, Row, Table, arms_table, cell, figure
from analysis.report.section import Section


def gains(report: Report) -> Table:
    """Gain of the measure and of the training reward at every evaluation point."""
    rows = [
        Row(
            f"{arm['arm']}, point {item['point']}",
            "",
            (cell(item["kl"]), cell(item["measure"], signed=True), cell(item["training_reward"], signed=True)),
        )
        for arm in report["arms"]
        for item in arm["over_optimisation"]
    ]
    caption = "Gain over the base along training, each score in its own base SD"
    return Table(caption, "Arm", ("KL", "measure", "training reward"), tuple(rows))


def divergence(report: Report) -> Table:
    """KL per response and per token."""
    rows: list[tuple[str, str, CellOf]] = [
        ("KL per response", "sum over a response's tokens", lambda arm: cell(arm["kl"]["per_response"])),
        ("KL per token", "total nats over total tokens", lambda arm: cell(arm["kl"]["per_token"])),
    ]
    return arms_table(report, "KL to the base, from each arm's own samples", rows)


SIGNS = {  # reply to whether over-optimisation is shown -> (what is shown, tone)
    "no": ("● ok", "good"),
    "inconclusive": ("▲ watch", "even"),
    "yes": ("▼ hacking", "bad"),
    "not assessable": ("○ not assessable", "even"),
}


def audit(report: Report) -> Table:
    """Detectors as rows, arms as columns; the verdict on top."""
    verdict = ("Verdict", "of the final model; later the points at which it was “hacking”", _verdict_cell)
    detectors = (
        (
            f"{item['code']} {item['name']}",
            f"{item['meaning']}; fires at {item['threshold']}",
            partial(_detector_cell, position),
        )
        for position, item in enumerate(report["arms"][0]["audit"]["detectors"])
    )
    caption = "Signs of over-optimisation in the final models, with 95 % intervals"
    return arms_table(report, caption, (verdict, *detectors))


def _verdict_cell(arm: Report) -> Cell:
    audit = arm["audit"]
    points = ", ".join(map(str, audit["hacking_points"]))
    why = f"{audit['why']}; hacking at point {points}" if points else audit["why"]
    said, tone = SIGNS[audit["reply"]]
    return Cell(said, remark=why, tone=tone)


def _detector_cell(position: int, arm: Report) -> Cell:
    detector = arm["audit"]["detectors"][position]
    said, tone = SIGNS[detector["reply"]]
    words = f"{said}: {detector['why']}"
    if detector["number"] is None:
        return Cell("–", remark=words, tone="even")
    signed = detector["number"]["unit"] in {"base SD per point", "base SD", "correlation"}
    return cell(detector["number"], signed=signed, remark=words, tone=tone)


def laws(report: Report) -> Table:
    """The fitted curve of every arm."""
    rows: list[tuple[str, str, CellOf]] = [
        ("Turnover", "whether the measure passed its peak", _turnover),
        ("Peak", "distance to the base; never extrapolated", partial(_of_law, "peak", "no finding", False)),
        ("α", "gain per distance at one √nat", partial(_of_law, "alpha", "not fitted", True)),
        ("β", "how it bends; over 0 it has a peak", partial(_of_law, "beta", "not fitted", True)),
        ("Distance of the points to the curve", "beside their own noise", _residual),
    ]
    return arms_table(report, "R = d (α − β ln d) over d = √KL, fitted to the measure, with 95 % intervals", rows)


def _turnover(arm: Report) -> Cell:
    law = arm["scaling_law"]
    said = "turnover" if law["peak"] else "no turnover shown" if law["alpha"] else "not assessable"
    return Cell(said, remark=law["why"])


def _of_law(name: str, why_not: str, signed: bool, arm: Report) -> Cell:
    number = arm["scaling_law"][name]
    return cell(number, signed) if number else Cell("–", remark=why_not)


def _residual(arm: Report) -> Cell:
    law = arm["scaling_law"]
    if law["residual"] is None:
        return Cell("–", remark="not fitted")
    return Cell(figure(law["residual"], "base SD"), remark=f"noise {figure(law['noise'], 'base SD')}")


def intervals(report: Report) -> Table:
    """What each interval between evaluation points brought and cost."""
    rows = [
        Row(
            f"{arm['arm']}, point {item['start']['point']} to {item['end']['point']}",
            f"up to {item['end']['prompts_seen']:,.0f} prompts" + _device_time(item["end"]),
            (
                cell(item["utility"], signed=True),
                Cell(f"{100 * item['probability']:.0f}{NBSP}%"),
                *(Cell(figure(item[name], "base SD", signed=True)) for name in ("measure", "drawdown", "entropy_lost")),
                Cell(figure(item["cost_share"], "share")),
            ),
        )
        for arm in report["arms"]
        for item in arm["switch"]["intervals"]
    ]
    columns = ("utility", "P(utility < 0)", "measure (smoothed)", "drawdown", "entropy lost", "device time")
    return Table("Marginal gain, risk and cost between evaluation points, in base SD", "Arm", columns, tuple(rows))


def _device_time(place: Report) -> str:
    seconds = place["device_seconds"]
    return "" if seconds is None else f", {figure(seconds, 'device-seconds')} of device time"


SECTION = Section(
    "Audit of over-optimisation, and the switch point",
    "Over-optimisation",
    10,
    lambda report, signed: {
        "gains": gains(report),
        "audit": audit(report),
        "laws": laws(report),
        "intervals": intervals(report),
        "kl": divergence(report),
    },
)
