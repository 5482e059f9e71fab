from __future__ import annotations

import numpy as np

from analysis.stability import behaviour


def test_changed_answers_by_hand():
    one = np.array([[["a", "b"], ["c", "d"]]], dtype=object)
    two = np.array([[["a", "x"], ["c", "d"]]], dtype=object)
    assert behaviour.changed(one, two).tolist() == [[50, 0]]


def test_twin_gives_the_same_answers_and_the_base_against_itself_others(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.0, 0.0), twin=True)})
    found = behaviour.behaviour_of(behaviour.Responses(ledger), "dpo", resamples_for(ledger))
    for change in (found.answers, found.style):
        assert (change.mean_step.high, change.largest_step.high, change.in_all.value) == (0, 0, 0)
    assert found.answers.base_vs_base.value == 100
    assert found.style.base_vs_base.low == 0  # what chance alone moves is taken out
    assert found.style.base_vs_base.high > 0


def test_going_back_and_forth_is_more_in_steps_than_in_all(make_ledger, resamples_for, synthetic):
    steady, back_and_forth = synthetic.Arm("dpo", (0.0,) * 4), synthetic.Arm("ppo", (0.0,) * 4)
    ledger = make_ledger({"dpo": steady, "ppo": back_and_forth}, num_prompts=30)
    odd = (ledger.samples["arm"] == "ppo") & (ledger.samples["point"] % 2 == 1)
    ledger.samples.loc[odd, "response"] = "the same word " * 8
    responses, resamples = behaviour.Responses(ledger), resamples_for(ledger)
    calm, wild = (behaviour.behaviour_of(responses, arm, resamples).style for arm in ("dpo", "ppo"))
    assert wild.mean_step.low > 3 * calm.mean_step.high
    assert wild.in_all.value < 0.3 * wild.mean_step.value
    assert wild.largest_step.value >= wild.mean_step.value


def test_feature_without_spread_in_the_base_is_left_out(make_ledger, resamples_for):
    ledger = make_ledger()
    ledger.samples["num_tokens"] = 24
    found = behaviour.behaviour_of(behaviour.Responses(ledger), "ppo", resamples_for(ledger))
    assert np.isfinite(found.style.mean_step.value)
