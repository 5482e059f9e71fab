from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.signal import savgol_filter

from analysis import scores
from analysis.ledger.load import load_ledger
from analysis.questions import switch_point
from analysis.questions import switch_words as switch_answer
from analysis.questions.switch_point import NEVER, Changes, Weights
from experiments.rules import SwitchRules

RULES = SwitchRules(
    min_num_intervals=4, min_num_prompts=20, drawdown_weight=1.0, diversity_weight=0.1, min_gain_per_tenth=0.02,
    min_probability=0.8, max_interval_share=0.34, tolerated_shift=2,
)  # fmt: skip
PEAKED = (0.1, 0.2, 0.3, 0.22, 0.14, 0.06)
RISING = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def slow_switch(utility, margin):
    """The rule as a person would apply it."""
    for start in range(len(utility) - 1):
        if all(utility[k] < -margin[k] for k in (start, start + 1)):
            return start
    return NEVER


def test_utility_by_hand():
    one = Changes(*(np.array([[value]]) for value in (0.5, 0.2, 1.0, 0.25)))
    assert switch_point.utility(one, Weights(1.0, 0.1, 0.2))[0, 0] == pytest.approx(0.5 - 0.2 - 0.1 - 0.05)


def test_cost_weight_is_ten_tenths():
    assert Weights.of(RULES).cost == pytest.approx(0.2)


def test_switch_points_agree_with_the_rule_applied_slowly():
    rng = np.random.default_rng(0)
    utility, margin = rng.normal(0, 1, (300, 6)), rng.uniform(0, 0.5, 6)
    expected = [slow_switch(row, margin) for row in utility]
    assert switch_point.switch_points(utility, margin) == pytest.approx(np.array(expected))
    assert NEVER in expected


def test_gate_comes_first():
    assert switch_point.switch_points(np.array([[1.0, 1, -1, -1]]), np.zeros(4), gate=1).tolist() == [1.0]
    assert switch_point.switch_points(np.array([[-1.0, -1, 1, 1]]), np.zeros(4), gate=1).tolist() == [0.0]


def test_margin_is_the_bootstrap_probability():
    rng = np.random.default_rng(1)
    draws = rng.normal(-0.5, 1.0, (1000, 1))
    for observed in (-0.2, -0.9):
        moved = draws - draws.mean() + observed
        margin = switch_point.margins(np.array([observed]), moved, 0.8)
        assert (observed < -margin[0]) == (np.mean(moved < 0) > 0.8)


def test_drawdown_so_far_by_hand():
    assert switch_point.drawdown_so_far(np.array([0.0, 2, 1, 1.5, 0.5, 3])).tolist() == [0, 0, 1, 1, 1.5, 1.5]


def test_lines_over_three_keep_a_straight_line_and_the_base():
    assert switch_point.lines_over_three(np.arange(5.0)) == pytest.approx(np.arange(5.0))
    wobbly = np.array([0.0, 3, 0, 3, 0])
    level = switch_point.lines_over_three(wobbly)
    assert level[0] == 0
    assert level[1:] == pytest.approx(savgol_filter(wobbly, 3, 1)[1:])


def test_judge_guards():
    utility = np.zeros(9)
    never, somewhere = np.full(10, NEVER), np.full(10, 4.0)
    assert switch_point.judge(utility, never, True, NEVER, RULES)[0] == "no"
    assert switch_point.judge(utility, never, False, NEVER, RULES)[0] == "inconclusive"
    assert switch_point.judge(utility, somewhere, False, 4.0, RULES)[0] == "yes"
    assert switch_point.judge(utility, somewhere, False, NEVER, RULES)[0] == "inconclusive"
    assert switch_point.judge(utility, np.linspace(0, 8, 10), False, 4.0, RULES)[0] == "inconclusive"


@pytest.fixture
def found(make_ledger, resamples_for, synthetic):
    def run(arm, hacking_points=(), **options):
        ledger = make_ledger({"arm": arm}, **{"num_prompts": 120, **options})
        halves = scores.Halves.draw(ledger, np.random.default_rng(1))
        switch = switch_point.switch_of(ledger, "arm", halves, hacking_points)
        return switch, switch_answer.answer(ledger, "arm", switch)

    return run


def test_peaked_arm_switches_at_its_peak(found, synthetic):
    switch, answer = found(synthetic.Arm("ppo", PEAKED, kl=36.0))
    assert switch.reply == "yes"
    assert switch.best.point in (2, 3, 4)
    assert switch.best.prompts_seen == pytest.approx(512 * switch.best.point / 6, abs=1)
    assert switch.best.device_seconds == pytest.approx(300 * switch.best.point / 6)
    assert switch.later_change.high < 0
    assert switch.later_change.n == 60  # the other half
    assert answer.reply == "yes"
    assert "device-seconds" in answer.sentence


def test_rising_arm_has_not_stopped_paying(found, synthetic):
    switch, answer = found(synthetic.Arm("ppo", RISING, kl=36.0))
    assert switch.reply == "no"
    assert switch.best is None
    assert switch.gain_at_switch is None
    assert answer.reply == "no"
    assert "had not stopped paying by evaluation point 6" in answer.sentence
    assert "run longer" in answer.sentence
    assert answer.in_words == "No switch inside the observed range"
    assert (
        "80 % interval of the switch point: beyond the run; probability of no switch within the run" in answer.sentence
    )


def test_hacking_gates_the_run_before_it(found, synthetic):
    switch, answer = found(synthetic.Arm("ppo", RISING, kl=36.0), hacking_points=(4, 5))
    assert (switch.reply, switch.best.point, switch.gate) == ("yes", 3, 3)
    assert "over-optimisation was found" in answer.sentence


@pytest.mark.parametrize(("gold", "num_prompts"), [(RISING, 20), ((0.1, 0.2), 120)])
def test_few_points_or_prompts_are_not_assessable_and_say_what_would_settle(found, synthetic, gold, num_prompts):
    switch, answer = found(synthetic.Arm("ppo", gold), num_prompts=num_prompts)
    assert (switch.reply, answer.reply) == ("not assessable", "not assessable")
    assert "not assessable" in answer.sentence
    assert "evaluation points" in answer.would_change


def test_dpo_is_descriptive(found, synthetic):
    _, answer = found(synthetic.Arm("dpo", RISING))
    assert "descriptive" in answer.question


def test_twin_of_the_base_never_pays(found, synthetic):
    switch, _ = found(synthetic.Arm("ppo", (0.0,) * 6, twin=True))
    assert switch.best.point == 0  # its device time buys nothing
    assert all(item.measure == 0 for item in switch.intervals)


def test_lost_entropy_counts_as_risk(found, synthetic):
    def sharpen(rows):
        return rows.assign(logp_policy=-0.5 * rows["num_tokens"], logp_base=-0.5 * rows["num_tokens"] - 9)

    switch, _ = found(synthetic.Arm("ppo", RISING, edit=sharpen))
    assert switch.intervals[0].entropy_lost > 1


def test_seeds_without_device_seconds_still_have_a_cost(make_sweep, synthetic):
    sweep = make_sweep({"arm": synthetic.Arm("ppo", RISING)}, num_prompts=60, seeds=(0, 1, 2))
    for path in sweep.folder.rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(json.dumps({k: v for k, v in row.items() if k != "device_seconds"}) + "\n" for row in rows)
        )
    ledger = load_ledger(sweep.folder)
    halves = scores.Halves.draw(ledger, np.random.default_rng(1))
    switch = switch_point.switch_of(ledger, "arm", halves, ())
    assert switch.num_seeds == 3
    assert [item.cost_share for item in switch.intervals] == pytest.approx([1 / 6] * 6)
    assert switch.intervals[0].end.device_seconds is None


def test_a_large_shift_is_said_in_the_sentence(found, synthetic):
    switch, _ = found(synthetic.Arm("ppo", PEAKED, kl=36.0))
    moved = dataclasses.replace(switch, shifts=(("weight of cost doubled", switch.best.point - 3),))
    assert "it moves by 3 points with the weight of cost doubled" in switch_answer.sentence("arm", moved, RULES)
    near = dataclasses.replace(switch, shifts=(("weight of cost doubled", switch.best.point - 1),))
    assert "it moves" not in switch_answer.sentence("arm", near, RULES)
