"""What the reward says beside what gold says, and how far each arm went."""

from __future__ import annotations

from analysis.report.cells import Report, Row, Table, cell, heads


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
