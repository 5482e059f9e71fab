"""What arms won back, or lost, from the checkpoint that they started from."""

from __future__ import annotations

from analysis.report.cells import Cell, Report, Row, Table, cell


def recovery(report: Report) -> Table | None:
    """Each measure of each such arm, at the checkpoint and in the final model."""
    rows = tuple(
        Row(
            f"{item['arm']}: {change['name']}",
            change["meaning"],
            (
                _cell(change["before"]),
                _cell(change["after"]),
                _change(change["change"]),
            ),
        )
        for item in report.get("recovery", [])
        for change in item["changes"]
    )
    columns = ("at the checkpoint", "final model", "change")
    return Table("From the checkpoint on, with 95 % intervals", "Arm and measure", columns, rows) if rows else None


def starts(report: Report) -> list[str]:
    """Who starts where, a sentence for each checkpoint."""
    arms: dict[tuple[str, int], list[str]] = {}
    for item in report.get("recovery", []):
        arms.setdefault((item["start"], item["point"]), []).append(item["arm"])
    return [_sentence(names, *checkpoint) for checkpoint, names in arms.items()]


def _sentence(names: list[str], start: str, point: int) -> str:
    starts, are = ("starts", "is") if len(names) == 1 else ("start", "are")
    return (
        f"{', '.join(names)} {starts} from {start} at evaluation point {point}, and up to there {are} that arm, costs "
        "included; whether it had over-optimised by then, its own audit says."
    )


def _cell(number: Report | None) -> Cell:
    return cell(number, remark="" if number else "not assessable")


def _change(number: Report | None) -> Cell:
    if number is None:
        return _cell(None)
    unseen = number["low"] <= 0 <= number["high"]
    return cell(number, signed=True, remark="● no change shown" if unseen else "")
