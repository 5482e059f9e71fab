from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from analysis.statistics import controlled_win_rate as controlled
from analysis.statistics.bootstrap import multinomial_weights
from analysis.statistics.controlled_win_rate import HELD, Design, Prior, controlled_win_rate

NOTHING = np.empty(0)


def lengths(rng: np.random.Generator, num_rows: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Characters of two sides that answer the same prompts: related, ours `ratio` times as long in the median."""
    theirs = np.exp(rng.normal(7, 0.7, num_rows))
    return ratio * theirs * np.exp(rng.normal(0, 0.5, num_rows)), theirs


def rates(score, ours, theirs, covariate=NOTHING, num_resamples=100, seed=0):
    rng = np.random.default_rng(seed)
    weights = multinomial_weights(rng, len(score), num_resamples)
    return controlled_win_rate(
        score, np.arange(len(score)), (ours - theirs)[:, None], covariate.reshape(len(score), -1), weights, rng
    )


@pytest.fixture
def small_design() -> Design:
    """Forty rows of sixteen prompts with fractional scores, one style feature and one covariate."""
    rng = np.random.default_rng(1)
    x = controlled.design_matrix(rng.normal(1, 2, (40, 1)), rng.normal(5, 3, (40, 1)))
    return Design(x, expit(x @ [0.3, 1.5, -1.0] + rng.normal(size=40)), np.sort(np.arange(40) % 16), 1)


def same_penalty(penalty_B) -> np.ndarray:
    """The same λ for φ and ψ, `[B, K]`."""
    return np.stack([[controlled.INTERCEPT_PENALTY, penalty, penalty] for penalty in penalty_B])


def slow_fit(design: Design, weight_N: np.ndarray, penalty: float, centre: float) -> np.ndarray:
    """The objective of `fit`, term by term, handed to a general optimiser."""

    def objective(beta):
        loss = 0.0
        for row, score, weight in zip(design.x_NK, design.score_N, weight_N, strict=True):
            p = 1 / (1 + np.exp(-sum(row * beta)))
            loss -= weight * (score * np.log(p) + (1 - score) * np.log(1 - p))
        theta, phi, psi = beta
        return loss + penalty / 2 * ((phi - centre) ** 2 + psi**2) + controlled.INTERCEPT_PENALTY / 2 * theta**2

    return minimize(objective, np.zeros(3), method="BFGS").x


def test_fit_agrees_with_a_general_optimiser(small_design):
    rng = np.random.default_rng(2)
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=2).astype(float)
    penalties, centres = np.array([0.5, 8.0]), np.array([[0.0], [0.7]])
    fast = controlled.fit(small_design, weights, same_penalty(penalties), centres)
    for beta, weight, penalty, centre in zip(fast, weights, penalties, centres[:, 0], strict=True):
        assert beta == pytest.approx(slow_fit(small_design, weight, penalty, centre), abs=2e-4)


def test_fit_that_does_not_settle_is_an_error(small_design, monkeypatch):
    monkeypatch.setattr(controlled, "MAX_ITERATIONS", 2)
    with pytest.raises(ArithmeticError, match="did not settle"):
        controlled.fit(small_design, np.ones((1, 40)), same_penalty([1.0]), np.zeros(1))


def test_weights_are_repeated_rows(small_design):
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40))
    repeated = np.repeat(np.arange(40), counts)
    spelled_out = Design(small_design.x_NK[repeated], small_design.score_N[repeated], np.arange(40), 1)
    once = controlled.fit(small_design, counts[None].astype(float), same_penalty([2.0]), np.zeros(1))
    assert once == pytest.approx(controlled.fit(spelled_out, np.ones((1, 40)), same_penalty([2.0]), np.zeros(1)))


def test_held_coefficient_stays_and_the_others_make_the_best_of_it(small_design):
    """By a general optimiser over what is left, with φ put at 0.4."""
    penalty = np.array([[controlled.INTERCEPT_PENALTY, HELD, 2.0]])
    (held,) = controlled.fit(small_design, np.ones((1, 40)), penalty, np.array([[0.4]]))

    def objective(rest):
        logit = small_design.x_NK @ [rest[0], 0.4, rest[1]]
        loss = np.sum(np.logaddexp(0, logit) - small_design.score_N * logit)
        return loss + controlled.INTERCEPT_PENALTY / 2 * rest[0] ** 2 + rest[1] ** 2

    assert held[1] == pytest.approx(0.4, abs=1e-6)
    assert held[[0, 2]] == pytest.approx(minimize(objective, np.zeros(2), method="BFGS").x, abs=2e-4)


@pytest.mark.parametrize(("max_effect", "is_held"), [(0.5, True), (9.0, False)])
def test_effect_is_held_only_beyond_the_largest_one(small_design, max_effect, is_held):
    prior = Prior(0.1, 0.1, max_effect)
    free = controlled.fit(small_design, np.ones((1, 40)), same_penalty([0.1]), np.zeros(1))
    held = controlled.hold(small_design, free, prior)
    assert 0.5 < free[0, 1] < 9
    assert held[0, 1] == pytest.approx(min(free[0, 1], max_effect), abs=1e-6)
    assert np.array_equal(free, held) is not is_held


def test_style_is_scaled_but_never_centred_and_covariates_are_both():
    x = controlled.design_matrix(np.array([[1.0], [3.0]]), np.array([[10.0], [30.0]]))  # SDs are 1 and 10
    assert x == pytest.approx(np.array([[1, np.tanh(1), -0.5], [1, np.tanh(3), 0.5]]))
    assert controlled.design_matrix(np.zeros((2, 1)), np.ones((2, 1))) == pytest.approx(np.array([[1, 0, 0]] * 2))


def test_rate_at_parity_by_hand():
    """θ = 0 and ψ = ln 3 on covariates of ±1: the mean of σ(ln 3) = 3/4 and σ(−ln 3) = 1/4; φ plays no part."""
    design = Design(np.array([[1.0, 9.0, 1.0], [1.0, 9.0, -1.0]]), np.zeros(2), np.arange(2), 1)
    beta = np.array([[0.0, 5.0, np.log(3)]])
    assert controlled.parity_rate(design, beta, np.ones((1, 2))) == pytest.approx(0.5)
    assert controlled.parity_rate(design, beta, np.array([[2.0, 0.0]])) == pytest.approx(0.75)
    one_stays = expit([9 + np.log(3), 9 - np.log(3)]).mean()
    assert controlled.parity_rate(design, beta, np.ones((1, 2)), max_effect=4.0) == pytest.approx(one_stays)


def test_side_against_itself_is_exactly_even():
    same = np.exp(np.random.default_rng(0).normal(7, 1, 60))
    result = rates(np.full(60, 0.5), same, same, np.log(same))
    for estimate in (result.raw, result.controlled):
        assert (estimate.low, estimate.value, estimate.high) == (50, 50, 50)
    assert result.style_premium.value == 0
    assert result.identified


@pytest.mark.parametrize("ratio", [0.6, 1.6])
def test_length_alone_brings_less_than_half_after_control(ratio):
    """A judge that sees nothing but length, and sides that differ in nothing else: the truth is 50 %."""
    gaps = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ours, theirs = lengths(rng, 800, ratio)
        score = (rng.random(800) < expit(1.5 * np.log(ours / theirs))).astype(float)
        result = rates(score, ours, theirs, np.log(theirs))
        assert result.identified
        gaps.append((abs(result.raw.value - 50), abs(result.controlled.value - 50)))
    raw, after = np.mean(gaps, axis=0)
    assert raw > 12
    assert after < raw / 2


def test_swapping_the_sides_mirrors_the_rates():
    rng = np.random.default_rng(4)
    ours, theirs = lengths(rng, 200, 1.3)
    score = rng.random(200)
    forward, backward = rates(score, ours, theirs), rates(1 - score, theirs, ours)
    assert forward.controlled.value + backward.controlled.value == pytest.approx(100)
    assert forward.style_premium.value == pytest.approx(-backward.style_premium.value)


def test_covariate_takes_the_blame_that_length_would_get():
    """We are weaker on hard prompts and shorter there; the judge does not look at length at all."""
    errors = {"with": [], "without": []}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(size=600)
        theirs, ours = np.exp(7 + 0.7 * difficulty), np.exp(6.6 + 0.4 * difficulty + rng.normal(0, 0.3, 600))
        chance = expit(-1.5 - 1.2 * difficulty)
        score = (rng.random(600) < chance).astype(float)
        for name, covariate in (("with", difficulty), ("without", NOTHING)):
            value = rates(score, ours, theirs, covariate, num_resamples=2).controlled.value
            errors[name].append(abs(value - 100 * chance.mean()))
    assert np.mean(errors["with"]) < 0.6 * np.mean(errors["without"])


@pytest.mark.parametrize(
    ("differences", "identified"),
    [
        (np.linspace(-3, 3, 101), True),
        (np.linspace(2, 3, 101), False),  # nowhere near parity
        (np.r_[np.full(60, 0.1), np.linspace(0.2, 9, 41)], False),  # near it, but always longer
        (np.zeros(101), True),
    ],
)
def test_identified_needs_rows_near_parity_and_on_both_sides_of_it(differences, identified):
    assert controlled.is_identified(differences[:, None]) is identified


def who_knows(ratio: float, seed: int, num_rows: int = 800) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A model that writes longer where it knows the answer: scores, lengths, and the true rate at equal length.

    The judge cares about length, and half as much again goes with it because such answers are better.
    """
    rng = np.random.default_rng(seed)
    theirs, more = np.exp(rng.normal(7.3, 0.7, num_rows)), rng.normal(size=num_rows)
    ours = ratio * theirs * np.exp(0.6 * more)
    difference, better = ours - theirs, -1.5 + 0.7 * more
    score = rng.random(num_rows) < expit(better + 1.4 * np.tanh(difference / difference.std()))
    return score.astype(float), ours, theirs, 100 * float(expit(better).mean())


@pytest.mark.parametrize("ratio", [0.5, 0.35])
def test_model_that_is_brief_where_it_is_ignorant_does_not_win_by_brevity(ratio):
    """With its whole deficit laid on length, the rate was 9 and 15 points above the truth, and every interval too."""
    errors, covered, held = [], 0, 0
    for seed in range(6):
        score, ours, theirs, truth = who_knows(ratio, seed)
        result = rates(score, ours, theirs, np.log(theirs))
        errors.append(result.controlled.value - truth)
        covered += result.controlled.low <= truth <= result.controlled.high
        held += result.held
    assert abs(np.mean(errors)) < 6
    assert covered >= 4
    assert held >= 5


def test_interval_spans_both_extremes_of_an_effect_that_was_held():
    score, ours, theirs, _ = who_knows(0.5, 0)
    weights = multinomial_weights(np.random.default_rng(0), 800, 200)
    fitted = controlled.refit(
        score, np.arange(800), (ours - theirs)[:, None], np.log(theirs)[:, None], weights, np.random.default_rng(0)
    )
    result = rates(score, ours, theirs, np.log(theirs), num_resamples=200).controlled
    assert fitted.held
    assert 100 * fitted.cautious_B.mean() < result.value < 100 * fitted.controlled_B.mean() - 3
    assert result.low < np.percentile(100 * fitted.cautious_B, 10)
    assert result.high > np.percentile(100 * fitted.controlled_B, 90)


def test_interval_is_the_plain_one_where_no_effect_is_held():
    rng = np.random.default_rng(3)
    ours, theirs = lengths(rng, 800, 1.0)
    difference = ours - theirs
    score = (rng.random(800) < expit(0.7 * np.tanh(difference / difference.std()))).astype(float)
    weights = multinomial_weights(np.random.default_rng(0), 800, 200)
    fitted = controlled.refit(
        score, np.arange(800), difference[:, None], np.log(theirs)[:, None], weights, np.random.default_rng(0)
    )
    assert not fitted.held
    assert np.array_equal(fitted.controlled_B, fitted.cautious_B)


@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("num_rows", [1, 2, 50])
def test_all_won_or_all_lost_stays_finite(score, num_rows):
    ours, theirs = lengths(np.random.default_rng(6), num_rows, 1.2)
    result = rates(np.full(num_rows, score), ours, theirs, np.log(theirs))
    assert result.raw.value == 100 * score
    assert np.isfinite([result.controlled.low, result.controlled.value, result.controlled.high]).all()
    assert abs(result.controlled.value - 100 * score) < 10


def test_chunks_do_not_change_the_numbers(monkeypatch):
    rng = np.random.default_rng(7)
    ours, theirs = lengths(rng, 50, 1.2)
    score = rng.random(50)
    at_once = rates(score, ours, theirs)
    monkeypatch.setattr(controlled, "MAX_CELLS", 170)  # three resamples of fifty rows
    in_parts = rates(score, ours, theirs)
    assert in_parts.controlled.value == at_once.controlled.value
    assert (in_parts.controlled.low, in_parts.controlled.high) == pytest.approx(
        (at_once.controlled.low, at_once.controlled.high), abs=1e-6
    )


@pytest.mark.parametrize(("ratio", "effect"), [(1.0, 1.0), (1.3, 1.0), (0.6, 0.5)])
def test_nominal_95_percent_covers_the_truth_about_that_often(ratio, effect):
    """With a length effect, and a difficulty of which the covariate knows half."""
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(80):
        ours, theirs = lengths(rng, 150, ratio)
        covariate = (np.log(theirs) - 7) / 0.7
        logit = -0.5 + 0.3 * covariate + 0.3 * rng.normal(size=150)
        difference = ours - theirs
        score = (rng.random(150) < expit(logit + effect * np.tanh(difference / difference.std()))).astype(float)
        interval = rates(score, ours, theirs, covariate, num_resamples=200, seed=int(rng.integers(2**32))).controlled
        covered += interval.low <= 100 * np.mean(expit(-0.5 + np.sqrt(0.18) * QUANTILES)) <= interval.high
    assert covered / 80 >= 0.88


QUANTILES = np.random.default_rng(9).normal(size=100_000)  # the difficulty's two halves are normal and independent
