"""How often the intervals of the peak and of the switch point contain the truth, by simulation.

`python -m pytest -m slow -s tests/unit/analysis/test_coverage_of_peak_and_switch.py` prints the rows of
analysis/coverage.md. Noise is that of two responses a prompt: one base SD of gold, and prompts that gain more or less.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from analysis.questions import switch_point
from analysis.questions.switch_point import NEVER, Weights
from analysis.statistics import scaling_law
from analysis.statistics.bootstrap import Resamples
from analysis.statistics.scaling_law import fit_curve, peak, peak_interval
from experiments.rules import ScalingLawRules, SwitchRules

Truth = Callable[[np.ndarray], np.ndarray]

PEAK = np.exp(0.6 / 0.25 - 1)
LAW_RULES = ScalingLawRules(min_root_kl=0.5, min_num_points=4, min_num_prompts=20, max_misfit=2.0)
SWITCH_RULES = SwitchRules(
    min_num_intervals=4, min_num_prompts=20, drawdown_weight=1.0, diversity_weight=0.1, min_gain_per_tenth=0.02,
    min_probability=0.8, max_interval_share=0.34, tolerated_shift=2,
)  # fmt: skip
NUM_RUNS, NUM_RESAMPLES = 200, 400
SEED_SD = 0.03  # of alpha between seeds; it moves the peak by about an eighth


def gao(distance: np.ndarray) -> np.ndarray:
    return distance * (0.6 - 0.25 * np.log(distance))


def levels_off(distance: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-distance)


def rises(distance: np.ndarray) -> np.ndarray:
    return 0.3 * distance


def nothing(distance: np.ndarray) -> np.ndarray:
    return 0 * distance


def turns_down(distance: np.ndarray) -> np.ndarray:
    return np.where(distance < 3.6, 0.4 * distance, 1.44 - 0.3 * (distance - 3.6))


def stops_rising(distance: np.ndarray) -> np.ndarray:
    return 0.4 * np.minimum(distance, 3.5)


def simulate(
    rng: np.random.Generator, truth: Truth, distance_C: np.ndarray, num_prompts: int, num_seeds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gold gain and nats, `[S, C, P]`, the base first. One seed has no seed effect: its truth is that run's own."""
    alpha_S = SEED_SD * rng.standard_normal(num_seeds) if num_seeds > 1 else np.zeros(1)
    shape = (num_seeds, len(distance_C), num_prompts)
    mean_SC = truth(distance_C) + alpha_S[:, None] * distance_C
    prompt_P = 1 + 0.5 * rng.standard_normal(num_prompts)
    gold = mean_SC[..., None] * prompt_P + rng.standard_normal(shape)
    nats = (distance_C**2)[:, None] * (1 + 0.2 * rng.standard_normal((num_seeds, 1, num_prompts)))
    nats = nats + distance_C[:, None] * rng.standard_normal(shape)
    base = np.zeros((num_seeds, 1, num_prompts))
    return np.concatenate([base, gold], axis=1), np.concatenate([base, nats], axis=1)


def runs(truth: Truth, farthest: float, num_points: int, num_prompts: int, num_seeds: int, num_runs: int = NUM_RUNS):
    distance_C = np.linspace(farthest / num_points, farthest, num_points)
    for number in range(num_runs):
        rng = np.random.default_rng(number)
        gold, nats = simulate(rng, truth, distance_C, num_prompts, num_seeds)
        yield gold, nats, Resamples.draw(rng, num_prompts, num_seeds, NUM_RESAMPLES)


def peak_coverage(*design: int) -> tuple[float, float, float]:
    """Share of intervals with the true peak, share of "turnover", median estimate."""
    found = []
    for gold, nats, resamples in runs(gao, 7.0, *design):
        fit = fit_curve(gold, nats, resamples, LAW_RULES)
        low, high = peak_interval(float(peak(fit.coefficients_2)), peak(fit.coefficients_B2), len(gold))
        law = scaling_law.scaling_law(gold, nats, resamples, LAW_RULES)
        found.append((low <= PEAK <= high, law.peak is not None, float(peak(fit.coefficients_2))))
    inside, turnover, place = zip(*found, strict=True)
    return float(np.mean(inside)), float(np.mean(turnover)), float(np.median(place))


def turnover_share(truth: Truth, farthest: float, *design: int, num_runs: int = NUM_RUNS) -> float:
    laws = (scaling_law.scaling_law(*run, LAW_RULES) for run in runs(truth, farthest, *design, num_runs=num_runs))
    return float(np.mean([law.peak is not None for law in laws]))


def true_switch(truth: Truth, num_points: int) -> float:
    distance_C = np.linspace(7.0 / num_points, 7.0, num_points)
    gold = np.r_[0.0, truth(distance_C)][None, None]
    known = switch_point.changes(gold, np.zeros(gold.shape), np.linspace(0, 1, num_points + 1), np.ones((1, 1)))
    weights = Weights.of(SWITCH_RULES)
    return float(switch_point.switch_points(switch_point.utility(known, weights), np.zeros(num_points))[0])


def switch_coverage(truth: Truth, *design: int, num_runs: int = NUM_RUNS) -> tuple[float, float, dict[str, float]]:
    """Share of intervals with the true switch point, the share of these in runs with a yes, share of each reply."""
    place, inside, replies = true_switch(truth, design[0]), [], []
    for gold, nats, resamples in runs(truth, 7.0, *design, num_runs=num_runs):
        cost_C = np.linspace(0, 1, design[0] + 1)
        changes = switch_point.marginal_changes(gold, nats, np.zeros(gold.shape), cost_C, resamples, LAW_RULES)
        found = switch_point.decide(*changes[:2], NEVER, SWITCH_RULES)
        low, high = (switch_point.order_statistic(found.points_B, quantile) for quantile in (0.1, 0.9))
        inside.append(low <= place <= high)
        replies.append(found.reply)
    claimed = [hit for hit, reply in zip(inside, replies, strict=True) if reply == "yes"]
    shares = {name: replies.count(name) / len(replies) for name in sorted(set(replies))}
    return float(np.mean(inside)), float(np.mean(claimed)) if claimed else float("nan"), shares


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "coverage", "turnover"),
    [
        ((12, 200, 1), 0.92, 0.5),
        ((6, 64, 1), 0.90, 0.1),
        ((4, 64, 1), 0.88, 0.1),
        ((12, 200, 3), 0.88, 0.5),
        ((6, 200, 3), 0.88, 0.3),
        ((10, 512, 5), 0.88, 0.8),
    ],
)
def test_interval_of_the_peak_covers_as_published(design, coverage, turnover):
    inside, confirmed, median = peak_coverage(*design)
    print(f"\n| {' x '.join(map(str, design))} | {100 * inside:.0f} % | {100 * confirmed:.0f} % | {median:.2f} |")
    assert inside >= coverage
    assert confirmed >= turnover
    assert median == pytest.approx(PEAK, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "farthest", "most"),
    [(rises, 7.0, 0.0), (nothing, 7.0, 0.02), (gao, 3.0, 0.01), (gao, 4.0, 0.02), (levels_off, 7.0, 0.03)],
)
@pytest.mark.parametrize("design", [(12, 200, 3), (4, 64, 1)], ids=str)
def test_turnover_is_not_claimed_where_there_is_none(truth, farthest, most, design):
    share = turnover_share(truth, farthest, *design)
    print(f"\n| {truth.__name__} up to {farthest:g}, {' x '.join(map(str, design))} | {100 * share:.1f} % |")
    assert share <= most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "design", "least"),
    [
        (turns_down, (4, 32, 1), 0.90),
        (turns_down, (10, 100, 3), 0.90),
        (turns_down, (10, 256, 5), 0.90),
        (gao, (4, 32, 1), 0.75),
        (gao, (10, 100, 1), 0.72),
        (gao, (10, 100, 3), 0.76),
        (gao, (10, 256, 5), 0.88),
        (rises, (4, 32, 1), 0.95),
        (rises, (10, 100, 3), 0.95),
        (nothing, (10, 100, 1), 0.55),
        (stops_rising, (10, 100, 3), 0.0),
        (stops_rising, (10, 256, 1), 0.0),
    ],
)
def test_interval_of_the_switch_point_covers_as_published(truth, design, least):
    inside, claimed, replies = switch_coverage(truth, *design)
    words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in replies.items())
    shown = "–" if np.isnan(claimed) else f"{100 * claimed:.0f} %"
    print(f"\n| {truth.__name__} | {' x '.join(map(str, design))} | {100 * inside:.0f} % | {shown} | {words} |")
    assert inside >= least
    if truth is rises:
        assert replies.get("yes", 0) == 0


# ------------------------------------------------------------------------------------------- the same in seconds
def test_peak_is_found_and_turnover_claimed_past_it_only():
    past = [scaling_law.scaling_law(*run, LAW_RULES) for run in runs(gao, 7.0, 12, 200, 3, num_runs=10)]
    assert np.mean([law.peak is not None for law in past]) >= 0.5
    for law in past:
        assert law.peak is None or law.peak.low <= law.peak.value <= law.peak.high < 7.2
    fits = [fit_curve(*run, LAW_RULES) for run in runs(gao, 7.0, 12, 200, 3, num_runs=10)]
    assert np.median([peak(fit.coefficients_2) for fit in fits]) == pytest.approx(PEAK, abs=0.3)
    assert turnover_share(gao, 4.0, 12, 200, 3, num_runs=10) == 0
    assert turnover_share(rises, 7.0, 12, 200, 3, num_runs=10) == 0


def test_switch_point_is_found_where_gold_turns_down_and_never_where_it_rises():
    inside, _, replies = switch_coverage(turns_down, 10, 256, 1, num_runs=10)
    assert inside >= 0.9
    assert replies == {"yes": 1.0}
    assert switch_coverage(rises, 10, 256, 1, num_runs=10)[2] == {"no": 1.0}
