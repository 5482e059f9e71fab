"""How often a 95 % interval of a win rate holds the truth, by simulation: python -m tests.benchmarks.coverage

Invented comparisons with known truth: logit P(win) = θ + seed + prompt + φ tanh(δ / SD(δ)), where the effects of seeds
and prompts are drawn anew in every sweep and δ is the difference in log length. The intervals come from the very
functions that the report uses. "Checkpoints" asks for the rate of these models on all prompts, "method" for that of all
seeds on all prompts.

Prints the table of analysis/coverage.md; ten minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from analysis.statistics.bootstrap import MIN_SEEDS_FOR_METHOD, FloatArray, Resamples, judged_mean
from analysis.win_rates import at_equal_style as style_control

NUM_RESAMPLES = 1000
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)  # expectations over standard normal effects
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Case:
    """One kind of sweep.

    Attributes:
        even: θ, log-odds to win at equal length for the average prompt and seed.
        seed_sd, prompt_sd: in log-odds.
        by_length: φ.
        longer: mean of δ over its SD.
    """

    num_seeds: int
    num_prompts: int
    num_samples: int
    even: float = 0.4
    seed_sd: float = 0.0
    prompt_sd: float = 0.8
    by_length: float = 0.0
    longer: float = 0.0

    @property
    def about(self) -> str:
        """What the interval speaks of."""
        return "method" if self.num_seeds >= MIN_SEEDS_FOR_METHOD else "checkpoints"


@dataclass(frozen=True)
class Coverage:
    """Share of simulated sweeps whose interval held the truth, and the mean width of the interval in points."""

    case: Case
    what: str
    covered: float
    width: float
    num_sweeps: int


RAW = (
    Case(1, 100, 1),
    Case(1, 200, 4),
    Case(1, 64, 2, even=1.5),
    Case(2, 200, 2, seed_sd=0.3),
    *(Case(seeds, 200, 2, seed_sd=sd) for seeds in (3, 5, 8) for sd in (0.0, 0.2, 0.5)),
    Case(5, 64, 1, seed_sd=0.2),
)
CONTROLLED = (
    Case(1, 200, 2),
    Case(1, 200, 1, by_length=1.0, longer=0.5),
    Case(1, 100, 2, by_length=1.5, longer=0.8),
    *(Case(seeds, 150, 1, seed_sd=sd, by_length=1.0, longer=0.5) for seeds in (3, 5, 8) for sd in (0.0, 0.4)),
)


def draw(case: Case, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores `[S, P, M]`, length differences `[S, P, M]` and seed effects `[S]` of one sweep."""
    shape = (case.num_seeds, case.num_prompts, case.num_samples)
    seed_S = case.seed_sd * rng.standard_normal(case.num_seeds)
    prompt_P = case.prompt_sd * rng.standard_normal(case.num_prompts)
    delta_SPM = case.longer + rng.standard_normal(shape)
    logit_SPM = case.even + seed_S[:, None, None] + prompt_P[:, None] + case.by_length * np.tanh(delta_SPM)
    return (rng.random(shape) < expit(logit_SPM)).astype(np.float64), delta_SPM, seed_S


def truth(case: Case, seed_S: FloatArray, at_equal_style: bool) -> float:
    """Percent of pairs won, over all prompts and lengths, of these seeds or of all."""
    seeds, of_seeds = seed_S, np.full(len(seed_S), 1 / len(seed_S))
    if case.about == "method":
        seeds, of_seeds = case.seed_sd * NODES, WEIGHTS
    style = np.zeros(1) if at_equal_style else case.by_length * np.tanh(case.longer + NODES)
    of_style = np.ones(1) if at_equal_style else WEIGHTS
    rate = expit(case.even + seeds[:, None, None] + case.prompt_sd * NODES[:, None] + style)
    return 100 * float(np.einsum("spl,s,p,l->", rate, of_seeds, WEIGHTS, of_style))


def raw_coverage(case: Case, num_sweeps: int, rng: np.random.Generator) -> Coverage:
    """Of the plain win rate."""
    found = []
    for _ in range(num_sweeps):
        resamples = Resamples.draw(rng, case.num_prompts, case.num_seeds, NUM_RESAMPLES)
        score_SPM, _, seed_S = draw(case, rng)
        judged = judged_mean(100 * score_SPM, resamples)
        assert judged is not None, "every prompt is judged"
        rate, _ = judged
        found.append((rate.low <= truth(case, seed_S, False) <= rate.high, rate.high - rate.low))
    return Coverage(case, "raw", *map(float, np.mean(found, axis=0)), num_sweeps)


def controlled_coverage(case: Case, num_sweeps: int, rng: np.random.Generator) -> Coverage:
    """Of the win rate at equal style, where it is identified; elsewhere the report shows none."""
    found = []
    for _ in range(num_sweeps):
        resamples = Resamples.draw(rng, case.num_prompts, case.num_seeds, style_control.NUM_REFITS)
        score_SPM, delta_SPM, seed_S = draw(case, rng)
        delta_SPMF = np.stack([delta_SPM, *(np.zeros_like(delta_SPM) for _ in style_control.MARKUP)], axis=-1)
        covariate_P = rng.standard_normal(case.num_prompts)
        rate = style_control.identified_rate(
            style_control.equal_style(score_SPM, delta_SPMF, covariate_P, resamples, rng)
        )
        if rate is not None:
            found.append((rate.low <= truth(case, seed_S, True) <= rate.high, rate.high - rate.low))
    return Coverage(case, "controlled", *map(float, np.mean(found, axis=0)), len(found))


def measure(num_raw: int, num_controlled: int) -> Iterator[Coverage]:
    """All cases, each with random numbers of its own."""
    for number, case in enumerate(RAW):
        yield raw_coverage(case, num_raw, np.random.default_rng([1, number]))
    for number, case in enumerate(CONTROLLED):
        yield controlled_coverage(case, num_controlled, np.random.default_rng([2, number]))


def table_row(item: Coverage) -> str:
    """A line of Markdown."""
    case, error = item.case, 196 * (item.covered * (1 - item.covered) / item.num_sweeps) ** 0.5
    cells = (
        item.what, case.about, case.num_seeds, case.num_prompts, case.num_samples, case.even, case.seed_sd,
        f"{case.by_length:g}, {case.longer:g}", f"{100 * item.covered:.1f} ± {error:.1f}", f"{item.width:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = (
    "| rate | about | seeds | prompts | samples | θ | seed SD | φ, longer | covered, % | width, points |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

if __name__ == "__main__":
    print(HEAD)
    for result in measure(num_raw=1000, num_controlled=400):
        print(table_row(result), flush=True)
