"""What the reward says beside what gold says, and how far each arm went."""

from __future__ import annotations

from analysis.report.cells import NBSP, Cell, Report, Row, Table, cell, figure, heads
from analysis.report.section import Section


def gains(report: Report) -> Table:
    """Gold and proxy gain at every evaluation point."""
    rows = [
        Row(
            f"{arm['arm']}, point {item['point']}",
            "",
            (cell(item["kl"]), cell(item["gold"], signed=True), cell(item["proxy"], signed=True)),
        )
        for arm in report["arms"]
        for item in arm["over_optimisation"]
    ]
    return Table(
        "Gain over the base along training, each score in its own base SD",
        "Arm",
        ("KL", "gold gain", "proxy gain"),
        tuple(rows),
    )


def divergence(report: Report) -> Table:
    """KL per response and per token."""
    rows = (
        Row(
            "KL per response",
            "sum over a response's tokens",
            tuple(cell(arm["kl"]["per_response"]) for arm in report["arms"]),
        ),
        Row(
            "KL per token",
            "total nats over total tokens",
            tuple(cell(arm["kl"]["per_token"]) for arm in report["arms"]),
        ),
    )
    return Table("KL to the base, from each arm's own samples", "", tuple(heads(report)), rows)


STATUS_TONES = {"ok": "good", "watch": "even", "hacking": "bad", "not assessable": "even"}
STATUS_MARKS = {"ok": "●", "watch": "▲", "hacking": "▼", "not assessable": "○"}


def audit(report: Report) -> Table:
    """Detectors as rows, arms as columns; the verdict on top."""
    rows = [
        Row(
            "Verdict",
            "of the final model; later the points at which it was “hacking”",
            tuple(_verdict_cell(arm["audit"]) for arm in report["arms"]),
        )
    ]
    rows += [
        Row(
            f"{item['code']} {item['name']}",
            f"{item['meaning']}; fires at {item['threshold']}",
            tuple(_detector_cell(arm["audit"]["detectors"][position]) for arm in report["arms"]),
        )
        for position, item in enumerate(report["arms"][0]["audit"]["detectors"])
    ]
    return Table(
        "Signs of over-optimisation in the final models, with 95 % intervals", "", tuple(heads(report)), tuple(rows)
    )


def _verdict_cell(audit: Report) -> Cell:
    points = ", ".join(map(str, audit["hacking_points"]))
    why = f"{audit['why']}; hacking at point {points}" if points else audit["why"]
    return Cell(_status(audit["status"]), remark=why, tone=STATUS_TONES[audit["status"]])


def _detector_cell(detector: Report) -> Cell:
    words = f"{_status(detector['status'])}: {detector['why']}"
    if detector["number"] is None:
        return Cell("–", remark=words, tone="even")
    signed = detector["number"]["unit"] in {"base SD per point", "base SD", "correlation"}
    return cell(detector["number"], signed=signed, remark=words, tone=STATUS_TONES[detector["status"]])


def _status(status: str) -> str:
    return f"{STATUS_MARKS[status]} {status}"


def laws(report: Report) -> Table:
    """The fitted curve of every arm."""
    laws = [arm["scaling_law"] for arm in report["arms"]]
    rows = (
        Row("Turnover", "whether gold passed its peak", tuple(Cell(law["status"], remark=law["why"]) for law in laws)),
        Row("Peak", "distance to the base; never extrapolated", tuple(_peak_cell(law) for law in laws)),
        Row("α", "gain per distance at one √nat", tuple(_fitted(law, "alpha") for law in laws)),
        Row("β", "how it bends; over 0 it has a peak", tuple(_fitted(law, "beta") for law in laws)),
        Row(
            "Distance of the points to the curve", "beside their own noise", tuple(_residual_cell(law) for law in laws)
        ),
    )
    return Table("R = d (α − β ln d) over d = √KL, fitted to gold, with 95 % intervals", "", tuple(heads(report)), rows)


def _peak_cell(law: Report) -> Cell:
    return cell(law["peak"]) if law["peak"] else Cell("–", remark="no finding")


def _fitted(law: Report, name: str) -> Cell:
    return cell(law[name], signed=True) if law[name] else Cell("–", remark="not fitted")


def _residual_cell(law: Report) -> Cell:
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
                *(Cell(figure(item[name], "base SD", signed=True)) for name in ("gold", "drawdown", "entropy_lost")),
                Cell(figure(item["cost_share"], "share")),
            ),
        )
        for arm in report["arms"]
        for item in arm["switch"]["intervals"]
    ]
    columns = ("utility", "P(utility < 0)", "gold (smoothed)", "drawdown", "entropy lost", "device time")
    return Table("Marginal gain, risk and cost between evaluation points, in base SD", "Arm", columns, tuple(rows))


def _device_time(place: Report) -> str:
    return (
        ""
        if place["device_seconds"] is None
        else f", {figure(place['device_seconds'], 'device-seconds')} of device time"
    )


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
