from __future__ import annotations

import json

import pytest

from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.report import context
from analysis.report.build import build_report


def dictionaries(value):
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from dictionaries(item)


@pytest.fixture
def report(make_ledger):
    return build_report(make_ledger())


def test_every_estimate_has_a_unit_and_an_interval_around_it(report):
    estimates = [item for item in dictionaries(report) if "value" in item and "check" not in item]
    assert len(estimates) > 60
    for item in estimates:
        assert item["unit"]
        assert item["low"] <= item["value"] <= item["high"]
        assert item["n"] > 0
        assert item["level"] == 0.95


def test_every_measured_number_has_a_unit(report):
    measured = [item for item in dictionaries(report) if "exact" in item]
    assert len(measured) > 15
    assert all(item["unit"] for item in measured)


def test_headline_schema_and_flat_summary_are_on_top(report):
    assert report["schema"] == 2
    assert report["headline"].endswith(".")
    assert report["summary"]["win_rate/ppo_vs_base"] == report["arms"][0]["win_rate"]["gold"]["value"]
    assert "win_rate/ppo_vs_dpo" in report["summary"]
    assert all(isinstance(value, float) for value in report["summary"].values())


def test_report_is_strict_json(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_one_seed_is_not_assessable_across_seeds(report):
    seeds = report["arms"][0]["stability"]["seeds"]
    assert not seeds["assessable"]
    assert seeds["reason"].startswith("not assessable: one seed")


def test_cost_is_of_training_and_health_is_late(report):
    ppo, dpo = report["arms"]
    assert ppo["cost"]["wall_seconds"] == {"exact": 300.0, "unit": "seconds"}
    assert ppo["cost"]["peak_memory_bytes"]["exact"] == 2.5e9
    assert ppo["health"]["ppo/clip_fraction"]["exact"] == pytest.approx(0.08)
    assert "dpo/accuracy" in dpo["health"]
    assert "ppo/clip_fraction" not in dpo["health"]


def test_curve_starts_at_the_base_and_ends_at_the_budget(report):
    curve = report["arms"][0]["curve"]
    assert [item["prompts_seen"] for item in curve] == [0, 256, 512]
    assert [item["tokens"] for item in curve] == [0, 28672, 57344]  # generated and trained on
    assert [item["device_seconds"] for item in curve] == [0, 150, 300]
    assert curve[0]["kl"] == {"exact": 0.0, "unit": "nats"}
    assert curve[2]["kl"] == report["arms"][0]["kl"]["per_response"]
    assert curve[0]["measure"]["value"] == report["base"]["measure"]["value"]


def test_shared_artifacts_come_with_interval_and_count(report):
    numbers = {item["metric"]: item["number"] for item in report["artifacts"]}
    accuracy = numbers["reward_model/held_out_accuracy"]
    assert (accuracy["low"], accuracy["value"], accuracy["high"], accuracy["n"]) == (0.61, 0.68, 0.75, 190)
    assert numbers["ranking_data/num_ties"]["exact"] == 3


def test_what_each_arm_learned_from_is_said(report):
    assert report["arms"][0]["comparisons"].endswith("through the reward model")
    assert report["arms"][1]["comparisons"].startswith("best against worst")


def test_base_model_is_named_as_what_it_is(report):
    assert "dequantised from Q4_1" in report["design"]["base_model"]
    settings = {"model": {"path": "/models/mine", "revision": "v2", "dtype": "float32"}}
    assert context.base_model(settings) == "/models/mine, revision v2, frozen in float32"


def test_point_without_metrics_is_an_error(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "dpo/seed0/evaluation/metrics.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(LedgerError, match=r"dpo: metrics\.jsonl has no row of evaluation point 2"):
        build_report(load_ledger(sweep.folder))


def test_axis_that_was_not_recorded_is_none(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "dpo/seed0/evaluation/metrics.jsonl"
    path.write_text(path.read_text().replace("tokens_trained", "tokens_taught"))
    ppo, dpo = build_report(load_ledger(sweep.folder))["arms"]
    assert [item["tokens"] for item in dpo["curve"]] == [0, None, None]
    assert ppo["curve"][2]["tokens"] == 57344


def test_missing_arm_is_reported(make_sweep):
    sweep = make_sweep()
    sweep.edit("dpo/seed0/status.json", state="failed", error="killed by signal 9")
    report = build_report(load_ledger(sweep.folder))
    assert report["missing"] == [{"run": "dpo/seed0", "reason": "training failed (killed by signal 9)"}]
    assert [arm["arm"] for arm in report["arms"]] == ["ppo"]


@pytest.mark.parametrize(
    ("git", "caveat"),
    [
        ({"commit": "d" * 40, "dirty": False}, "different git commits"),
        ({"commit": "c" * 40, "dirty": True}, "uncommitted changes"),
        (None, "no git checkout"),
    ],
)
def test_code_that_cannot_be_traced_is_a_caveat(make_sweep, git, caveat):
    sweep = make_sweep()
    assert build_report(load_ledger(sweep.folder))["provenance"]["caveats"] == []
    sweep.edit("ppo/seed0/provenance.json", git=git)
    assert any(caveat in item for item in build_report(load_ledger(sweep.folder))["provenance"]["caveats"])


def test_an_arm_that_was_resumed_elsewhere_is_a_caveat(make_sweep):
    sweep = make_sweep()
    begun = {"time": "2026-11-23T04:10:00+00:00", "git": {"commit": "c" * 40, "dirty": False}}
    begun |= {"versions": {"torch": "2.12.0"}, "hardware": {"cpu": "invented", "cores": 2, "gpus": []}}
    sweep.edit("ppo/seed0/provenance.json", time="2026-11-24T04:10:00+00:00", earlier_starts=[begun, begun])
    found = build_report(load_ledger(sweep.folder))["provenance"]

    assert found["caveats"] == [
        "ppo/seed0 was resumed on something else than it had begun on (versions.torch); see provenance."
    ]
    torch = found["different"].pop("versions.torch")
    assert found["different"] == {}
    assert torch["ppo/seed0"] == torch["dpo/seed0"] == "2.13.0"
    assert torch["ppo/seed0, start 1"] == torch["ppo/seed0, start 2"] == "2.12.0"


def test_an_arm_that_was_resumed_where_it_had_begun_is_not(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "ppo/seed0/provenance.json"
    sweep.edit("ppo/seed0/provenance.json", time="later", earlier_starts=[json.loads(path.read_text())])
    found = build_report(load_ledger(sweep.folder))["provenance"]

    assert (found["caveats"], found["different"]) == ([], {})


def test_a_start_whose_record_is_lost_counts_as_another(make_sweep):
    sweep = make_sweep()
    sweep.edit("ppo/seed0/provenance.json", earlier_starts=[{}])
    found = build_report(load_ledger(sweep.folder))["provenance"]

    assert "ppo/seed0 was resumed on something else" in found["caveats"][-1]


def test_run_without_axes_or_proxy_still_reports(make_sweep, synthetic):
    no_proxy = synthetic.Arm("dpo", (0.1, 0.1), edit=lambda rows: rows.assign(**{"score/proxy": float("nan")}))
    sweep = make_sweep({"dpo": no_proxy})
    (sweep.folder / "dpo/seed0/metrics.jsonl").write_text('{"phase": "train", "wall_seconds": 5')
    report = build_report(load_ledger(sweep.folder))
    assert report["arms"][0]["win_rate"]["proxy"] is None
    assert report["arms"][0]["cost"]["wall_seconds"] is None


def test_an_algorithm_that_the_plan_does_not_describe_does_not_end_the_report(make_sweep, synthetic):
    sweep = make_sweep({"ppo": synthetic.Arm("ppo", (0.1, 0.2)), "new": synthetic.Arm("dpo", (0.1, 0.2))})
    plan = json.loads((sweep.folder / "plan.json").read_text())
    arms = [arm | ({"algorithm": "new"} if arm["arm"] == "new" else {}) for arm in plan["arms"]]
    sweep.edit("plan.json", arms=arms, algorithms={"ppo": plan["algorithms"]["ppo"]})
    report = build_report(load_ledger(sweep.folder))
    assert [arm["algorithm_label"] for arm in report["arms"]] == ["PPO", "new"]
    assert "new" in report["headline"]
