"""Measure and training reward over the distance to the base, an arm a panel, with curve, peak and switch point."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.statistics.scaling_law import curve

Report = dict[str, Any]

FITTED_POINTS = 60
CAPTION = (
    "Solid: the measure. Dashed: the training reward, which PPO maximises. Each in SD of the base over prompts, with "
    "95 % intervals. A training reward that rises while the measure falls is what over-optimisation looks like. "
    "Dotted: the curve fitted to the measure, over the range seen. Hatched: the 95 % interval of its peak, drawn only "
    "if the arm went past it. Grey: the 80 % interval of the point at which training stopped paying, drawn only if one "
    "was found. √KL is not comparable across algorithms."
)


def draw(canvas: Figure, report: Report, colours: tuple[str, ...], ink: str) -> None:
    """All panels with a shared legend."""
    arms = report["arms"]
    columns = min(2, len(arms))
    rows = (len(arms) + columns - 1) // columns
    canvas.set_size_inches(6.4, 0.9 + 2.3 * rows)
    panels = list(canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for position, (axes, arm) in enumerate(zip(panels, arms, strict=False)):
        _panel(axes, arm, colours[position % len(colours)], ink)
    for axes in panels[len(arms) :]:
        axes.set_visible(False)
    canvas.legend(handles=_keys(arms, ink), loc="outside upper right", ncols=3, handlelength=3.2)
    canvas.supxlabel("square root of KL to the base (√nats)", fontsize=9.5)
    canvas.supylabel("gain over the base (base SD)", fontsize=9.5)


def _panel(axes: Any, arm: Report, colour: str, ink: str) -> None:
    points, law, switch = arm["over_optimisation"], arm["scaling_law"], arm["switch"]
    distance = [0.0, *(item["root_kl"] for item in points)]
    if law["peak"]:
        axes.axvspan(law["peak"]["low"], law["peak"]["high"], facecolor="none", edgecolor=ink, hatch="///", alpha=0.35)
    if switch["reply"] == "yes":
        ends = [distance[switch[end]["point"]] if switch[end] else distance[-1] for end in ("low", "high")]
        axes.axvspan(min(ends), max(ends), facecolor=ink, alpha=0.15, linewidth=2, edgecolor=ink)
    for score, line, marker in (("measure", "-", "o"), ("training_reward", "--", "s")):
        numbers = [item[score] for item in points]
        if None in numbers:
            continue
        axes.errorbar(
            distance, [0.0, *(item["value"] for item in numbers)], yerr=_errors(numbers), linestyle=line, marker=marker,
            color=colour, markerfacecolor=colour if score == "measure" else "none", elinewidth=1, capsize=2,
        )  # fmt: skip
    if law["alpha"]:
        steps = np.linspace(law["first"], law["last"], FITTED_POINTS)
        fitted = curve(np.array([law["alpha"]["value"], law["beta"]["value"]]), steps)
        axes.plot(steps, fitted, color=ink, linestyle=":", linewidth=1.2)
    axes.axhline(0, color=ink, linewidth=0.6)
    axes.set_title(arm["arm"], loc="left")


def _errors(numbers: list[Report]) -> list[list[float]]:
    """Distances below and above; none at the base."""
    return [
        [0.0, *(max(0.0, item["value"] - item["low"]) for item in numbers)],
        [0.0, *(max(0.0, item["high"] - item["value"]) for item in numbers)],
    ]


def _keys(arms: list[Report], ink: str) -> list[Any]:
    """Legend of what is drawn, and of nothing else."""
    keys: list[Any] = [Line2D([], [], color=ink, linestyle="-", marker="o", label="measure")]
    if any(item["training_reward"] for arm in arms for item in arm["over_optimisation"]):
        style: dict[str, Any] = {"linestyle": "--", "marker": "s", "markerfacecolor": "none"}
        keys.append(Line2D([], [], color=ink, label="training reward", **style))
    if any(arm["scaling_law"]["alpha"] for arm in arms):
        keys.append(Line2D([], [], color=ink, linestyle=":", linewidth=1.2, label="fitted to the measure"))
    if any(arm["scaling_law"]["peak"] for arm in arms):
        keys.append(Patch(facecolor="none", edgecolor=ink, hatch="///", alpha=0.35, label="peak, 95 %"))
    if any(arm["switch"]["reply"] == "yes" for arm in arms):
        keys.append(Patch(facecolor=ink, alpha=0.15, label="switch point, 80 %"))
    return keys
