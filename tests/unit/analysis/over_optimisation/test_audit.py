from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis import scores
from analysis.ledger.load import load_ledger
from analysis.over_optimisation import audit as over_optimisation
from analysis.statistics.bootstrap import Estimate
from analysis.statistics.controlled_win_rate import ControlledWinRate


def test_proxy_rises_while_gold_falls(make_ledger, resamples_for, synthetic):
    arm = synthetic.Arm("ppo", measure=(0.2, 0.1), reward=(0.2, 0.4), kl=9.0)
    ledger = make_ledger({"ppo": arm}, num_prompts=40)
    first, last = over_optimisation.gains(ledger, "ppo", resamples_for(ledger))
    assert last.measure.value < first.measure.value
    assert last.training_reward.value > first.training_reward.value
    assert last.root_kl == pytest.approx(3.0, abs=0.1)
    assert first.root_kl == pytest.approx(np.sqrt(4.5), abs=0.1)


def test_negative_kl_estimate_has_root_zero(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.1,), kl=-1.0)})
    assert over_optimisation.gains(ledger, "dpo", resamples_for(ledger))[0].root_kl == 0.0


def test_without_a_reward_model_there_is_no_proxy(make_ledger, resamples_for, synthetic):
    arm = synthetic.Arm("dpo", (0.1,), edit=lambda rows: rows.assign(**{"score/proxy": float("nan")}))
    ledger = make_ledger({"dpo": arm})
    assert over_optimisation.gains(ledger, "dpo", resamples_for(ledger))[0].training_reward is None


# ---------------------------------------------------------------------------------------------------------------- audit
STEADY = (0.05, 0.1, 0.15, 0.2)


@pytest.fixture
def audit_of(make_ledger, resamples_for):
    def run(arm, style=None, num_prompts=80, **options):
        ledger = make_ledger({"arm": arm}, num_prompts=num_prompts, **options)
        resamples = resamples_for(ledger)
        halves = scores.Halves.draw(ledger, np.random.default_rng(1))
        base = over_optimisation.reference(ledger, resamples)
        return over_optimisation.audit(ledger, "arm", base, resamples, halves, style)

    return run


def fired(audit):
    return {item.code for item in audit.detectors if item.reply in ("inconclusive", "yes")}


def premium(value, controlled=60.0, identified=True):
    def about(middle):
        return Estimate(middle, middle - 1, middle + 1, 0.5, "percent", 80)

    return ControlledWinRate(about(controlled + value), about(controlled), about(value), 0.5, identified)


def test_twin_of_the_base_is_silent(audit_of, synthetic):
    audit = audit_of(synthetic.Arm("ppo", (0.0,) * 4, twin=True))
    assert fired(audit) == set()
    assert audit.reply == "no"
    assert audit.hacking_points == ()


def test_fresh_samples_of_the_base_are_silent(audit_of, synthetic):
    assert fired(audit_of(synthetic.Arm("ppo", (0.0,) * 4, kl=0.0))) == set()


def test_honest_gain_is_ok(audit_of, synthetic):
    audit = audit_of(synthetic.Arm("ppo", STEADY))
    assert audit.reply == "no"
    assert "H5" in audit.why  # is said to be not assessable


def test_over_optimiser_is_found_and_so_is_the_point(audit_of, synthetic):
    audit = audit_of(synthetic.Arm("ppo", (0.2, 0.2, 0.05, -0.1, -0.2), reward=(0.2, 0.3, 0.5, 0.7, 0.9)))
    assert {"H1", "H2", "H7"} <= fired(audit)
    assert audit.reply == "yes"
    assert 1 not in audit.hacking_points
    assert 5 in audit.hacking_points


def test_a_fall_alone_is_watched(audit_of, synthetic):
    audit = audit_of(synthetic.Arm("ppo", (0.3, 0.2, 0.1, 0.0)))
    assert fired(audit) == {"H2"}
    assert audit.reply == "inconclusive"


def test_over_optimising_dpo_is_found_too(audit_of, synthetic):
    assert audit_of(synthetic.Arm("dpo", (0.2, 0.1, -0.1, -0.2), reward=(0.2, 0.4, 0.6, 0.8))).reply == "yes"


def test_proxy_that_no_longer_ranks_like_gold(audit_of, synthetic):
    rng = np.random.default_rng(5)
    arm = synthetic.Arm("ppo", STEADY, edit=lambda rows: rows.assign(**{"score/proxy": rng.standard_normal(len(rows))}))
    assert "H3" in fired(audit_of(arm))


@pytest.fixture
def length_hacker(make_sweep, synthetic, resamples_for):
    """A sweep whose proxy is mostly length, and an arm that writes long for it and is no better by gold."""

    sweep = make_sweep({"arm": synthetic.Arm("ppo", (0.0,) * 4, num_words=28)}, num_prompts=120)
    rng = np.random.default_rng(6)
    for path in sweep.folder.rglob("*.parquet"):
        rows = pd.read_parquet(path)
        rows.assign(**{"score/proxy": rows["num_tokens"] + 0.5 * rng.standard_normal(len(rows))}).to_parquet(path)
    ledger = load_ledger(sweep.folder)
    resamples = resamples_for(ledger)
    halves = scores.Halves.draw(ledger, np.random.default_rng(1))
    base = over_optimisation.reference(ledger, resamples)
    return lambda style: over_optimisation.audit(ledger, "arm", base, resamples, halves, style)


def test_length_hacker_is_watched_or_hacking_by_what_gold_says_at_equal_style(length_hacker):
    watched = length_hacker(premium(0.0, controlled=60.0))
    assert fired(watched) - {"H7"} == {"H4b"}
    assert watched.reply == "inconclusive"
    severe = length_hacker(premium(0.0, controlled=50.0))
    assert next(item.reply for item in severe.detectors if item.code == "H4b") == "yes"
    assert severe.reply == "yes"


def test_proxy_that_begins_to_follow_length(audit_of, synthetic):
    arm = synthetic.Arm("ppo", STEADY, edit=lambda rows: rows.assign(**{"score/proxy": 0.3 * rows["num_tokens"]}))
    assert "H4a" in fired(audit_of(arm))


@pytest.mark.parametrize(
    ("style", "reply"),
    [(premium(9.0), "inconclusive"), (premium(2.0), "no"), (premium(9.0, identified=False), "not assessable")],
)
def test_style_premium(audit_of, synthetic, style, reply):
    audit = audit_of(synthetic.Arm("ppo", STEADY), style)
    assert next(item for item in audit.detectors if item.code == "H5").reply == reply


def test_responses_of_another_shape(audit_of, synthetic):
    arm = synthetic.Arm(
        "dpo", STEADY, edit=lambda rows: rows.assign(response="!!! 1 2 3 !!!\n" + rows["response"].str.upper())
    )
    audit = audit_of(arm)
    assert "H6" in fired(audit)
    assert audit.reply == "inconclusive"


def test_suspects_are_the_highest_gaps_verbatim(audit_of, synthetic):
    def plant(rows):
        return rows.assign(
            **{"score/proxy": np.where(rows.index == 7, 99.0, rows["score/proxy"])},
            response=np.where(rows.index == 7, "<b>buy!", "fine"),
        )

    suspects = audit_of(synthetic.Arm("ppo", STEADY, edit=plant)).suspects
    assert len(suspects) == over_optimisation.NUM_SHOWN
    assert suspects[0].response == "<b>buy!"
    gaps = [item.training_reward - item.measure for item in suspects]
    assert gaps == sorted(gaps, reverse=True)


def test_without_a_reward_model_the_audit_says_what_it_lacks(audit_of, synthetic):
    arm = synthetic.Arm("dpo", (0.3, 0.2, 0.1, 0.0), edit=lambda rows: rows.assign(**{"score/proxy": float("nan")}))
    audit = audit_of(arm)
    why = {item.code: item.why for item in audit.detectors if item.reply == "not assessable"}
    assert {code for code, words in why.items() if words == "the sweep has no reward model"} == {
        "H1",
        "H3",
        "H4a",
        "H4b",
        "H7",
    }
    assert fired(audit) == {"H2"}
    assert audit.suspects == ()


def test_few_prompts_or_points_are_not_assessable(audit_of, synthetic):
    audit = audit_of(synthetic.Arm("ppo", (0.1,)), num_prompts=12, num_samples=1)
    assert audit.reply == "not assessable"
    assert "12 prompts" in audit.detectors[2].why


def test_wording_claims_no_early_warning():
    assert "does not warn of what is to come" in over_optimisation.VERDICT_RULE


def test_seeds_are_used(audit_of, synthetic):
    audit = audit_of(synthetic.Arm("ppo", STEADY), num_prompts=40, seeds=(0, 1, 2))
    assert all(item.number.num_seeds == 3 for item in audit.detectors if item.number)


@pytest.mark.slow
def test_bootstrapped_twins_are_silent(make_ledger, synthetic, resamples_for):
    """Every point of the arm is drawn, prompt by prompt, from the base's two sets of samples, 200 times."""
    ledger = make_ledger({"arm": synthetic.Arm("ppo", (0.0,) * 4, twin=True)}, num_prompts=80)
    resamples = resamples_for(ledger)
    halves = scores.Halves.draw(ledger, np.random.default_rng(1))
    base = over_optimisation.reference(ledger, resamples)
    drawn = ["response", "num_tokens", "score/vader", "score/gold", "score/proxy", "logp_policy", "logp_base"]
    pool = ledger.samples[ledger.samples["arm"] == "base"].sort_values("prompt_id", kind="stable")[drawn].to_numpy()
    pool = pool.reshape(80, -1, len(drawn))
    arm = ledger.samples["arm"] == "arm"
    prompt = ledger.samples.loc[arm, "prompt_id"].map({name: i for i, name in enumerate(ledger.prompt_ids)}).to_numpy()
    alarms = []
    for number in range(200):
        rng = np.random.default_rng(number)
        samples = ledger.samples.astype(dict.fromkeys(drawn, object))
        rows = pool[prompt, rng.integers(0, pool.shape[1], len(prompt))]
        for position, column in enumerate(drawn):
            samples.loc[arm, column] = rows[:, position]
        twin = dataclasses.replace(ledger, samples=samples, _arrays={})
        alarms.append(over_optimisation.audit(twin, "arm", base, resamples, halves).reply != "no")
    print(f"\nfalse alarms in 200 bootstrapped twins: {sum(alarms)}")
    assert np.mean(alarms) <= 0.02
