"""Coverage of the stability intervals by simulation (minutes): pytest -m slow -s. Figures: analysis/coverage.md.

A prompt has a level that all evaluation points share and, at each point, noise of its own; the curve of the points is
given, so every true value is known. One line a case is printed as a row of the table.
"""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stability import over_samples, over_time, tolerance
from analysis.statistics.bootstrap import Resamples
from experiments.rules import StabilityRules

NUM_SIMULATIONS = 300
# evaluation prompts, points, SD of a prompt's noise at one point (base SD): a laptop's sweep, and two larger ones
DESIGNS = ((64, 5, 0.9), (200, 10, 0.6), (512, 11, 0.5))
CURVES = ("flat", "rising", "oscillating", "collapsing", "one dip", "rise and slide", "falling")
TAIL = 0.2


def curve(name: str, num_points: int) -> np.ndarray:
    share = np.arange(num_points) / (num_points - 1)
    rise = 1 - np.exp(-3 * share)
    zigzag = 0.8 * rise + 0.2 * (-1.0) ** np.arange(num_points) * (share > 0)
    peak = np.where(share <= 0.5, 1.2 * share, 0.6 - 1.2 * (share - 0.5))
    return {
        "flat": np.zeros(num_points),
        "rising": rise,
        "oscillating": zigzag,
        "collapsing": rise - (share == 1),
        "one dip": rise - 0.5 * (np.arange(num_points) == num_points // 2),
        "rise and slide": peak,
        "falling": -0.3 * share,
    }[name]


def scores(true_C: np.ndarray, num_prompts: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    level = 3 + rng.standard_normal(num_prompts)  # of the prompt, at every point
    return true_C[:, None] + level + noise * rng.standard_normal((len(true_C), num_prompts))


def covers(estimate, true: float) -> bool:
    return estimate.low - 1e-9 <= true <= estimate.high + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(("num_prompts", "num_points", "noise"), DESIGNS)
def test_intervals_along_training_cover(name, num_prompts, num_points, noise, synthetic):
    rules = StabilityRules(**synthetic.RULES["stability"])
    rng, true = np.random.default_rng(1), curve(name, num_points)
    tail = over_time.tail_size(num_points - 1, TAIL)
    truth = {
        "drawdown": over_time.drawdown(true),
        "worst_step": -over_time.upper_tail_mean(-np.diff(true), tail),
        "spread": np.diff(true).std(ddof=1),
    }
    hits, replies = {key: 0 for key in truth}, {"yes": 0, "no": 0, "inconclusive": 0}
    for _ in range(NUM_SIMULATIONS):
        resamples = Resamples.draw(rng, num_prompts, 1, 500)
        found = over_time.spread_over_time(scores(true, num_prompts, noise, rng)[None], resamples, TAIL)
        numbers = {
            "drawdown": found.drawdown,
            "worst_step": found.worst_step,
            "spread": found.step_spread.standard_deviation,
        }
        for key, number in numbers.items():
            hits[key] += covers(number, float(truth[key]))
        probability = tolerance.probability_within(found.drawdown_draws, rules.max_drawdown)
        replies[tolerance.reply(probability, found.drawdown, rules)] += 1
    share = {key: 100 * count / NUM_SIMULATIONS for key, count in (hits | replies).items()}
    print(
        f"\n| {name} | {num_prompts} × {num_points} | {truth['drawdown']:.2f} | {share['drawdown']:.0f} | "
        f"{share['worst_step']:.0f} | {share['spread']:.0f} | {share['yes']:.0f} | {share['no']:.0f} |"
    )
    assert share["drawdown"] >= 90
    assert share["worst_step"] >= 90
    if name == "flat":
        assert share["no"] <= 5


@pytest.mark.slow
@pytest.mark.parametrize(("num_prompts", "num_samples"), [(64, 2), (200, 4)])
def test_intervals_over_samples_cover(num_prompts, num_samples):
    rng, share = np.random.default_rng(2), 0.1

    def draw(count: int) -> np.ndarray:
        spread = rng.gamma(4, 0.25, size=(count, 1))  # prompts differ in how much their samples differ
        return (rng.standard_normal((count, 1)) + spread * rng.standard_normal((count, num_samples)))[None]

    population = draw(400_000)
    everyone = np.full((1, 400_000), 1 / 400_000)
    truth = {
        "spread": over_samples.within_prompt_sd(population).mean(),
        "worst_of_prompt": population.min(axis=2).mean(),
        "worst_responses": over_samples.lower_tail_mean(population[0], everyone, share)[0],
    }
    hits = {key: 0 for key in truth}
    for _ in range(NUM_SIMULATIONS):
        resamples = Resamples.draw(rng, num_prompts, 1, 500)
        found = over_samples.spread_over_samples(draw(num_prompts), resamples, share)
        for key in truth:
            hits[key] += covers(getattr(found, key), float(truth[key]))
    print(
        f"\n| {num_prompts} × {num_samples} | "
        + " | ".join(f"{100 * count / NUM_SIMULATIONS:.0f}" for count in hits.values())
        + " |"
    )
    assert hits["spread"] >= 0.9 * NUM_SIMULATIONS
    assert hits["worst_of_prompt"] >= 0.9 * NUM_SIMULATIONS
    labelled = found.too_narrow
    assert labelled or hits["worst_responses"] >= 0.9 * NUM_SIMULATIONS
