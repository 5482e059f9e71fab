"""How often 95 % intervals of stability hold the truth, by simulation: python -m tests.benchmarks.coverage_stability

Two things that tests/unit/analysis/stability/test_coverage.py leaves out. Over several seeds: a run's true curve is the
method's, stretched by 1 + 0.3 z for its seed and moved by 0.1 base SD at each point; the truth is the mean over all
seeds. Behaviour: the true share of changed answers, and the true move of the mean style, are given for each step and
differ between seeds by the given spread.

The intervals come from the very functions that the report uses. Prints the tables of analysis/coverage.md; five minutes
on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from analysis.stability import behaviour, over_seeds, over_time
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples

NUM_SWEEPS = 300
NUM_RESAMPLES = 500
NUM_FOR_TRUTH = 20_000  # seeds that the truth is the mean of
TAIL = 0.2
STRETCH, WOBBLE = 0.3, 0.1  # between seeds
CURVES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "flat": lambda share: 0 * share,
    "rising": lambda share: 1 - np.exp(-3 * share),
    "oscillating": lambda share: np.where(share > 0, 0.8 + 0.25 * np.cos(np.pi * share * (len(share) - 1)), 0.0),
    "rise and slide": lambda share: 0.6 - 1.2 * np.abs(share - 0.5),
}
DESIGNS = ((64, 5, 0.9), (200, 10, 0.6))  # prompts, points, SD of a prompt's noise at a point


@dataclass(frozen=True)
class Tally:
    """Of one number in one case: percent of the intervals that held the truth, and their mean width."""

    covered: float
    width: float

    @classmethod
    def of(cls, found: list[Estimate], truth: float) -> Tally:
        """Over all simulated sweeps."""
        covered = np.mean([item.low - 1e-9 <= truth <= item.high + 1e-9 for item in found])
        return cls(100 * float(covered), float(np.mean([item.high - item.low for item in found])))


# --------------------------------------------------------------------------------------------------------- over seeds
def seed_curves(name: str, num_seeds: int, num_points: int, rng: np.random.Generator) -> FloatArray:
    """True curves of seeds, `[S, C]`; the base, point 0, is shared."""
    curve_C = CURVES[name](np.arange(num_points) / (num_points - 1))
    wobble_SC = WOBBLE * rng.standard_normal((num_seeds, num_points)) * (np.arange(num_points) > 0)
    return np.asarray(curve_C * (1 + STRETCH * rng.standard_normal((num_seeds, 1))) + wobble_SC)


def true_numbers(true_SC: FloatArray) -> dict[str, float]:
    """What the report estimates, of curves without noise, mean over seeds."""
    steps_SK = np.diff(true_SC, axis=1)
    tail = over_time.tail_size(steps_SK.shape[1], TAIL)
    return {
        "drawdown": float(over_time.drawdown(true_SC).mean()),
        "worst steps": float(-over_time.upper_tail_mean(-steps_SK, tail).mean()),
        "SD of steps": float(np.sqrt(steps_SK.var(axis=1, ddof=1).mean())),
        "SD over seeds": float((true_SC[:, -1] - true_SC[:, 0]).std()),
    }


def over_seeds_case(name: str, num_seeds: int, design: tuple[int, int, float]) -> dict[str, Tally]:
    """Coverage of the numbers that speak of the method."""
    num_prompts, num_points, noise = design
    rng = np.random.default_rng([num_seeds, num_points, list(CURVES).index(name)])
    truth = true_numbers(seed_curves(name, NUM_FOR_TRUTH, num_points, rng))
    found: dict[str, list[Estimate]] = {key: [] for key in truth}
    for _ in range(NUM_SWEEPS):
        resamples = Resamples.draw(rng, num_prompts, num_seeds, NUM_RESAMPLES)
        true_SC = seed_curves(name, num_seeds, num_points, rng)
        noise_SCP = noise * rng.standard_normal((num_seeds, num_points, num_prompts))
        noise_SCP[:, 0] = noise_SCP[0, 0]  # the base is evaluated once
        curve_SCP = true_SC[:, :, None] + rng.standard_normal(num_prompts) + noise_SCP
        over = over_time.spread_over_time(curve_SCP, resamples, TAIL)
        assert over.step_spread is not None, "there are more than two steps"
        found["drawdown"].append(over.drawdown)
        found["worst steps"].append(over.worst_step)
        found["SD of steps"].append(over.step_spread.standard_deviation)
        spread = over_seeds.spread_over_seeds(curve_SCP[:, -1] - curve_SCP[:, 0]).standard_deviation
        found["SD over seeds"] += [spread] if spread else []
    return {key: Tally.of(items, truth[key]) for key, items in found.items() if items}


# ---------------------------------------------------------------------------------------------------------- behaviour
ANSWERS = {"hardly any change": (0.02, 0.03, 0.02, 0.03), "fewer and fewer": (0.8, 0.5, 0.3, 0.2)}
STYLE = {  # size of the mean move at each step, SD of responses
    "no move": (0.0, 0.0, 0.0, 0.0),
    "small moves": (0.1, 0.1, 0.1, 0.1),
    "one large move": (0.1, 0.6, 0.1, 0.1),
}
NUM_FEATURES = len(behaviour.FEATURES)
NUM_SAMPLES = 2
# SD over prompts of a feature's change, SD of responses: two samples at each end, most of them changed
MOVE_NOISE = 1.0
REDUCTIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mean step": lambda values: np.asarray(values.mean(axis=-1)),
    "largest step": lambda values: np.asarray(values.max(axis=-1)),
}
BEHAVIOUR_DESIGNS = ((1, 64), (1, 200), (3, 64), (5, 200))  # seeds, prompts


def answers_case(name: str, num_seeds: int, num_prompts: int) -> dict[str, Tally]:
    """Shares of changed answers; prompts differ by one logit, seeds by 0.3 from three on."""
    rng = np.random.default_rng([7, num_seeds, num_prompts, list(ANSWERS).index(name)])
    middle_N, seed_sd = logit(np.array(ANSWERS[name])), 0.3 * (num_seeds > 1)
    many_P = rng.standard_normal(2000)

    def seeds(count: int) -> FloatArray:
        return np.asarray(middle_N + seed_sd * rng.standard_normal((count, len(middle_N))))

    share_SN = np.stack([expit(row[:, None] + many_P).mean(axis=1) for row in seeds(2000 if num_seeds > 1 else 1)])
    truth = {key: 100 * float(reduce(share_SN).mean()) for key, reduce in REDUCTIONS.items()}
    found: dict[str, list[Estimate]] = {key: [] for key in truth}
    for _ in range(NUM_SWEEPS):
        resamples = Resamples.draw(rng, num_prompts, num_seeds, NUM_RESAMPLES)
        share_SNP = expit(seeds(num_seeds)[:, :, None] + rng.standard_normal(num_prompts))
        changed_SNP = 100 * rng.binomial(NUM_SAMPLES, share_SNP) / NUM_SAMPLES
        for key, reduce in REDUCTIONS.items():
            found[key].append(behaviour.answer_change(changed_SNP, reduce, resamples))
    return {key: Tally.of(items, truth[key]) for key, items in found.items()}


def style_case(name: str, num_seeds: int, num_prompts: int) -> dict[str, Tally]:
    """Moves of the mean style; their sizes differ between seeds by a fifth from three on."""
    rng = np.random.default_rng([8, num_seeds, num_prompts, list(STYLE).index(name)])
    size_N, seed_sd = np.array(STYLE[name]), 0.2 * (num_seeds > 1)
    direction_F = rng.standard_normal(NUM_FEATURES)
    direction_F /= np.sqrt((direction_F**2).mean())

    def seeds(count: int) -> FloatArray:
        return np.asarray(np.abs(size_N * (1 + seed_sd * rng.standard_normal((count, len(size_N))))))

    truth = {key: float(reduce(seeds(NUM_FOR_TRUTH)).mean()) for key, reduce in REDUCTIONS.items()}
    found: dict[str, list[Estimate]] = {key: [] for key in truth}
    for _ in range(NUM_SWEEPS):
        resamples = Resamples.draw(rng, num_prompts, num_seeds, NUM_RESAMPLES)
        move_SNF = seeds(num_seeds)[:, :, None] * direction_F
        noise_SNPF = MOVE_NOISE * rng.standard_normal((num_seeds, len(size_N), num_prompts, NUM_FEATURES))
        for key, reduce in REDUCTIONS.items():
            found[key].append(behaviour.style_change(move_SNF[:, :, None] + noise_SNPF, reduce, resamples))
    return {key: Tally.of(items, truth[key]) for key, items in found.items()}


# ------------------------------------------------------------------------------------------------------------- tables
def seed_rows() -> Iterator[str]:
    """Lines of Markdown."""
    columns = ("drawdown", "worst steps", "SD of steps", "SD over seeds")
    yield "| curve | seeds × prompts × points | " + " | ".join(f"{name}, %" for name in columns) + " |"
    yield "| --- " * (2 + len(columns)) + "|"
    for design in DESIGNS:
        for num_seeds in (3, 5, 8):
            for name in CURVES:
                case = over_seeds_case(name, num_seeds, design)
                cells = (f"{case[key].covered:.0f}" if key in case else "" for key in columns)
                yield f"| {name} | {num_seeds} × {design[0]} × {design[1]} | " + " | ".join(cells) + " |"


def behaviour_rows() -> Iterator[str]:
    """Lines of Markdown."""
    yield "| what | truth | seeds × prompts | mean step, % | largest step, % |"
    yield "| --- | --- | --- | --- | --- |"
    for what, cases, simulate in (("answers", ANSWERS, answers_case), ("style", STYLE, style_case)):
        for name in cases:
            for num_seeds, num_prompts in BEHAVIOUR_DESIGNS:
                case = simulate(name, num_seeds, num_prompts)
                cells = (f"{tally.covered:.0f}" for tally in case.values())
                yield f"| {what} | {name} | {num_seeds} × {num_prompts} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for rows in (behaviour_rows(), seed_rows()):
        for row in rows:
            print(row, flush=True)
        print()
