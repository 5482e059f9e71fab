"""How far controlled rates lie from published ones on files that chose nothing.

    python -m tests.benchmarks.left_out_elsewhere FOLDER

FOLDER holds `*.annotations.json.gz` and `published_leaderboard.csv` with columns generator and
length_controlled_winrate. For each file in turn, `max_effect` is the value of `GRID` with the smallest mean difference
on the other files; the file is then measured with it. Prints the lines of analysis/coverage.md; seconds.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from analysis.elsewhere.annotations import read_annotations
from analysis.elsewhere.win_rates import features
from analysis.statistics.bootstrap import FloatArray
from analysis.statistics.controlled_win_rate import PRIOR, refit

GRID = np.round(np.arange(1.0, 2.05, 0.1), 1)


def rates(path: Path) -> FloatArray:
    """The controlled rate in percent for each value of `GRID`, `[G]`."""
    read = read_annotations(path, "alpaca_eval")
    once_1P, rng = np.full((1, read.num_prompts), 1 / read.num_prompts), np.random.default_rng(0)
    rows = (read.preference_N, read.prompt_N, *features(read))
    return np.array([100 * refit(*rows, once_1P, rng, replace(PRIOR, max_effect=most)).controlled for most in GRID])


def left_out(error_FG: FloatArray) -> list[int]:
    """For each file, which value the others choose."""
    return [int(np.argmin(np.delete(error_FG, at, axis=0).mean(axis=0))) for at in range(len(error_FG))]


def main(folder: Path) -> None:
    """Print how far each file is off, and what is true of them together."""
    with (folder / "published_leaderboard.csv").open() as file:
        published = {row["generator"]: float(row["length_controlled_winrate"]) for row in csv.DictReader(file)}
    rate_FG = np.array([rates(folder / f"{name}.annotations.json.gz") for name in published])
    theirs_F = np.array(list(published.values()))
    error_FG = np.abs(rate_FG - theirs_F[:, None])
    chosen = left_out(error_FG)
    ours_F = rate_FG[np.arange(len(chosen)), chosen]
    for name, ours, theirs, at in zip(published, ours_F, theirs_F, chosen, strict=True):
        print(f"| {name} | {GRID[at]:g} | {ours:.1f} | {theirs:.1f} | {ours - theirs:+.1f} |")
    print(
        f"left out: {np.mean(np.abs(ours_F - theirs_F)):.2f} points, rank {spearmanr(ours_F, theirs_F).statistic:.3f}"
    )
    print(
        "all files at each value:",
        ", ".join(f"{most:g}: {e:.2f}" for most, e in zip(GRID, error_FG.mean(0), strict=True)),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
