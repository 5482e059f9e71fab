"""What arms won back, or lost, from the checkpoint that they started from."""

from __future__ import annotations

from analysis.report.cells import Cell, Report, Row, Table, cell
from analysis.report.section import MAIN, Section


def recovery(report: Report) -> Table | None:
    """Each measure of each such arm, at the checkpoint and in the final model."""
    rows = tuple(
        Row(
            f"{item['arm']}: {change['name']}",
            change["meaning"],
            (_cell(change["before"]), _cell(change["after"]), _change(change["change"])),
        )
        for item in report["recovery"]
        for change in item["changes"]
    )
    columns = ("at the checkpoint", "final model", "change")
    return Table("From the checkpoint on, with 95 % intervals", "Arm and measure", columns, rows) if rows else None


def starts(report: Report) -> list[str]:
    """Who starts where, a sentence for each checkpoint, and how the measure stood there."""
    arms: dict[tuple[str, int], list[str]] = {}
    for item in report["recovery"]:
        arms.setdefault((item["start"], item["point"]), []).append(item["arm"])
    stood = {(item["arm"], item["point"]): item for item in report["checkpoints"]}
    return [_sentence(names, *at) + _stood(stood.get(at)) for at, names in arms.items()]


def _sentence(names: list[str], start: str, point: int) -> str:
    starts, are = ("starts", "is") if len(names) == 1 else ("start", "are")
    return (
        f"{', '.join(names)} {starts} from {start} at evaluation point {point}, and up to there {are} that arm, costs "
        "included."
    )


def _stood(checkpoint: Report | None) -> str:
    """Measure and training reward at the checkpoint against the peak of the measure, in words."""
    if checkpoint is None:
        return ""
    if checkpoint["reply"] == "not assessable":
        return f" Whether it had over-optimised by then cannot be told: {checkpoint['why']}."
    verdict = {
        "yes": "By then it had over-optimised",
        "inconclusive": "By then the measure was past its peak, which is no proof of over-optimisation",
        "no": "It is not shown to have over-optimised by then",
    }[checkpoint["reply"]]
    why = f" ({checkpoint['why']})" if checkpoint["why"] else ""
    measure, reward = (
        number and cell(number, signed=True) for number in (checkpoint["measure"], checkpoint["training_reward"])
    )
    beside = f", and the training reward by {reward.main} [{reward.interval}]" if reward else ""
    return (
        f" {verdict}{why}: since the measure's peak at evaluation point {checkpoint['peak']}, chosen on the other half "
        f"of the prompts, it has changed by {measure.main} points [{measure.interval}]{beside} (95 % intervals)."
    )


def _cell(number: Report | None) -> Cell:
    return cell(number, remark="" if number else "not assessable")


def _change(number: Report | None) -> Cell:
    if number is None:
        return _cell(None)
    unseen = number["low"] <= 0 <= number["high"]
    return cell(number, signed=True, remark="● no change shown" if unseen else "")


SECTION = Section(
    "What was won back from a checkpoint",
    MAIN,
    60,
    lambda report, signed: {"recovery": recovery(report), "starts": starts(report)},
)
