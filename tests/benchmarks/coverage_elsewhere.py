"""How often intervals of results made elsewhere hold the truth: python -m tests.benchmarks.coverage_elsewhere

Invented annotation files with known truth, one comparison a prompt, measured by the function that `python -m analysis
winrate` calls. The baseline's characters follow a gamma distribution with AlpacaEval's mean and SD. The model's are

    characters = (baseline's)^0.75 · exp(0.6 e), scaled to the case's ratio of the mean lengths, e standard normal,

about what the real models of its leaderboard do (slope 0.5 to 0.8, residual SD 0.4 to 0.8). The judge says

    logit P(win) = θ − difficulty · z + knows · e + u + φ tanh(δ / SD(δ))

with z the baseline's standardised log length, u ~ N(0, 0.8²) what else makes prompts differ, and δ the difference in
characters. A model that answers at length where it knows the answer, and briefly where it does not (`knows` above 0),
makes length look dearer to the judge than it is. The truth is the rate over all prompts, at the lengths as they are or
at δ = 0.

Prints a table of analysis/coverage.md. With numbers as arguments, only those of its rows (from 0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import digamma, expit, gamma, polygamma

from analysis.elsewhere.annotations import Annotations
from analysis.elsewhere.win_rates import Interval, measure
from analysis.statistics.bootstrap import FloatArray

NUM_FILES = 200  # a row
NUM_RESAMPLES = 500
NUM_PROMPTS_FOR_TRUTH = 1_000_000  # the truth's own error is below 0.1 points
SHAPE, MEAN_CHARACTERS = 3.0, 2049.0  # of the baseline's gamma distribution: its SD is 1183, AlpacaEval's 1189
LOG_MEAN = digamma(SHAPE) + np.log(MEAN_CHARACTERS / SHAPE)  # of the logarithm of such characters
LOG_SD = polygamma(1, SHAPE) ** 0.5
SLOPE, LENGTH_SD = 0.75, 0.6  # in log characters
PROMPT_SD = 0.8  # of u, in log-odds


@dataclass(frozen=True)
class Case:
    """One kind of file.

    Attributes:
        ratio: mean characters of the model's responses over those of the baseline's.
        even: θ, log-odds to win at equal length.
        by_length: φ, what the judge gives for length, in log-odds.
        difficulty: how much a baseline's answer that is one SD longer (in log characters) lowers the log-odds.
        knows: by how many log-odds the model's answer is better, at equal length, where it writes one SD longer.
    """

    num_prompts: int
    ratio: float
    even: float
    by_length: float
    difficulty: float = 0.5
    knows: float = 0.0


@dataclass(frozen=True)
class Coverage:
    """Of the files of one case. Rates in percent, from 0 to 100; widths in points.

    Attributes:
        raw: share of files whose interval of the win rate holds the truth.
        controlled: the same of the length-controlled rate.
        controlled_if_identified: the same among the files whose rate is identified; None where none is.
        identified: share of files whose rate is identified.
        width: mean width of the interval of the controlled rate.
        num_files: how many files there were.
    """

    case: Case
    raw: float
    controlled: float
    controlled_if_identified: float | None
    identified: float
    width: float
    num_files: int


@dataclass(frozen=True)
class Comparisons:
    """Prompts with their lengths and the probability that the judge prefers the model; all `[N]`."""

    characters_N: FloatArray
    baseline_characters_N: FloatArray
    win_N: FloatArray
    win_at_equal_length_N: FloatArray


CASES = (
    *(Case(*values) for values in product((805, 200), (1.0, 0.5, 0.25), (0.0, -2.5), (0.0, 0.75, 1.5))),
    *(Case(805, ratio, -3.5, 1.5) for ratio in (0.5, 0.25)),  # wins 2 to 3 %
    *(Case(805, 0.5, even, 1.5, difficulty=0.0) for even in (0.0, -2.5)),
    *(Case(805, ratio, -1.0, 1.0, knows=knows) for ratio, knows in product((1.0, 0.5, 0.25), (0.5, 1.0))),
)


def draw(case: Case, num_prompts: int, rng: np.random.Generator) -> Comparisons:
    """So many prompts of the case."""
    relative_N = rng.gamma(SHAPE, 1 / SHAPE, num_prompts)  # the baseline's characters over their mean, which is 1
    theirs_N = MEAN_CHARACTERS * relative_N
    e_N = rng.standard_normal(num_prompts)
    ours_N = case.ratio * MEAN_CHARACTERS * relative_N**SLOPE * np.exp(LENGTH_SD * e_N)
    ours_N /= SHAPE**-SLOPE * gamma(SHAPE + SLOPE) / gamma(SHAPE) * np.exp(LENGTH_SD**2 / 2)  # mean of the last two
    z_N = (np.log(theirs_N) - LOG_MEAN) / LOG_SD
    equal_N = case.even - case.difficulty * z_N + case.knows * e_N + PROMPT_SD * rng.standard_normal(num_prompts)
    delta_N = ours_N - theirs_N
    style_N = case.by_length * np.tanh(delta_N / delta_N.std())
    return Comparisons(ours_N, theirs_N, expit(equal_N + style_N), expit(equal_N))


def annotate(comparisons: Comparisons, rng: np.random.Generator) -> Annotations:
    """The file that a judge makes of them."""
    num_prompts = len(comparisons.win_N)
    return Annotations(
        generator="model",
        baseline="baseline",
        preference_N=(rng.random(num_prompts) < comparisons.win_N).astype(np.float64),
        prompt_N=np.arange(num_prompts),
        characters_N=comparisons.characters_N,
        baseline_characters_N=comparisons.baseline_characters_N,
        repeated_share=0.0,
        num_missing=0,
        num_malformed=0,
    )


def coverage(case: Case, num_files: int, rng: np.random.Generator) -> Coverage:
    """Of both intervals of `num_files` files."""
    everything = draw(case, NUM_PROMPTS_FOR_TRUTH, rng)
    raw, controlled = (100 * float(win_N.mean()) for win_N in (everything.win_N, everything.win_at_equal_length_N))
    files = [
        measure(annotate(draw(case, case.num_prompts, rng), rng), "simulated", NUM_RESAMPLES) for _ in range(num_files)
    ]
    identified = [file for file in files if file.identified]
    return Coverage(
        case=case,
        raw=share(holds(file.win_rate_ci95, raw) for file in files),
        controlled=share(holds(file.lc_win_rate_ci95, controlled) for file in files),
        controlled_if_identified=share(holds(file.lc_win_rate_ci95, controlled) for file in identified)
        if identified
        else None,
        identified=100 * len(identified) / num_files,
        width=float(np.mean([np.ptp(file.lc_win_rate_ci95) for file in files])),
        num_files=num_files,
    )


def holds(interval: Interval, truth: float) -> bool:
    """Whether the truth lies in the interval."""
    return interval[0] <= truth <= interval[1]


def share(found: Iterable[bool]) -> float:
    """Percent of them that are true."""
    return 100 * float(np.mean(list(found)))


def table_row(item: Coverage) -> str:
    """A line of Markdown."""
    case, among_identified = item.case, item.controlled_if_identified
    cells = (
        case.num_prompts, f"{case.ratio:g}", f"{case.even:g}", f"{case.by_length:g}", f"{case.difficulty:g}",
        f"{case.knows:g}",
        f"{item.raw:.0f}", f"{item.controlled:.1f}", f"{item.identified:.0f}",
        "–" if among_identified is None else f"{among_identified:.1f}", f"{item.width:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = (
    "| prompts | length ratio | θ | φ | difficulty | knows | raw, % | controlled, % | identified, % | controlled where "
    "identified, % | width, points |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

if __name__ == "__main__":
    print(HEAD)
    for number in map(int, sys.argv[1:] or range(len(CASES))):
        print(table_row(coverage(CASES[number], NUM_FILES, np.random.default_rng([3, number]))), flush=True)
