"""How far the style moved, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable

from analysis.report.cells import NBSP, UNITS, Cell, Report, Row, Table, bare, cell, figure, heads, interval
from analysis.report.section import Section

DRIFTED = "drifted"
MARKS = {DRIFTED: "▲", "within the floor": "○"}
SURFACE = "surface"
CAPTION = "change against the base, with 95 % intervals; ▲ drifted, ○ within the floor or too little over it to count"


def distributions(report: Report) -> Table:
    """Separability, meaning, word choice, openings and diversity."""
    return _table(report, f"Whole distributions: {CAPTION}", lambda item: item["group"] != SURFACE)


def surface(report: Report) -> Table:
    """What single responses look like; features that no side ever shows are left out."""
    hidden = _unseen(report)
    caption = f"Surface features: {CAPTION}; d is the change over the SD of the base's responses"
    return _table(report, caption, lambda item: item["group"] == SURFACE and item["measure"] not in hidden)


def unseen(report: Report) -> str:
    """The features that occur in no response, as one list."""
    hidden = _unseen(report)
    return ", ".join(
        item["label"][0].lower() + item["label"][1:]
        for item in report["arms"][0]["style_drift"]
        if item["measure"] in hidden
    )


def rule(report: Report) -> str:
    """When a measure counts as drifted, with the registered numbers, and what the meanings were measured by."""
    rules = report["style"]["rules"]
    embeddings = f"Embeddings: {report['style']['embedder'] or 'none could be fitted'}."
    if report["style"]["script"]:
        embeddings += f" {report['style']['script']}."
    return (
        "Drifted: over the noise floor, significant at "
        f"{100 * rules['significance_level']:g}{NBSP}% after Holm's correction over the arm's measures, and at least "
        f"{rules['min_effect_base_sd']:g} SD of the base's responses, {rules['min_distance_times_floor']:g} times the "
        f"floor for a distance, or an AUC of {rules['min_auc']:g}. {embeddings}"
    )


def in_words(report: Report) -> list[str]:
    """One sentence for each arm against the base, for each pair told apart, and one for all other pairs."""
    pairs = report["style"]["pairs"]
    told = [_pair_in_words(pair) for pair in pairs if pair["told_apart"]]
    alike = ", ".join(
        f"{pair['one']} and {pair['two']} ({_auc(pair['auc'])})" for pair in pairs if not pair["told_apart"]
    )
    return [*map(_arm_in_words, report["arms"]), *told, *([f"Not told apart: {alike}."] if alike else [])]


def _arm_in_words(arm: Report) -> str:
    item = next(item for item in arm["style_drift"] if item["measure"] == "separability")
    if item["change"] is None or item["reading"] not in MARKS:
        return f"{arm['arm']}: whether it can be told from the base is {item['reading']}."
    floor = "" if item["floor"] is None else f", floor {bare(item['floor'], 2)}"
    auc = f"{_auc(item['change'])}{floor}"
    if item["reading"] != DRIFTED:
        return f"{arm['arm']}: not told apart from the base ({auc})."
    return f"{arm['arm']}: told apart from the base ({auc}){_by(arm['style_moved'])}."


def _pair_in_words(pair: Report) -> str:
    return f"{pair['one']} told apart from {pair['two']} ({_auc(pair['auc'])}){_by(pair['moved'])}."


def _auc(estimate: Report) -> str:
    return f"AUC {bare(estimate['value'], 2)} [{interval(estimate)}]"


def _by(moved: list[Report]) -> str:
    if not moved:
        return ""
    return " by " + ", ".join(f"{item['direction']} ({_amounts(item)})" for item in moved)


def _amounts(item: Report) -> str:
    return f"{bare(item['ours'], UNITS[item['unit']][0])} against {figure(item['theirs'], item['unit'])}"


def _table(report: Report, caption: str, wanted: Callable[[Report], bool]) -> Table:
    """Measures as rows; the base and its floor beside the arms."""
    positions = [at for at, item in enumerate(report["arms"][0]["style_drift"]) if wanted(item)]
    rows = [_row([arm["style_drift"][at] for arm in report["arms"]]) for at in positions]
    return Table(caption, "", ("base", "noise floor", *heads(report)), tuple(rows))


def _row(items: list[Report]) -> Row:
    assessed = next((item for item in items if item["change"] is not None), None)
    base, floor = Cell(""), Cell("–", tone="even")
    if assessed:
        base = cell(assessed["base"]) if assessed["base"] else Cell("")
        floor = Cell(f"≤{NBSP}" + figure(assessed["floor"], assessed["change"]["unit"]))
    return Row(items[0]["label"], items[0]["meaning"], (base, floor, *map(_cell, items)))


def _cell(item: Report) -> Cell:
    if item["change"] is None or item["reading"] not in MARKS:
        return cell(item["change"], signed=item["ours"] is not None, remark=item["reading"], tone="even")
    effect, size = item["effect"], ""
    if effect and effect["unit"] == "base SD":
        size = f", d{NBSP}{bare(effect['value'], 2, signed=True)}"
    elif effect and effect["unit"] == "times the floor":
        size = f", {bare(effect['value'], 1)}{NBSP}×{NBSP}floor"
    return cell(
        item["change"],
        signed=item["ours"] is not None,
        remark=f"{MARKS[item['reading']]} {_reading(item)}{size}",
        tone="" if item["reading"] == DRIFTED else "even",
    )


def _reading(item: Report) -> str:
    """A change over the floor that does not count is not called within it."""
    over = abs(item["change"]["value"]) > item["floor"]
    return "too little" if over and item["reading"] != DRIFTED else str(item["reading"])


def _unseen(report: Report) -> set[str]:
    seen = [item for arm in report["arms"] for item in arm["style_drift"] if item["group"] == SURFACE]
    present = {item["measure"] for item in seen if item["effect"] or item["change"] is None}
    return {item["measure"] for item in seen} - present


SECTION = Section(
    "Style drift",
    "Style drift",
    10,
    lambda report, signed: {
        "drift": distributions(report),
        "drift_surface": surface(report),
        "drift_unseen": unseen(report),
        "drift_words": in_words(report),
        "drift_rule": rule(report),
    },
)
