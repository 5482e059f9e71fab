"""report.json -> inline SVG. The same numbers give the same bytes; ink and colour come from the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis.report import scaling_figure
from analysis.report.cells import deciding_judge

Report = dict[str, Any]

INK, GRID = "#0a0b0c", "#d0d1d2"  # stand-ins; `_inline` replaces them by what the page says
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#5c4b8a",
    "#7f7f7f",
)  # Okabe & Ito 2008, two added
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
AXES = {  # of the curves: what the reader chooses, what stands under the figure
    "prompts_seen": ("prompts", "prompt presentations in training"),
    "tokens": ("tokens", "tokens generated and trained on"),
    "device_seconds": ("device-seconds", "device-seconds of training (seconds × devices)"),
}
WIDTH = 6.4  # inches; the page scales it
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


@dataclass(frozen=True)
class Picture:
    """An inline SVG and the words under it."""

    svg: str
    caption: str


def pictures(report: Report) -> dict[str, Picture]:
    """All figures by name, and one learning curve for each axis that was recorded."""
    curves = {f"curves_{axis}": _curve_figure(axis) for axis in recorded_axes(report)}
    return {name: _picture(report, name, *parts) for name, parts in {**FIGURES, **curves}.items()}


def recorded_axes(report: Report) -> dict[str, str]:
    """The axes that every arm has at every evaluation point, and what the reader calls them."""
    points = [item for arm in report["arms"] for item in arm["curve"]]
    return {axis: name for axis, (name, _) in AXES.items() if all(item[axis] is not None for item in points)}


def _picture(report: Report, name: str, draw: Callable[[Figure, Report], None], title: str, caption: str) -> Picture:
    with mpl.rc_context():
        mpl.rcdefaults()  # a person's own matplotlibrc must not change the bytes
        mpl.rcParams.update({**STYLE, "svg.hashsalt": name})
        canvas = Figure(layout="constrained")
        FigureCanvasSVG(canvas)
        draw(canvas, report)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Picture(_inline(buffer.getvalue(), name, title, _describe(report, name)), caption)


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """Cut prolog and size, make ids unique in the page, take ink and colours from the page, say what is shown."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\b(id="|url\(#|xlink:href="#)', lambda match: f"{match[0]}{name}-", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*" |<svg ', r"<svg \1", svg, count=1)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    head += f' role="img" aria-labelledby="{name}-title {name}-desc"'
    words = f'\n<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-desc">{escape(description)}</desc>'
    rest = rest.replace(INK, "currentColor").replace(GRID, "var(--grid)").replace("'DejaVu Sans'", "var(--sans)")
    for position, colour in enumerate(PALETTE):
        rest = rest.replace(colour, f"var(--c{position})")
    return f"{head}>{words}{rest}".strip()


def _describe(report: Report, name: str) -> str:
    """The figure in words, for those who do not see it."""
    if name.startswith("curves_"):
        return "; ".join(_spoken_curve(arm, name.removeprefix("curves_")) for arm in report["arms"]) + "."
    shown: dict[str, tuple[str, Callable[[Report], Report | None]]] = {
        "win_rates": ("percent", lambda arm: arm["win_rate"][deciding_judge(report)]),
        "frontier": ("points at the end", lambda arm: arm["curve"][-1]["measure"]),
        "over_optimisation": ("base SD gained at the end", lambda arm: arm["over_optimisation"][-1]["measure"]),
    }
    unit, number = shown[name]
    return "; ".join(_spoken(arm["arm"], number(arm), unit) for arm in report["arms"]) + "."


def _spoken(arm: str, number: Report | None, unit: str) -> str:
    if number is None:
        return f"{arm} without a verdict"
    return f"{arm} {number['value']:.2f} {unit}, interval {number['low']:.2f} to {number['high']:.2f}"


def _spoken_curve(arm: Report, axis: str) -> str:
    end = arm["curve"][-1]
    return _spoken(arm["arm"], end["measure"], f"points after {end[axis]:,.0f} {AXES[axis][0]}")


def _style(position: int) -> dict[str, Any]:
    return {
        "color": PALETTE[position % len(PALETTE)],
        "linestyle": LINES[position % len(LINES)],
        "marker": MARKERS[position % len(MARKERS)],
    }


def _errors(numbers: list[Report]) -> list[list[float]]:
    """Distances below and above, never negative."""
    return [
        [max(0.0, item["value"] - item["low"]) for item in numbers],
        [max(0.0, item["high"] - item["value"]) for item in numbers],
    ]


def _win_rates(canvas: Figure, report: Report) -> None:
    canvas.set_size_inches(WIDTH, 0.6 + 0.42 * len(report["arms"]))
    axes = canvas.subplots()
    for position, arm in enumerate(report["arms"]):
        rate, style = arm["win_rate"][deciding_judge(report)], _style(position)
        if rate is None:
            continue
        axes.errorbar(rate["value"], position, xerr=_errors([rate]), capsize=3, markersize=7, **style)
    axes.axvline(50, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(report["arms"])), [arm["arm"] for arm in report["arms"]])
    axes.set_ylim(len(report["arms"]) - 0.5, -0.5)
    axes.set_xlim(*_around_even(report))
    axes.set_xlabel("win rate against the base, % of pairs (50 = no difference)")
    axes.grid(axis="y", visible=False)


def _around_even(report: Report) -> tuple[float, float]:
    judge = deciding_judge(report)
    rates = [rate for arm in report["arms"] if (rate := arm["win_rate"][judge])]
    low = min([45.0, *(rate["low"] for rate in rates)])
    high = max([55.0, *(rate["high"] for rate in rates)])
    return max(0.0, low - 3), min(100.0, high + 3)


def _curves(canvas: Figure, report: Report, axis: str) -> None:
    canvas.set_size_inches(WIDTH, 3.9)
    axes = canvas.subplots()
    for position, arm in enumerate(report["arms"]):
        measure = [item["measure"] for item in arm["curve"]]
        _line(axes, position, arm["arm"], [item[axis] for item in arm["curve"]], measure, yerr=_errors(measure))
    axes.set_xlabel(AXES[axis][1])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel("mean score (0 to 100)")
    _legend(canvas, report)


def _frontier(canvas: Figure, report: Report) -> None:
    canvas.set_size_inches(WIDTH, 4.1)
    axes = canvas.subplots()
    for position, arm in enumerate(report["arms"]):
        kl = [_within(item["kl"]) for item in arm["curve"]]
        measure = [item["measure"] for item in arm["curve"]]
        away = [item["value"] for item in kl]
        _line(axes, position, arm["arm"], away, measure, xerr=_errors(kl), yerr=_errors(measure))
    axes.set_xscale("function", functions=(_signed_root, _signed_square))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("KL to the base per response (nats; square-root scale)")
    axes.set_ylabel("mean score (0 to 100)")
    _legend(canvas, report)


def _within(kl: Report) -> Report:
    """The number with its interval, cut at zero: a KL is not negative, its estimate may be."""
    bounds = {"value": kl.get("exact"), "low": kl.get("exact"), "high": kl.get("exact"), **kl}
    return {name: max(0.0, bounds[name]) for name in ("value", "low", "high")}


def _signed_root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def _line(axes: Any, position: int, name: str, x: list[float], measure: list[Report], **errors: Any) -> None:
    heights = [item["value"] for item in measure]
    _, _, bars = axes.errorbar(x, heights, label=name, elinewidth=0.8, capsize=0, **errors, **_style(position))
    for bar in bars:
        bar.set_alpha(0.55)  # the lines come first


def _legend(canvas: Figure, report: Report) -> None:
    canvas.legend(loc="outside lower center", ncols=min(4, len(report["arms"])), handlelength=3.2)


def _measure_and_reward(canvas: Figure, report: Report) -> None:
    scaling_figure.draw(canvas, report, PALETTE, INK)


FIGURES: dict[str, tuple[Callable[[Figure, Report], None], str, str]] = {
    "win_rates": (
        _win_rates,
        "Win rate of each arm against the base, by the judge that decides.",
        "Win rate against the base, by the judge that decides, with 95 % intervals. Right of the dashed line the arm "
        "is preferred.",
    ),
    "frontier": (
        _frontier,
        "Mean measure over the KL to the base, one line an arm, from the base on the left.",
        "Each point is one evaluation, bars are 95 % intervals. Higher is better; further left is closer to the base. "
        "An arm whose line runs above another's buys more of the measure for the same distance.",
    ),
    "over_optimisation": (
        _measure_and_reward,
        "Gain in the measure and in the training reward over the square root of the KL to the base, one panel an arm.",
        scaling_figure.CAPTION,
    ),
}


def _curve_figure(axis: str) -> tuple[Callable[[Figure, Report], None], str, str]:
    return (
        partial(_curves, axis=axis),
        f"Mean measure over {AXES[axis][1]}, one line an arm.",
        f"Mean measure over {AXES[axis][1]}. Bars are 95 % intervals; all arms start from the base, left.",
    )
