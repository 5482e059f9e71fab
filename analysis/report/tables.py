"""report.json -> the tables that HTML and Markdown both print. Numbers become words here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]
Number = dict[str, Any] | None

UNITS = {  # unit -> (decimals, what follows the number)
    "percent": (1, "\u00a0%"),
    "gold points": (1, ""),
    "base SD": (2, "\u00a0SD"),
    "nats": (2, "\u00a0nats"),
    "nats per token": (3, "\u00a0nats"),
    "tokens": (1, "\u00a0tokens"),
    "words": (1, "\u00a0words"),
    "compound": (2, ""),
    "distance": (3, ""),
    "times the floor": (1, "\u00a0×"),
    "steps": (0, ""),
    "count": (0, ""),
    "tokens in all": (0, ""),
    "plain": (2, ""),
}
EVEN = 50.0
MARKS = {"beats the base": "▲", "is worse than the base": "▼", "does not differ from the base": "●"}
MARK_TONES = {"▲": "good", "▼": "bad", "●": "even"}
DRIFT_MARKS = {"above the floor": "▲", "not above the floor": "○"}
NBSP = "\u00a0"


@dataclass(frozen=True)
class Cell:
    """What stands in a table: the number, its interval, a remark, and a tone that only repeats what the words say."""

    main: str
    interval: str = ""
    remark: str = ""
    tone: str = ""


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


# -------------------------------------------------------------------------------------------------------------- numbers
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


# --------------------------------------------------------------------------------------------------------------- tables
def summary(report: Report) -> Table:
    """The table that a decision is read from: arms as columns."""
    arms = report["arms"]
    blank = Cell("")

    def row(label: str, meaning: str, base: Cell, make: Callable[[Report], Cell]) -> Row:
        return Row(label, meaning, (base, *(make(arm) for arm in arms)))

    reference, still = Cell("reference"), cell({"exact": 0.0, "unit": "nats"})
    rows = [
        row("Verdict by gold", "whether the interval of the gold gain excludes zero", reference, _verdict),
        row(
            "Win rate against the base",
            "pairs that gold prefers, ties half; 50 % is no difference",
            blank,
            _rate("gold"),
        ),
        row("… by the second judge", "VADER, a sentiment lexicon", blank, _rate("vader")),
        row("… by the training reward", "what PPO trains on: shown, never drives a verdict", blank, _rate("proxy")),
        row("Gold score", "mean probability of a positive text, × 100", cell(report["base"]["gold"]), _gold),
        row("Gold gain", "arm minus base on the same prompts and random numbers", blank, _gain),
        row("Worst drop from the peak", "along training, in SD of the base over prompts; 0 is best", blank, _drawdown),
        row("KL to the base", "how far the model moved, per response", still, _kl),
        row("Style drift", "measures that clearly exceed what the base shows against itself", blank, _drift_count),
        row("Response length", "mean tokens of a response", cell(_length(arms[0])["base"]), _mean_length),
        *(row(label, meaning, blank, _cost(name)) for name, label, meaning in COST_ROWS),
    ]
    return Table("Final models at a glance, with 95 % intervals", "", ("base", *_heads(report)), tuple(rows))


COST_ROWS = (
    ("wall_seconds", "Training time", "wall clock of one run, loading included"),
    ("device_seconds", "Device time", "seconds × devices (threads on a CPU)"),
    ("tokens_generated", "Tokens generated", "sampled in training"),
    ("tokens_trained", "Tokens trained", "through a backward pass"),
    ("peak_memory_bytes", "Peak memory", "of the process or the GPU"),
)


def matrix(report: Report) -> Table | None:
    """PPO arms as rows, DPO arms as columns, percent of pairs that PPO wins by gold."""
    pairs = {(pair["ppo"], pair["dpo"]): pair["win_rate"]["gold"] for pair in report["head_to_head"]}
    rows, columns = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    body = tuple(Row(ppo, "", tuple(_pair_cell(pairs.get((ppo, dpo)), ppo, dpo) for dpo in columns)) for ppo in rows)
    return (
        Table("Share of pairs that the PPO arm wins, by gold", "PPO arm ↓  DPO arm →", tuple(columns), body)
        if body
        else None
    )


def pair_details(report: Report) -> Table | None:
    """Every pair by every judge."""
    rows = []
    for pair in report["head_to_head"]:
        rates = pair["win_rate"]
        gold = rates["gold"]
        cells = (
            cell(gold),
            cell(rates["vader"]),
            cell(rates["proxy"]),
            cell(gold["ties"]),
            Cell(f"{gold['sign_test_p']:.2g}"),
            Cell(f"{gold['minimum_detectable_effect']:.1f} points"),
        )
        rows.append(Row(f"{pair['ppo']} against {pair['dpo']}", "", cells))
    columns = (
        "gold",
        "VADER",
        "training reward (no verdict)",
        "ties by gold",
        "sign test, p",
        "smallest difference found in 4 of 5 repetitions",
    )
    return Table("Every pair by every judge: share that PPO wins", "Pair", columns, tuple(rows)) if rows else None


def stability(report: Report) -> Table:
    """Over training, over samples, over seeds."""
    arms = report["arms"]

    def row(label: str, meaning: str, make: Callable[[Report], Cell]) -> Row:
        return Row(label, meaning, tuple(make(arm["stability"]) for arm in arms))

    rows = (
        row(
            "Worst drop from the peak",
            "largest fall below the running best, base SD",
            lambda item: cell(item["drawdown"]),
        ),
        row(
            "Worst step",
            "smallest change between two evaluations; negative is a fall",
            lambda item: cell(item["worst_step"], signed=True),
        ),
        row(
            "Final over peak",
            "how much of the best gold score the final model keeps",
            lambda item: cell(item["final_over_peak"]),
        ),
        row("Spread within a prompt", "SD of gold over samples of one prompt, base SD", _within_prompt),
        row("Across seeds", "final gold of each seed", _seed_cell),
    )
    return Table("Stability, with 95 % intervals", "", tuple(_heads(report)), rows)


def style_drift(report: Report) -> Table:
    """Measures as rows; the floor beside the arms."""
    first = report["arms"][0]["style_drift"]
    rows = []
    for position, item in enumerate(first):
        unit = item["change"]["unit"]
        floor = Cell(f"≤{NBSP}" + figure(item["floor"], unit), remark="base against itself")
        base = cell(item["base"]) if item["base"] else Cell("")
        rows.append(
            Row(
                _drift_label(item["measure"]),
                item["meaning"],
                (base, floor, *(_drift_cell(arm["style_drift"][position]) for arm in report["arms"])),
            )
        )
    return Table(
        "Change against the base, with 95 % intervals", "", ("base", "noise floor", *_heads(report)), tuple(rows)
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
    return Table("KL to the base, from each arm's own samples", "", tuple(_heads(report)), rows)


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


def artifacts(report: Report) -> Table:
    """How good the shared artifacts are."""
    rows = tuple(Row(item["artifact"], item["meaning"], (cell(item["number"]),)) for item in report["artifacts"])
    return Table("What all arms share", "Artifact", ("value",), rows)


def learned_from(report: Report) -> Table:
    """Comparisons and knobs of every arm."""
    keys = list(dict.fromkeys(key for arm in report["arms"] for key in arm["knobs"]))
    arms = report["arms"]
    rows = [Row("comparisons", "what it learned from", tuple(Cell(arm["comparisons"]) for arm in arms))]
    rows += [Row(key.replace("_", " "), "", tuple(Cell(_knob(arm["knobs"].get(key))) for arm in arms)) for key in keys]
    return Table("What each arm learned from, and its own settings", "", tuple(_heads(report)), tuple(rows))


def health(report: Report, meanings: dict[str, tuple[str, str]]) -> Table:
    """Training metrics that show whether a run was sound."""
    names = [name for name in meanings if any(name in arm["health"] for arm in report["arms"])]
    rows = tuple(
        Row(
            name,
            meanings[name][0],
            tuple(cell(arm["health"].get(name), remark="" if name in arm["health"] else " ") for arm in report["arms"]),
        )
        for name in names
    )
    return Table("Training health: mean over the last quarter of training", "", tuple(_heads(report)), rows)


def shared_costs(report: Report) -> Table:
    """Wall time of the shared jobs."""
    rows = tuple(
        Row(kind.replace("_", " "), "", (cell(number),)) for kind, number in report["shared_costs"].items() if number
    )
    return Table("Time spent once for all arms", "Shared job", ("wall clock",), rows)


def provenance(report: Report) -> list[Table]:
    """Inputs and identities, what all jobs had in common, and what differed."""
    source = report["provenance"]
    hashes = {**{f"input: {name}": value for name, value in source["inputs"].items()}, **source["identities"]}
    tables = [
        Table("Hashes of inputs and specifications", "", ("sha256",), tuple(_text_rows(hashes.items()))),
        Table("Recorded the same by all jobs", "", ("value",), tuple(_text_rows(source["same"].items()))),
    ]
    different = (
        (f"{key}: {label}", value) for key, by_job in source["different"].items() for label, value in by_job.items()
    )
    tables.append(Table("Recorded differently", "", ("value",), tuple(_text_rows(different))))
    return [table for table in tables if table.rows]


def fairness(report: Report) -> Table | None:
    """The checks that the plan made before anything was trained."""
    rows = tuple(
        Row(
            item["check"],
            "",
            (Cell(str(item["value"])), Cell("equal" if item["ok"] else "NOT EQUAL", tone="" if item["ok"] else "bad")),
        )
        for item in report["fairness"]
    )
    return Table("Equal for all arms, checked before training", "Check", ("value", "result"), rows) if rows else None


# ---------------------------------------------------------------------------------------------------------------- cells
def _heads(report: Report) -> list[str]:
    return [arm["arm"] for arm in report["arms"]]


def _verdict(arm: Report) -> Cell:
    mark = MARKS[arm["verdict"]]
    return Cell(f"{mark} {arm['verdict']}", tone=MARK_TONES[mark])


def _rate(judge: str) -> Callable[[Report], Cell]:
    return lambda arm: cell(arm["win_rate"][judge], remark="" if arm["win_rate"][judge] else "no scores")


def _gold(arm: Report) -> Cell:
    return cell(arm["gold"])


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
    above = sum(item["reading"] == "above the floor" for item in arm["style_drift"])
    return Cell(f"{above} of {len(arm['style_drift'])}")


def _length(arm: Report) -> Report:
    found: Report = next(item for item in arm["style_drift"] if item["measure"] == "length")
    return found


def _mean_length(arm: Report) -> Cell:
    return cell(_length(arm)["ours"])


def _cost(name: str) -> Callable[[Report], Cell]:
    return lambda arm: cell(arm["cost"][name])


def _pair_cell(rate: Number, ppo: str, dpo: str) -> Cell:
    if rate is None:
        return Cell("–", remark="not compared")
    if rate["low"] <= EVEN <= rate["high"]:
        return cell(rate, remark="● no difference shown", tone="even")
    return cell(rate, remark=f"▲ {ppo if rate['value'] > EVEN else dpo} ahead")


def _within_prompt(item: Report) -> Cell:
    if item["within_prompt"] is None:
        return Cell("not assessable", remark="one sample per prompt", tone="even")
    return cell(item["within_prompt"], remark=f"base {item['within_prompt_base']['value']:.2f}")


def _seed_cell(item: Report) -> Cell:
    seeds = item["seeds"]
    if not seeds["assessable"]:
        return Cell("not assessable", remark=seeds["reason"].removeprefix("not assessable: "), tone="even")
    values = " · ".join(f"{value:.1f}" for value in seeds["values"])
    if seeds["interquartile_range"] is None:
        return Cell(values, remark=seeds["reason"])
    return Cell(values, remark=f"IQR {seeds['interquartile_range']:.1f}, worst {seeds['worst']:.1f}")


def _drift_label(measure: str) -> str:
    return {
        "length": "Length",
        "words": "Words",
        "cut_share": "Cut off",
        "distinct_1": "Distinct-1",
        "distinct_2": "Distinct-2",
        "repeated_4grams": "Repetition",
        "loop_share": "Loops",
        "sentiment": "Sentiment",
        "unigram_jsd": "Word choice",
    }[measure]


def _drift_cell(item: Report) -> Cell:
    ratio = "" if item["ratio"] is None else f"{item['ratio']['value']:.1f}{NBSP}×{NBSP}floor, "
    remark = f"{DRIFT_MARKS[item['reading']]} {ratio}{item['reading']}"
    return cell(
        item["change"],
        signed=item["ours"] is not None,
        remark=remark,
        tone="" if item["reading"] == "above the floor" else "even",
    )


def _knob(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _text_rows(items: Iterable[tuple[str, Any]]) -> Iterable[Row]:
    return (Row(str(key), "", (Cell(str(value)),)) for key, value in items)
