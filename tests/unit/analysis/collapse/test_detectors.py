"""Inject and detect: each detector fires on its own collapse, and all stay silent on a twin of the base."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis import collapse
from analysis.collapse import from_samples
from analysis.ledger.load import load_ledger


def statuses(found: collapse.Collapse) -> dict[str, str]:
    return {item.detector.name: item.worst.status for item in found.detections}


def fired(found: collapse.Collapse) -> list[str]:
    return [name for name, status in statuses(found).items() if status == "fired"]


@pytest.fixture
def assess(make_ledger, resamples_for, synthetic):
    """Detections of one arm whose samples were edited; a DPO arm that otherwise does not differ from the base."""

    def make(edit=None, **options):
        arm = synthetic.Arm("dpo", (0.0, 0.0, 0.0), edit=edit, kl=options.pop("kl", 0.5))
        ledger = make_ledger({"dpo": arm}, num_prompts=40, **options)
        return collapse.assess(ledger, "dpo", resamples_for(ledger))

    return make


def with_rows(sweep, label: str, change) -> None:
    """Rewrite the training rows of a run: `change(number, row)` returns keys to add."""
    path = sweep.folder / label / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, **change(number, row)}) + "\n" for number, row in enumerate(rows)))


# ------------------------------------------------------------------------------------------------------- text functions
def test_distinct_by_hand():
    words = ["a", "b", "a", "b", "c"]
    assert from_samples.distinct_2(words, 5) == 3 / 4
    assert from_samples.distinct_2(words, 3) == 1
    assert from_samples.distinct_2(["a"], 1) == 1


def test_identical_answers_of_different_prompts_only():
    texts = np.array([["same", "same"], [" same ", "other"], ["own", "own"], ["", ""]], dtype=object)
    found = from_samples.given_to_several_prompts(texts)
    assert found.tolist() == [[True, True], [True, False], [False, False], [False, False]]


# ------------------------------------------------------------------------------------------------------------- samples
def test_twins_with_their_own_random_numbers_set_nothing_off(assess):
    assert fired(assess(kl=0.0)) == []


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("entropy", lambda rows: rows.assign(logp_policy=rows["logp_policy"] * 0.1, logp_base=rows["logp_base"] * 0.1)),
        ("distinct_2", lambda rows: rows.assign(response="very good " * 3)),
        ("loops", lambda rows: rows.assign(response=rows["response"] + " and so it goes and so it goes")),
        ("truncated", lambda rows: rows.assign(finish_reason="length")),
        ("empty", lambda rows: rows.assign(num_tokens=1)),
        ("identical", lambda rows: rows.assign(response="the same for everyone")),
        ("kl_per_token", lambda rows: rows.assign(logp_base=rows["logp_policy"] - 2 * rows["num_tokens"])),
    ],
)
def test_each_fires_on_its_own_collapse(assess, name, edit):
    found = assess(edit)
    assert name in fired(found)
    worst = next(item.worst for item in found.detections if item.detector.name == name)
    assert worst.point == 1
    assert worst.seed == 0


def test_kl_that_doubles_in_one_step_fires_as_a_jump(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.0,) * 3)}, num_prompts=40)
    for point, nats in ((1, 0.3), (2, 0.35), (3, 0.9)):
        rows = (ledger.samples["arm"] == "dpo") & (ledger.samples["point"] == point)
        ledger.samples.loc[rows, "logp_base"] = ledger.samples["logp_policy"] - nats * ledger.samples["num_tokens"]
    found = collapse.assess(ledger, "dpo", resamples_for(ledger))
    jump = next(item for item in found.detections if item.detector.name == "kl_jump")
    assert [reading.status for reading in jump.readings] == ["fired", "ok", "fired"]
    assert jump.readings[2].threshold.exact == pytest.approx(0.35)
    assert "kl_per_token" not in fired(found)


def test_truncation_cannot_rise_where_the_base_is_always_cut(make_ledger, resamples_for):
    ledger = make_ledger()
    ledger.samples["finish_reason"] = "length"
    found = collapse.assess(ledger, "ppo", resamples_for(ledger))
    cut = next(item for item in found.detections if item.detector.name == "truncated")
    assert cut.worst.status == "not assessable"
    assert "100 % of the base's own responses" in cut.worst.why


def test_greedy_base_has_no_entropy_to_compare_with(make_ledger, resamples_for):
    ledger = make_ledger()
    ledger.samples["logp_policy"] = 0.0
    assert statuses(collapse.assess(ledger, "ppo", resamples_for(ledger)))["entropy"] == "not assessable"


def test_one_collapsed_seed_of_three_is_found_and_named(make_ledger, resamples_for):
    ledger = make_ledger(seeds=(0, 1, 2), num_prompts=30)
    rows = (ledger.samples["arm"] == "ppo") & (ledger.samples["seed"] == 1) & (ledger.samples["point"] == 2)
    ledger.samples.loc[rows, "response"] = "the same for everyone"
    found = collapse.assess(ledger, "ppo", resamples_for(ledger))
    worst = next(item.worst for item in found.detections if item.detector.name == "identical")
    assert (worst.status, worst.point, worst.seed) == ("fired", 2, 1)


# ------------------------------------------------------------------------------------------------------------ training
PPO_ROW = {
    "ppo/clip_fraction": 0.05, "ppo/explained_variance": 0.5, "ppo/score_std": 1.0, "ppo/approx_kl": 0.02,
    "train/gradient_norm": 1.0, "train/skipped_steps": 0, "train/loss": 0.1,
}  # fmt: skip
DPO_ROW = {
    "dpo/accuracy": 0.8, "dpo/chosen_reward": 0.1, "dpo/reward_margin": 0.5, "dpo/chosen_logp": -60.0,
    "train/gradient_norm": 1.0, "train/skipped_steps": 0, "train/loss": 0.1,
}  # fmt: skip


@pytest.fixture
def trained(make_sweep, resamples_for, synthetic):
    """Detections of an arm whose training rows were changed: eight rows, two of them before each of four points."""

    def make(algorithm: str, change):
        sweep = make_sweep({algorithm: synthetic.Arm(algorithm, (0.0,) * 4)}, num_prompts=20)
        healthy = PPO_ROW if algorithm == "ppo" else DPO_ROW
        with_rows(sweep, f"{algorithm}/seed0", lambda number, row: {**healthy, **change(number)})
        plan = json.loads((sweep.folder / "plan.json").read_text())
        plan["arms"][0]["knobs"]["beta"] = 0.1
        sweep.edit("plan.json", arms=plan["arms"])
        ledger = load_ledger(sweep.folder)
        return collapse.assess(ledger, algorithm, resamples_for(ledger))

    return make


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_healthy_training_sets_nothing_off(trained, algorithm):
    found = trained(algorithm, lambda number: {})
    theirs = {"ppo": {"chosen_drop", "below_reference", "saturated"},
              "dpo": {"clip_fraction", "explained_variance", "reward_std", "update_kl"}}[algorithm]  # fmt: skip
    assert fired(found) == []
    assert {name for name, status in statuses(found).items() if status == "not assessable"} == theirs


@pytest.mark.parametrize(
    ("algorithm", "name", "change", "point"),
    [
        ("ppo", "clip_fraction", lambda number: {"ppo/clip_fraction": 0.5 if number >= 4 else 0.1}, 3),
        ("ppo", "explained_variance", lambda number: {"ppo/explained_variance": -0.5 if number < 2 else 0.5}, 1),
        ("ppo", "reward_std", lambda number: {"ppo/score_std": 0.01 if number >= 6 else 1.0}, 4),
        ("ppo", "update_kl", lambda number: {"ppo/approx_kl": 0.5 if number == 5 else 0.02}, 3),
        ("ppo", "gradient_spike", lambda number: {"train/gradient_norm": 50.0 if number == 2 else 1.0}, 2),
        ("ppo", "not_finite", lambda number: {"train/skipped_steps": int(number >= 3)}, 2),
        ("ppo", "not_finite", lambda number: {"train/loss": None if number == 7 else 0.1}, 4),
        ("dpo", "chosen_drop", lambda number: {} if number < 2 else {"dpo/chosen_reward": -2.0}, 2),
        ("dpo", "below_reference", lambda number: {"dpo/chosen_reward": -0.1}, 4),
    ],
)
def test_each_metric_fires_at_its_point(trained, algorithm, name, change, point):
    found = trained(algorithm, change)
    assert fired(found) == [name]
    assert next(item.worst.point for item in found.detections if item.detector.name == name) == point


def test_small_update_kl_is_no_spike_and_a_single_row_is_watched(trained):
    found = trained(
        "ppo",
        lambda number: {
            "ppo/approx_kl": 0.02 if number == 5 else 0.0001,
            "ppo/clip_fraction": 0.4 if number == 3 else 0.1,
        },
    )
    assert fired(found) == []
    assert statuses(found)["clip_fraction"] == "watch"


def test_saturated_accuracy_is_held_against_gold(make_sweep, resamples_for, synthetic):
    sweep = make_sweep({"dpo": synthetic.Arm("dpo", (0.2, 0.2, 0.1))}, num_prompts=60)
    with_rows(sweep, "dpo/seed0", lambda number, row: {"dpo/accuracy": 1.0})
    ledger = load_ledger(sweep.folder)
    found = collapse.assess(ledger, "dpo", resamples_for(ledger))
    saturated = next(item for item in found.detections if item.detector.name == "saturated")
    assert [reading.status for reading in saturated.readings] == ["ok", "watch", "fired"]
    assert saturated.readings[0].why == "saturated, but the measure still rises"


def test_ledger_without_rows_or_rules_is_not_assessable(make_sweep, resamples_for):
    sweep = make_sweep()
    (sweep.folder / "ppo/seed0/metrics.jsonl").write_text("")
    ledger = load_ledger(sweep.folder)
    found = collapse.assess(ledger, "ppo", resamples_for(ledger))
    assert statuses(found)["clip_fraction"] == "not assessable"
    sweep.edit("plan.json", rules={"confidence": {"min_seeds_for_high": 5}})
    ledger = load_ledger(sweep.folder)
    assert collapse.assess(ledger, "ppo", resamples_for(ledger)).reason.startswith("not assessable")


def test_flags_of_training_are_counted(make_sweep, resamples_for):
    sweep = make_sweep()
    with_rows(sweep, "ppo/seed0", lambda number, row: {"flag/kl_jump": float(number < 2), "flag/sampler_gap": 0.0})
    ledger = load_ledger(sweep.folder)
    assert collapse.assess(ledger, "ppo", resamples_for(ledger)).flags == {"kl_jump": (2, 8), "sampler_gap": (0, 8)}
