from __future__ import annotations

import numpy as np
import pytest

from analysis import scores, stability
from analysis.stability import over_time, tolerance
from analysis.statistics.bootstrap import Estimate, Resamples
from experiments.rules import StabilityRules

RULES = StabilityRules(
    max_drawdown=0.25, yes_probability=0.9, no_probability=0.5, tail_share=0.2, worst_response_share=0.1,
    min_kept_by_selection=0.8, seed_looks=(3, 5, 8),
)  # fmt: skip


def drawdown(value: float, low: float, high: float, num_seeds: int = 1) -> Estimate:
    return Estimate(value, low, high, 0.1, "base SD", 100, num_seeds)


@pytest.mark.parametrize(
    ("probability", "low", "reply"),
    [
        (0.9, 0.0, "yes"),
        (0.89, 0.0, "inconclusive"),
        (0.5, 0.1, "no"),
        (0.51, 0.1, "inconclusive"),
        (0.2, 0.0, "inconclusive"),
    ],
)
def test_reply_by_the_registered_rule_and_no_only_where_a_drop_is_shown(probability, low, reply):
    assert tolerance.reply(probability, drawdown(0.3, low, 0.6), RULES) == reply


def test_noisy_twins_are_never_refused():
    """The base against itself on few prompts: without the rule about a shown drop, noise would say no."""
    rng, replies, naive = np.random.default_rng(0), [], []
    for _ in range(60):
        curve = 3 + rng.standard_normal(40) + 1.2 * rng.standard_normal((1, 8, 40))
        resamples = Resamples.draw(rng, 40, 1, 300)
        found = over_time.spread_over_time(curve, resamples, 0.2)
        probability = tolerance.probability_within(found.drawdown_draws, RULES.max_drawdown)
        replies.append(tolerance.reply(probability, found.drawdown, RULES))
        naive.append(np.mean(over_time.drawdown(resamples.prompts @ curve[0].T) <= RULES.max_drawdown) <= 0.5)
    assert np.mean(naive) > 0.5
    assert replies.count("no") <= 3


def test_selection_is_judged_on_prompts_that_did_not_choose():
    curve = np.zeros((1, 4, 20))
    curve[0, :, :10] = np.array([0, 3, 1, 1])[:, None]  # the choosing half likes point 1
    curve[0, :, 10:] = np.array([0, 1, 2, 0.5])[:, None]  # the judging half peaks at point 2
    resamples = Resamples.draw(np.random.default_rng(0), 20, 1, 100)
    found = tolerance.select(curve, (list(range(10)), list(range(10, 20))), resamples)
    assert found.points == (1,)
    assert found.regret_of_last.value == 0.5
    assert found.kept.value == 50


def test_selection_without_a_gain_keeps_nothing_to_speak_of():
    curve = 1 + np.random.default_rng(0).standard_normal((1, 4, 20)) * 0.5
    curve[0, 0] += 2
    resamples = Resamples.draw(np.random.default_rng(0), 20, 1, 100)
    assert tolerance.select(curve, (list(range(10)), list(range(10, 20))), resamples).kept is None


def test_half_of_the_prompts_has_weights_that_sum_to_one():
    resamples = Resamples(np.array([[0.5, 0.5, 0, 0], [0, 0.25, 0.25, 0.5]]), {}, np.zeros((2, 4)))
    half = resamples.of_prompts([2, 3])
    assert half.prompts.tolist() == [[0.5, 0.5], [pytest.approx(1 / 3), pytest.approx(2 / 3)]]


def test_share_of_variance_between_seeds_by_hand():
    assert tolerance.seed_share(np.array([1.0, 2.0, 3.0]), 0.25) == pytest.approx(0.75)
    assert tolerance.seed_share(np.array([1.0, 1.0, 1.0]), 0.25) == 0
    assert tolerance.seed_share(np.array([1.0, 1.0]), 0.0) == 0


def over(
    value: float, low: float, high: float, per_seed: tuple[float, ...], variance: float
) -> over_time.ResampledOverTime:
    number = drawdown(value, low, high, len(per_seed))
    return over_time.ResampledOverTime(
        drawdown=number,
        observed_drawdown=over_time.Measured(0.0, "base SD"),
        drawdown_tail=number,
        num_tail_points=1,
        under_water=number,
        final_over_peak=number,
        worst_step=number,
        num_tail_steps=1,
        step_spread=None,
        drawdown_draws=np.array([value]),
        drawdown_per_seed=per_seed,
        prompt_variance=variance,
    )


def test_inconclusive_says_how_many_prompts_or_seeds():
    # 100 prompts, half-width 0.2, distance 0.1: four times as many
    prompts = tolerance.what_would_settle(over(0.15, 0.0, 0.35, (0.15,), 0.01), RULES)
    assert prompts.startswith("About 400 evaluation prompts instead of 100, for these runs; to speak of the method, 3")
    close = tolerance.what_would_settle(over(0.249, 0.0, 0.5, (0.249,), 0.01), RULES)
    assert close.startswith("More than 20 times the 100")
    spread = (0.0, 0.1, 0.35)
    seeds = tolerance.what_would_settle(over(0.15, 0.0, 0.27, spread, 0.001), RULES)
    assert seeds == "5 seeds instead of 3: the runs differ more than the prompts leave open."
    many = tolerance.what_would_settle(over(0.15, 0.0, 0.35, spread, 0.001), RULES)
    assert many == "5 seeds are the next look, but about 12 seeds would be needed: the runs differ more than the " \
                   "prompts leave open."  # fmt: skip


def test_algorithm_depends_on_its_variants(make_ledger, resamples_for, synthetic):
    arms = {
        "ppo": synthetic.Arm("ppo", (0.2, 0.3, 0.0)),
        "ppo_tight": synthetic.Arm("ppo", (0.1, 0.2, 0.3)),
        "dpo": synthetic.Arm("dpo", (0.1, 0.2, 0.3)),
    }
    ledger = make_ledger(arms, num_prompts=60)
    resamples = resamples_for(ledger)
    found = {arm: stability.stability_of(ledger, arm, resamples) for arm in ledger.arms}
    answers = stability.together(ledger, found, resamples).algorithms
    assert answers["ppo"].reply == "inconclusive"
    assert answers["ppo"].sentence == "It depends on the variant: yes for ppo_tight; no for ppo."
    assert answers["dpo"].reply == "yes"
    assert len(answers["ppo"].evidence) == 2


def test_refused_arm_is_offered_its_best_checkpoint(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.2, 0.3, 0.0))}, num_prompts=60)
    answer = stability.stability_of(ledger, "ppo", resamples_for(ledger)).tolerance.answer
    assert answer.reply == "no"
    assert "keeping the best checkpoint instead of the last" in answer.sentence
    assert "speaks of these runs" in answer.sentence


def test_wider_tolerance_tolerates_more(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.2, 0.3, 0.0))}, num_prompts=60)
    resamples = resamples_for(ledger)
    curve = ledger.curve("ppo", "score/gold") / scores.base_sd(ledger)
    found = over_time.spread_over_time(curve, resamples, 0.2)
    halves = (list(range(30)), list(range(30, 60)))
    wide = RULES.model_copy(update={"max_drawdown": 10.0})
    assert tolerance.judge("ppo", curve, found, halves, resamples, wide).answer.reply == "yes"
