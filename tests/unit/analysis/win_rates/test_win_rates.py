from __future__ import annotations

import numpy as np
import pytest

from analysis import scores
from analysis import win_rates as win_rate
from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.statistics.bootstrap import NUM_RESAMPLES, Estimate, Resamples, holm, judged_mean, simultaneous
from experiments.rules import WinRateRules


def test_win_rate_by_hand_with_ties():
    ours = np.array([[[0.9, 0.5], [0.2, 0.4], [0.7, 0.7]]])  # one seed, three prompts, two samples
    theirs = np.array([[[0.1, 0.5], [0.3, 0.6], [0.7, 0.1]]])
    # per prompt: (1 + 1/2) / 2 = 0.75; 0; (1/2 + 1) / 2 = 0.75
    rate, _ = judged_mean(100 * win_rate.pair_scores(ours, theirs), Resamples.draw(np.random.default_rng(0), 3, 1))
    assert rate.value == pytest.approx(50.0)
    assert rate.n == 3
    assert rate.unit == "percent"


def test_twin_of_the_base_is_even(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), twin=True)})
    rate = win_rate.compare(ledger, "ppo", "base", "gold", resamples_for(ledger))
    assert rate.estimate.value == 50.0
    assert rate.estimate.low <= 50 <= rate.estimate.high
    assert rate.ties.value == 100.0
    assert rate.sign_test == 1.0


def test_arm_without_gain_has_an_interval_around_even(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,))}, num_prompts=60)
    rate = win_rate.compare(ledger, "ppo", "base", "gold", resamples_for(ledger)).estimate
    assert rate.low < 50 < rate.high
    assert 5 < rate.high - rate.low < 40


def test_better_arm_wins_and_its_gold_difference_excludes_zero(make_ledger, resamples_for):
    ledger = make_ledger(num_prompts=60)
    resamples = resamples_for(ledger)
    assert win_rate.compare(ledger, "ppo", "base", "gold", resamples).estimate.low > 50
    difference = scores.measure_difference(ledger, "ppo", resamples)
    assert difference.excludes(0)
    assert difference.value == pytest.approx(20, abs=5)


def test_contests_are_each_arm_with_the_base_and_ppo_with_dpo_and_rates_mirror(make_ledger, resamples_for):
    ledger = make_ledger(num_prompts=40)
    resamples = resamples_for(ledger)
    assert [contest[:2] for contest in ledger.contests] == [("ppo", "base"), ("dpo", "base"), ("ppo", "dpo")]
    pair = win_rate.compare(ledger, "ppo", "dpo", "gold", resamples)
    reverse = win_rate.compare(ledger, "dpo", "ppo", "gold", resamples)
    assert pair.estimate.value + reverse.estimate.value == pytest.approx(100)
    assert pair.estimate.low == pytest.approx(100 - reverse.estimate.high)


def test_judge_without_scores_gives_no_rate(make_ledger, resamples_for, synthetic):
    no_proxy = synthetic.Arm("ppo", (0.1,), edit=lambda rows: rows.assign(**{"score/proxy": float("nan")}))
    ledger = make_ledger({"ppo": no_proxy})
    assert win_rate.compare(ledger, "ppo", "base", "proxy", resamples_for(ledger)) is None


def test_only_common_seeds_are_compared(make_sweep, resamples_for):
    sweep = make_sweep(seeds=(0, 1, 2))
    sweep.edit("dpo/seed1/status.json", state="failed")
    ledger = load_ledger(sweep.folder)
    pair = win_rate.compare(ledger, "ppo", "dpo", "gold", resamples_for(ledger))
    assert pair.seeds == (0, 2)
    assert pair.estimate.num_seeds == 2


RULES = WinRateRules(
    primary_judge="gold",
    primary_comparisons=("arm_against_base", "plain_against_plain"),
    significance_level=0.05,
    max_missing_percent=5,
    max_intransitivity_points=5,
)


def rate(judge="gold", low=55.0, high=65.0, adjusted_p=0.01, **changes):
    estimate = Estimate((low + high) / 2, low, high, (high - low) / 3.92, "percent", 100)
    fields = {"p": 0.01, "sign_test": 0.01, "seeds": (0,), "num_pairs": 100, "num_missing": 0, "adjusted_p": adjusted_p}
    independence = "IS THE TRAINING REWARD" if judge == "proxy" else "INDEPENDENT"
    return win_rate.WinRate("ppo", "dpo", judge, independence, estimate, estimate, **{**fields, **changes})


@pytest.mark.parametrize(
    ("given", "ahead"),
    [
        (rate(), "ppo"),
        (rate(low=35, high=45), "dpo"),
        (rate(adjusted_p=0.06), None),  # clear by itself, not among so many
        (rate(adjusted_p=0.03), "ppo"),
        (rate(adjusted_p=0.03, significance_level=0.02), None),
        (rate(low=49, high=61, adjusted_p=0.04), None),
        (rate(adjusted_p=None), None),  # descriptive
        (rate(blocked="6 of 100 preferences are missing"), None),
    ],
)
def test_only_a_corrected_difference_may_be_called_one(given, ahead):
    assert win_rate.shown_ahead(given) == ahead


def test_training_reward_gives_no_verdict_whatever_it_says():
    with pytest.raises(win_rate.VerdictError, match="proxy is the training reward"):
        win_rate.shown_ahead(rate("proxy", low=99, high=100, adjusted_p=1e-9))


@pytest.mark.parametrize(
    ("judge", "message"), [("proxy", "is the training reward"), ("nobody", "there are gold, vader")]
)
def test_rules_that_let_such_a_judge_decide_are_refused(make_sweep, resamples_for, synthetic, judge, message):
    sweep = make_sweep()
    rules = {**synthetic.RULES, "win_rate": {**synthetic.RULES["win_rate"], "primary_judge": judge}}
    sweep.edit("plan.json", rules=rules)
    ledger = load_ledger(sweep.folder)
    with pytest.raises(LedgerError, match=message):
        win_rate.compare_all(ledger, resamples_for(ledger))


def test_more_than_five_percent_missing_block_the_judge_and_are_counted():
    assert win_rate.why_blocked(rate(num_missing=5), RULES) is None
    blocked = win_rate.why_blocked(rate(num_missing=6), RULES)
    assert blocked == "6 of 100 preferences are missing (6.0 %; at most 5 % may be)"


def test_missing_preferences_are_left_out_of_mean_and_counted(make_ledger, resamples_for, monkeypatch):
    ledger = make_ledger()
    scores = np.full((1, 12, 2), 1.0)
    scores[0, 0] = np.nan  # one prompt without any
    scores[0, 1] = [0.0, np.nan]  # one with half of them
    monkeypatch.setattr(win_rate, "preferences", lambda *_: scores)
    found = win_rate.compare(ledger, "ppo", "base", "gold", resamples_for(ledger))
    assert found.estimate.value == pytest.approx(100 * 10 / 11)
    assert (found.num_missing, found.num_pairs) == (3, 24)
    assert found.sign_test == pytest.approx(2 * 12 / 2**11)  # one of eleven prompts is lost: 2 (1 + 11) / 2^11


def test_primary_comparisons_are_corrected_together_and_others_are_descriptive(make_ledger, resamples_for, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.3,)), "dpo": synthetic.Arm("dpo", (0.0,))}
    ledger = make_ledger(arms, num_prompts=60)
    found = win_rate.compare_all(ledger, resamples_for(ledger))
    assert len(found) == 9
    gold = {key[:2]: item for key, item in found.items() if key[2] == "gold"}
    assert gold["ppo", "base"].p == pytest.approx(2 / 401)
    assert gold["ppo", "base"].adjusted_p == pytest.approx(3 * 2 / 401)
    level = synthetic.RULES["win_rate"]["significance_level"]
    assert {item.wider for item in gold.values()} == {simultaneous(3, level)}
    assert {item.wider for key, item in found.items() if key[2] != "gold"} == {1.0}
    assert win_rate.shown_ahead(gold["ppo", "base"]) == "ppo"
    assert win_rate.shown_ahead(gold["dpo", "base"]) is None
    assert all(item.adjusted_p is None for key, item in found.items() if key[2] != "gold")
    assert {key[2] for key, item in found.items() if item.blocked} == {"proxy"}


def test_the_smallest_p_stands_the_correction_however_many_arms_there_are(make_ledger, synthetic):
    arms = {f"{name}_{at}": synthetic.Arm(name, (0.0,)) for name in ("ppo", "dpo") for at in range(4)}
    ledger = make_ledger(arms, num_prompts=4)
    level, num_primary = synthetic.RULES["win_rate"]["significance_level"], 8 + 4 * 4
    count = win_rate.num_resamples(ledger)
    assert holm(num_primary * [2 / (NUM_RESAMPLES + 1)])[0] > level  # so nobody could have been ahead
    assert holm(num_primary * [2 / (count + 1)])[0] <= level


def test_a_few_arms_need_no_more_resamples_than_anything_else(make_ledger):
    assert win_rate.num_resamples(make_ledger()) == NUM_RESAMPLES


def test_declaring_fewer_comparisons_corrects_for_fewer(make_sweep, resamples_for, synthetic):
    sweep = make_sweep()
    narrow = {**synthetic.RULES["win_rate"], "primary_comparisons": ["plain_against_plain"]}
    sweep.edit("plan.json", rules={**synthetic.RULES, "win_rate": narrow})
    ledger = load_ledger(sweep.folder)
    found = win_rate.compare_all(ledger, resamples_for(ledger))
    assert [key for key, item in found.items() if item.adjusted_p is not None] == [("ppo", "dpo", "gold")]
    assert found["ppo", "dpo", "gold"].adjusted_p == found["ppo", "dpo", "gold"].p


def test_mcnemar_by_hand():
    """Ten prompts, one response each: six are cut only with us, one only with the base. p = 2 (1 + 7) / 2^7."""
    ours = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0, 0], dtype=bool).reshape(1, 10, 1)
    base = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 0], dtype=bool).reshape(1, 10, 1)
    found = win_rate.outcome_change("cut", ours, base, Resamples.draw(np.random.default_rng(0), 10, 1))
    assert (found.num_more, found.num_less) == (6, 1)
    assert found.p == pytest.approx(16 / 128)
    assert (found.ours.value, found.base.value, found.difference.value) == pytest.approx((70, 20, 50))


def test_outcomes_of_a_ledger(make_ledger, resamples_for, synthetic):
    def cut_and_empty(rows):
        return rows.assign(finish_reason="length", response=["  \n"] * (len(rows) - 2) + ["a", "b"])

    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.1,), edit=cut_and_empty)})
    cut, empty = win_rate.outcome_changes(ledger, "ppo", resamples_for(ledger))
    assert cut.ours.value == 100.0
    assert empty.ours.value == pytest.approx(100 * 11 / 12)
    assert empty.base.value == 0
    assert (empty.num_more, empty.num_less) == (11, 0)
