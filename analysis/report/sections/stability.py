"""Stability along training, over samples and over seeds; the tolerance; the tuning burden."""

from __future__ import annotations

from typing import Any

from analysis.report.cells import Cell, CellOf, Report, Row, Table, arms_table, bare, cell, figure
from analysis.report.section import Section

TONES = {"yes": "good", "no": "bad", "inconclusive": "even", "not assessable": "even"}


def stability(report: Report) -> Table:
    """Along training, over samples, over seeds."""
    shape = report["arms"][0]["stability"]
    steps, points = shape["num_tail_steps"], shape["num_tail_points"]
    rows: list[tuple[str, str, CellOf]] = [
        ("Largest drawdown", "fall below the running best, noise taken out; interval over all points", _drawdown),
        ("Within the tolerance", "probability that the drawdown is tolerable, by the registered rule", _tolerance),
        (
            "Worst step" if steps == 1 else f"Worst {steps} steps",
            "smallest change between two evaluations, noise taken out; negative is a fall"
            if steps == 1
            else "their mean (CVaR), noise taken out; negative is a fall",
            _number("worst_step", signed=True),
        ),
        (
            "Points under water",
            "below the running best: from those shown to be to those that may be",
            _number("under_water"),
        ),
        ("Final over peak", "how much of the best score the final model keeps", _number("final_over_peak")),
        ("Spread of steps", "SD of the steps along training, evaluation noise taken out", _steps),
        ("Best checkpoint instead", "chosen on half of the prompts: its lead over the last, other half", _selection),
        ("Changed answers", "from one evaluation to the next, same prompts and random numbers", _changes("answers")),
        ("Change of style", "of its mean from one evaluation to the next, in SD of responses", _changes("style")),
        ("Spread within a prompt", "SD of the measure over samples of one prompt", _sample("spread", report)),
        ("Worst of a prompt", "its worst sample, against the base's mean", _sample("worst_of_prompt", report)),
        ("Worst responses", _worst_share(report), _sample("worst_responses", report)),
        ("Across seeds", "final gain over the base of each seed", _seed_cell),
    ]  # fmt: skip
    if points > 1:
        rows.insert(1, (f"Deepest {points} points", "mean fall below the running best", _number("drawdown_tail")))
    caption = "Stability, with 95 % intervals; SD is the base's over prompts unless it says otherwise"
    return arms_table(report, caption, rows)


def tolerances(report: Report) -> Table:
    """Can we tolerate the oscillation of each algorithm?"""
    answers = report["stability"]["algorithms"]
    rows = tuple(Row(answer["question"], "", _answer(answer)) for answer in answers.values())
    columns = ("answer", "why", "what would settle or change it")
    return Table("Oscillation, by the tolerance registered before training", "", columns, rows)


def _answer(answer: Report) -> tuple[Cell, ...]:
    replied = Cell(answer["reply"], tone=TONES[answer["reply"]])
    return replied, Cell("", remark=answer["sentence"]), Cell("", remark=answer["would_change"])


def sensitivity(report: Report) -> Table:
    """How far an algorithm's variants end apart."""
    labels = {arm["algorithm"]: arm["algorithm_label"] for arm in report["arms"]}
    rows = tuple(
        Row(
            labels[item["algorithm"]],
            ", ".join(item["knobs"]).replace("_", " ") or "no knob differs",
            (
                cell(item["spread"], remark=item["reason"] or ""),
                Cell("", remark=" · ".join(_variant(variant) for variant in item["variants"])),
            ),
        )
        for item in report["stability"]["sensitivity"]
    )
    columns = ("best less worst variant", "final gain over the base, each variant")
    return Table("Tuning burden: how far an algorithm's variants end apart", "Algorithm and knob", columns, rows)


def _variant(variant: Report) -> str:
    knobs = ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in variant["knobs"].items())
    gain = variant["gain"]
    ends = f"[{bare(gain['low'], 2)} to {bare(gain['high'], 2)}]"
    return (
        f"{variant['arm']}{f' ({knobs})' if knobs else ''}: {figure(gain['value'], gain['unit'], signed=True)} {ends}"
    )


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _drawdown(arm: Report) -> Cell:
    observed = arm["stability"]["observed_drawdown"]
    return cell(arm["stability"]["drawdown"], remark=f"observed {figure(observed['exact'], observed['unit'])}")


def _number(name: str, signed: bool = False) -> CellOf:
    return lambda arm: cell(arm["stability"][name], signed)


def _tolerance(arm: Report) -> Cell:
    tolerance = arm["stability"]["tolerance"]
    reply = tolerance["answer"]["reply"]
    return Cell(f"{100 * tolerance['probability']:.0f}\u00a0%", remark=f"tolerable: {reply}", tone=TONES[reply])


def _steps(arm: Report) -> Cell:
    spread = arm["stability"]["step_spread"]
    if spread is None:
        return Cell("not assessable", remark="fewer than two steps", tone="even")
    observed, noise, quartiles, with_noise = (
        f"{spread[name]['exact']:.2f}"
        for name in ("observed_sd", "noise_sd", "interquartile_range", "observed_interquartile_range")
    )
    words = f"observed {observed}, noise {noise}; interquartile range {quartiles}, observed {with_noise}"
    return cell(spread["standard_deviation"], remark=words)


def _selection(arm: Report) -> Cell:
    selection = arm["stability"]["tolerance"]["selection"]
    kept = selection["kept"]
    chosen = "point " + ", ".join(str(point) for point in selection["points"])
    remark = f"{chosen}; keeps {kept['value']:.0f} % of the peak's gain" if kept else f"{chosen}; no gain is shown"
    return cell(selection["regret_of_last"], signed=True, remark=remark)


def _changes(name: str) -> CellOf:
    def make(arm: Report) -> Cell:
        change = arm["stability"]["behaviour"][name]
        largest, in_all, chance = (
            figure(change[key]["value"], change[key]["unit"]).removesuffix(" of responses")
            for key in ("largest_step", "in_all", "base_vs_base")
        )
        step = dict(change["mean_step"])
        step["unit"] = "base SD" if step["unit"] == "SD of responses" else step["unit"]
        return cell(step, remark=f"largest {largest}; base to final {in_all}; base against itself {chance}")

    return make


def _sample(name: str, report: Report) -> CellOf:
    base = report["stability"]["samples_of_base"]

    def make(arm: Report) -> Cell:
        samples = arm["stability"]["samples"]
        if samples is None:
            return Cell("not assessable", remark="one sample per prompt", tone="even")
        signed = name != "spread"
        narrow = name == "worst_responses" and samples["too_narrow"]
        label = "; few responses: this interval covers about 89 %, not 95 %" if narrow else ""
        return cell(samples[name], signed=signed, remark=f"base {bare(base[name]['value'], 2, signed)}{label}")

    return make


def _worst_share(report: Report) -> str:
    share = report["stability"]["worst_response_share"]
    return f"mean of the worst {100 * share:.0f} % of all responses, against the base's mean measure"


def _seed_cell(arm: Report) -> Cell:
    seeds = arm["stability"]["seeds"]
    if not seeds["assessable"]:
        return Cell("not assessable", remark=seeds["reason"].removeprefix("not assessable: "), tone="even")
    values = " · ".join(bare(value, 2, signed=True) for value in seeds["values"])
    if seeds["standard_deviation"] is None:
        return Cell(values, remark=seeds["reason"])
    spread, worst = seeds["standard_deviation"], bare(seeds["worst"]["exact"], 2, signed=True)
    sd = f"SD {spread['value']:.2f} [{spread['low']:.2f} to {spread['high']:.2f}]"
    return Cell(values, remark=f"IQR {seeds['interquartile_range']['exact']:.2f}, worst {worst}, {sd}")


SECTION = Section(
    "Stability",
    "Stability",
    10,
    lambda report, signed: {
        "stability": stability(report),
        "tolerances": tolerances(report),
        "sensitivity": sensitivity(report),
    },
)
