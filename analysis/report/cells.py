"""What a table consists of, and how numbers become words: here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]
Number = dict[str, Any] | None

UNITS = {  # unit -> (decimals, what follows the number)
    "percent": (1, "\u00a0%"),
    "points": (1, ""),
    "base SD": (2, "\u00a0SD"),
    "base SD per point": (2, "\u00a0SD"),
    "base SD per √nat": (2, "\u00a0SD"),
    "√nats": (1, "\u00a0√nats"),
    "correlation": (2, ""),
    "share of the gain": (2, ""),
    "nats": (2, "\u00a0nats"),
    "nats per token": (3, "\u00a0nats"),
    "tokens": (1, "\u00a0tokens"),
    "words": (1, "\u00a0words"),
    "compound": (2, ""),
    "per 100 words": (2, " per\u00a0100\u00a0words"),
    "characters": (1, "\u00a0characters"),
    "sentences": (1, "\u00a0sentences"),
    "years": (1, "\u00a0years"),
    "bits": (2, "\u00a0bits"),
    "cosine": (3, ""),
    "AUC": (2, ""),
    "distance": (3, ""),
    "times the floor": (1, "\u00a0×"),
    "times": (1, "\u00a0×"),
    "steps": (0, ""),
    "count": (0, ""),
    "tokens in all": (0, ""),
    "logits": (2, "\u00a0logits"),
    "plain": (2, ""),
    "SD of responses": (2, "\u00a0SD of responses"),
    "times the median": (1, "\u00a0× median"),
}
NBSP = "\u00a0"


@dataclass(frozen=True)
class Cell:
    """What stands in a table: the number, its interval, a remark, and a tone that only repeats what the words say."""

    main: str
    interval: str = ""
    remark: str = ""
    tone: str = ""


CellOf = Callable[[Report], Cell]  # of an arm


@dataclass(frozen=True)
class Row:
    """A label, a short phrase that explains it, and one cell for each column."""

    label: str
    meaning: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A captioned table; `corner` is the head of the label column."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def figure(value: float, unit: str, signed: bool = False) -> str:
    """A number with its unit, with a real minus sign."""
    if unit in {"seconds", "device-seconds"}:
        return duration(value)
    if unit == "bytes":
        return f"{value / 2**30:.2f}{NBSP}GiB"
    if unit == "share":
        value, unit = 100 * value, "percent"
    decimals, suffix = UNITS[unit]
    if signed and unit == "percent":
        suffix = f"{NBSP}points"  # a difference of two shares
    return bare(value, decimals, signed) + suffix


def bare(value: float, decimals: int, signed: bool = False) -> str:
    """A rounded number; zero has no sign."""
    rounded = round(value, decimals) + 0.0
    sign = "−" if rounded < 0 else "+" if signed and rounded > 0 else ""
    return sign + f"{abs(rounded):,.{decimals}f}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 100:
        return f"{seconds:.0f}{NBSP}s"
    minutes = seconds / 60
    return f"{minutes:.1f}{NBSP}min" if minutes < 100 else f"{minutes / 60:.1f}{NBSP}h"


def interval(number: dict[str, Any], signed: bool = False) -> str:
    """The interval of an estimate without its unit."""
    unit, scale = (number["unit"], 1) if number["unit"] != "share" else ("percent", 100)
    decimals = UNITS[unit][0]
    low, high = (bare(scale * number[bound], decimals, signed) for bound in ("low", "high"))
    return f"{low} to {high}"


def cell(number: Number, signed: bool = False, remark: str = "", tone: str = "") -> Cell:
    """Any number of report.json as a cell."""
    if number is None:
        return Cell("–", remark=remark or "not recorded", tone="even")
    if "exact" in number:
        return Cell(figure(number["exact"], number["unit"], signed), remark=remark, tone=tone)
    return Cell(figure(number["value"], number["unit"], signed), interval(number, signed), remark, tone)


def deciding_judge(report: Report) -> str:
    """The one that verdicts rest on."""
    judges: dict[str, Report] = report["judges"]
    return next(name for name, card in judges.items() if card["decides"])


def score_names(report: Report, role: str) -> list[str]:
    """Names of what scores every sample in this role."""
    return [card["name"] for card in report["scores"] if card["role"] == role]


def heads(report: Report) -> list[str]:
    """Arms as column heads."""
    return [arm["arm"] for arm in report["arms"]]


def arms_table(report: Report, caption: str, rows: Iterable[tuple[str, str, CellOf]], corner: str = "") -> Table:
    """A table with arms as columns; each row is a label, what it means, and what makes a cell of an arm."""
    body = (Row(label, meaning, tuple(map(make, report["arms"]))) for label, meaning, make in rows)
    return Table(caption, corner, tuple(heads(report)), tuple(body))
