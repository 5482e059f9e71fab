"""Inject and detect: each detector fires on its own collapse, and all stay silent on a twin of the base."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis import collapse
from analysis.collapse import from_samples, from_training
from analysis.ledger.load import load_ledger
from experiments.arms.pathologies import TrainingFlags
from experiments.training_signs import DPO_SIGNS, PPO_SIGNS


def replies(found: collapse.Collapse) -> dict[str, str]:
    return {item.detector.name: item.worst.reply for item in found.detections}


def fired(found: collapse.Collapse) -> list[str]:
    return [name for name, reply in replies(found).items() if reply == "yes"]


@pytest.fixture
def collapse_of_dpo(make_ledger, resamples_for, synthetic):
    """Detections of one arm whose samples were edited; a DPO arm that otherwise does not differ from the base."""

    def make(edit=None, **options):
        arm = synthetic.Arm("dpo", (0.0, 0.0, 0.0), edit=edit, kl=options.pop("kl", 0.5))
        ledger = make_ledger({"dpo": arm}, num_prompts=40, **options)
        return collapse.collapse_of(ledger, "dpo", resamples_for(ledger))

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
def test_twins_with_their_own_random_numbers_set_nothing_off(collapse_of_dpo):
    assert fired(collapse_of_dpo(kl=0.0)) == []


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
def test_each_fires_on_its_own_collapse(collapse_of_dpo, name, edit):
    found = collapse_of_dpo(edit)
    assert name in fired(found)
    worst = next(item.worst for item in found.detections if item.detector.name == name)
    assert worst.point == 1
    assert worst.seed == 0


def test_kl_that_doubles_in_one_step_fires_as_a_jump(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.0,) * 3)}, num_prompts=40)
    for point, nats in ((1, 0.3), (2, 0.35), (3, 0.9)):
        rows = (ledger.samples["arm"] == "dpo") & (ledger.samples["point"] == point)
        ledger.samples.loc[rows, "logp_base"] = ledger.samples["logp_policy"] - nats * ledger.samples["num_tokens"]
    found = collapse.collapse_of(ledger, "dpo", resamples_for(ledger))
    jump = next(item for item in found.detections if item.detector.name == "kl_jump")
    assert [reading.reply for reading in jump.readings] == ["yes", "no", "yes"]
    assert jump.readings[2].threshold.exact == pytest.approx(0.35)
    assert "kl_per_token" not in fired(found)


def test_truncation_cannot_rise_where_the_base_is_always_cut(make_ledger, resamples_for):
    ledger = make_ledger()
    ledger.samples["finish_reason"] = "length"
    found = collapse.collapse_of(ledger, "ppo", resamples_for(ledger))
    cut = next(item for item in found.detections if item.detector.name == "truncated")
    assert cut.worst.reply == "not assessable"
    assert "100 % of the base's own responses" in cut.worst.why


def test_greedy_base_has_no_entropy_to_compare_with(make_ledger, resamples_for):
    ledger = make_ledger()
    ledger.samples["logp_policy"] = 0.0
    assert replies(collapse.collapse_of(ledger, "ppo", resamples_for(ledger)))["entropy"] == "not assessable"


def test_one_collapsed_seed_of_three_is_found_and_named(make_ledger, resamples_for):
    ledger = make_ledger(seeds=(0, 1, 2), num_prompts=30)
    rows = (ledger.samples["arm"] == "ppo") & (ledger.samples["seed"] == 1) & (ledger.samples["point"] == 2)
    ledger.samples.loc[rows, "response"] = "the same for everyone"
    found = collapse.collapse_of(ledger, "ppo", resamples_for(ledger))
    worst = next(item.worst for item in found.detections if item.detector.name == "identical")
    assert (worst.reply, worst.point, worst.seed) == ("yes", 2, 1)


# ------------------------------------------------------------------------------------------------------------ training
PPO_ROW = {
    "ppo/clip_fraction": 0.05, "ppo/explained_variance": 0.5, "ppo/score_std": 1.0, "ppo/approx_kl": 0.02,
    "ppo/entropy": 3.0, "ppo/kl_per_token": 0.1, "ppo/eos_fraction": 0.2, "ppo/sampler_gap": 0.0,
    "train/gradient_norm": 1.0, "train/skipped_steps": 0, "train/loss": 0.1,
}  # fmt: skip
DPO_ROW = {
    "dpo/accuracy": 0.8, "dpo/chosen_reward": 0.1, "dpo/reward_margin": 0.5,
    "train/gradient_norm": 1.0, "train/skipped_steps": 0, "train/loss": 0.1,
}  # fmt: skip
NUM_ROWS, NUM_POINTS = 48, 4  # so twelve rows before each point


def flagged(algorithm: str, change) -> list[dict[str, float]]:
    """The rows that training records: each healthy but for its change, with the flags that go up live."""
    flags = TrainingFlags(PPO_SIGNS if algorithm == "ppo" else DPO_SIGNS)
    healthy = PPO_ROW if algorithm == "ppo" else DPO_ROW
    return [flags.with_flags({**healthy, **change(number)}) for number in range(NUM_ROWS)]


@pytest.fixture
def trained(make_sweep, resamples_for, synthetic):
    """Detections of an arm with these training rows."""

    def make(algorithm: str, rows: list[dict[str, float]], gold=(0.0,) * NUM_POINTS):
        sweep = make_sweep({algorithm: synthetic.Arm(algorithm, gold)}, num_prompts=40)
        path = sweep.folder / f"{algorithm}/seed0/metrics.jsonl"
        axes = json.loads(path.read_text().splitlines()[-1])
        axes = {name: value for name, value in axes.items() if "/" not in name}
        end = axes["prompts_seen"]
        seen = ({"prompts_seen": end * (number + 1) / len(rows)} for number in range(len(rows)))
        lines = [json.dumps({**axes, **at, **row}) for at, row in zip(seen, rows, strict=True)]
        path.write_text("".join(f"{line}\n" for line in lines))
        ledger = load_ledger(sweep.folder)
        return collapse.collapse_of(ledger, algorithm, resamples_for(ledger))

    return make


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_healthy_training_sets_nothing_off(trained, algorithm):
    found = trained(algorithm, flagged(algorithm, lambda number: {}))
    of_ppo = {"clip_fraction", "critic_worse_than_a_constant", "constant_reward", "sampler_gap", "update_kl"}
    of_dpo = {"likelihood_displacement", "saturated_accuracy", "below_reference"}
    assert fired(found) == []
    theirs = of_dpo if algorithm == "ppo" else of_ppo
    assert {name for name, reply in replies(found).items() if reply == "not assessable"} == theirs


@pytest.mark.parametrize(
    ("algorithm", "name", "change", "point"),
    [
        ("ppo", "clip_fraction", lambda number: {"ppo/clip_fraction": 0.5 if number >= 24 else 0.1}, 3),
        ("ppo", "critic_worse_than_a_constant", lambda n: {"ppo/explained_variance": -0.5 if n < 12 else 0.5}, 1),
        ("ppo", "constant_reward", lambda number: {"ppo/score_std": 0.01 if number >= 36 else 1.0}, 4),
        ("ppo", "update_kl", lambda number: {"ppo/approx_kl": 0.5 if number == 30 else 0.02}, 3),
        ("ppo", "gradient_spike", lambda number: {"train/gradient_norm": 50.0 if number == 14 else 1.0}, 2),
        ("ppo", "non_finite_gradient", lambda number: {"train/skipped_steps": max(0, number - 11)}, 2),
        ("dpo", "below_reference", lambda number: {"dpo/chosen_reward": -0.1}, 4),
    ],
)
def test_each_metric_fires_at_its_point(trained, algorithm, name, change, point):
    found = trained(algorithm, flagged(algorithm, change))
    assert fired(found) == [name]
    assert next(item.worst.point for item in found.detections if item.detector.name == name) == point


def test_a_growing_margin_over_less_likely_chosen_responses_fires(trained):
    found = trained("dpo", flagged("dpo", lambda n: {"dpo/chosen_reward": -0.1 * n, "dpo/reward_margin": 0.5 + n}))
    assert "likelihood_displacement" in fired(found)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("algorithm", "metric"),
    [
        ("ppo", "ppo/clip_fraction"),
        ("ppo", "ppo/explained_variance"),
        ("ppo", "ppo/score_std"),
        ("dpo", "dpo/accuracy"),
        ("dpo", "dpo/chosen_reward"),
    ],
)
def test_the_report_shows_the_signs_that_training_raised(algorithm, metric, seed):
    """Of any series: a detector is silent if and only if the live flag never went up between the two points."""
    values = np.random.default_rng(seed).normal(0.5, 0.6, NUM_ROWS).cumsum() % 1.5 - 0.3
    rows = flagged(algorithm, lambda number: {metric: values[number], "dpo/reward_margin": float(number)})
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    run = from_training.RunRows(0, columns, np.repeat(range(1, NUM_POINTS + 1), NUM_ROWS // NUM_POINTS))
    for sign in PPO_SIGNS if algorithm == "ppo" else DPO_SIGNS:
        for point in range(1, NUM_POINTS + 1):
            reading = from_training.TrainingDetectors._flag_of(sign)(run, point)
            up = run.between(f"flag/{sign.name}", point)
            assert reading.number.exact == pytest.approx(100 * up.mean())
            assert (reading.reply == "no") == (not up.any())


def test_small_update_kl_is_no_spike_and_a_single_row_is_watched(trained):
    change = lambda n: {"ppo/approx_kl": 0.02 if n == 30 else 0.0001, "ppo/clip_fraction": 0.4 if n == 3 else 0.1}  # noqa: E731
    found = trained("ppo", flagged("ppo", change))
    assert fired(found) == []
    assert replies(found)["clip_fraction"] == "inconclusive"


def test_saturated_accuracy_is_held_against_the_measure(trained):
    found = trained("dpo", flagged("dpo", lambda number: {"dpo/accuracy": 1.0}), gold=(0.2, 0.4, 0.4, 0.2))
    saturated = next(item for item in found.detections if item.detector.name == "saturated_accuracy")
    assert [reading.reply for reading in saturated.readings] == ["no", "no", "inconclusive", "yes"]
    assert saturated.readings[1].why == "saturated, but the measure still rises"


def test_an_algorithm_that_nobody_knows_ends_no_report(trained):
    assert fired(trained("dpo", [{"kto/loss": 1.0}] * NUM_ROWS)) == []


def test_ledger_without_rows_is_not_assessable(make_sweep, resamples_for):
    sweep = make_sweep()
    (sweep.folder / "ppo/seed0/metrics.jsonl").write_text("")
    ledger = load_ledger(sweep.folder)
    found = collapse.collapse_of(ledger, "ppo", resamples_for(ledger))
    assert replies(found)["clip_fraction"] == "not assessable"


def test_flags_of_training_are_counted(make_sweep, resamples_for):
    sweep = make_sweep()
    with_rows(sweep, "ppo/seed0", lambda number, row: {"flag/kl_jump": float(number < 2), "flag/sampler_gap": 0.0})
    ledger = load_ledger(sweep.folder)
    assert collapse.collapse_of(ledger, "ppo", resamples_for(ledger)).flags == {
        "kl_jump": (2, 8),
        "sampler_gap": (0, 8),
    }
