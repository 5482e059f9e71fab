"""Arms that start from a checkpoint: what the report says of them, on sweeps with known truth."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from analysis import recovery, win_rate
from analysis.ledger import Ledger, LedgerError
from analysis.load import load_ledger
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html, view
from analysis.report.tables import recovery as tables
from analysis.statistics import Resamples
from analysis.style_drift import SweepStyle

STAGED = "ppo_then_dpo"


@pytest.fixture(scope="module")
def folder(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO over-optimises after its first point; the staged arm wins back; the interpolated one is nearer the base."""
    arms = {
        "ppo": synthetic.Arm("ppo", (0.10, 0.0, -0.2, -0.3), proxy=(0.2, 0.4, 0.6, 0.8), kl=8.0),
        "dpo": synthetic.Arm("dpo", (0.05, 0.06, 0.07, 0.08)),
        STAGED: synthetic.Arm(STAGED, (0.0, 0.0, 0.1, 0.2), start=("ppo", 0.5)),
        "half": synthetic.Arm("interpolation", (0.0, 0.0, 0.0, 0.02), kl=2.0, start=("ppo", 0.75)),
    }
    path: Path = synthetic.Sweep(tmp_path_factory.mktemp("staged"), arms, num_prompts=24).write()
    return path


@pytest.fixture(scope="module")
def ledger(folder: Path) -> Ledger:
    return load_ledger(folder)


@pytest.fixture(scope="module")
def report(ledger: Ledger) -> dict[str, Any]:
    return json.loads(json.dumps(build_report(ledger)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def found(ledger: Ledger) -> dict[str, recovery.Recovery]:
    resamples = Resamples.draw(np.random.default_rng(0), len(ledger.prompt_ids), 1)
    return {item.arm: item for item in recovery.assess(ledger, SweepStyle(ledger, resamples), resamples)}


def test_only_arms_with_a_start_are_told_of(found: dict[str, recovery.Recovery]) -> None:
    assert {name: (item.start, item.point) for name, item in found.items()} == {STAGED: ("ppo", 2), "half": ("ppo", 3)}


def test_before_and_after_are_the_checkpoints_and_the_final_models(
    found: dict[str, recovery.Recovery], ledger: Ledger
) -> None:
    gold = found[STAGED].changes[0]
    base, before, after = (
        100 * ledger.numbers(arm, "gold", point).mean() for arm, point in (("base", 0), ("ppo", 2), (STAGED, 4))
    )

    assert gold.before is not None
    assert gold.after is not None
    assert gold.change is not None
    assert gold.before.value == pytest.approx(before - base)
    assert gold.after.value == pytest.approx(after - base)
    assert gold.change.value == pytest.approx(after - before)
    assert gold.change.low > 0  # the truth is 20 points


def test_going_back_towards_the_base_lowers_the_kl(found: dict[str, recovery.Recovery]) -> None:
    kl = next(change for change in found["half"].changes if change.name == "KL to the base")

    assert kl.before is not None
    assert kl.after is not None
    assert kl.before.value == pytest.approx(6, abs=0.5)  # three quarters of 8
    assert kl.after.value == pytest.approx(2, abs=0.5)
    assert kl.change is not None
    assert kl.change.high < 0


def test_every_measure_has_an_interval(found: dict[str, recovery.Recovery]) -> None:
    names = [change.name for change in found[STAGED].changes]

    assert names == [
        "Gold gain", "KL to the base", "Variety within a prompt", "Different word pairs", "Told apart from the base",
    ]  # fmt: skip
    for change in found[STAGED].changes:
        for number in (change.before, change.after, change.change):
            assert number is not None
            assert number.low <= number.value <= number.high


def test_one_response_a_prompt_leaves_variety_within_it_open(
    synthetic: ModuleType, tmp_path: Path, make_changes: Callable[[Path], dict[str, recovery.Change]]
) -> None:
    arms = {
        "ppo": synthetic.Arm("ppo", (0.1, 0.2)),
        STAGED: synthetic.Arm(STAGED, (0.1, 0.2), start=("ppo", 0.5)),
    }
    changes = make_changes(synthetic.Sweep(tmp_path, arms, num_samples=1).write())

    assert changes["Variety within a prompt"].change is None
    assert changes["Different word pairs"].change is not None


@pytest.fixture
def make_changes() -> Callable[[Path], dict[str, recovery.Change]]:
    def make(folder: Path) -> dict[str, recovery.Change]:
        ledger = load_ledger(folder)
        resamples = Resamples.draw(np.random.default_rng(0), len(ledger.prompt_ids), 1)
        (item,) = recovery.assess(ledger, SweepStyle(ledger, resamples), resamples)
        return {change.name: change for change in item.changes}

    return make


def test_the_staged_arm_is_compared_with_both_and_interpolation_with_the_base_alone(ledger: Ledger) -> None:
    assert [(one, other) for one, other, _ in win_rate.contests(ledger) if other != "base"] == [
        ("ppo", "dpo"), (STAGED, "ppo"), (STAGED, "dpo"),
    ]  # fmt: skip


def test_the_headline_is_about_the_plain_arms(report: dict[str, Any]) -> None:
    final = report["decision"]["final"]

    assert (final["ppo"], final["dpo"]) == ("ppo", "dpo")
    assert [(pair["ppo"], pair["dpo"]) for pair in report["head_to_head"]] == [("ppo", "dpo")]
    assert [(pair["arm"], pair["opponent"]) for pair in report["staged"]] == [(STAGED, "ppo"), (STAGED, "dpo")]
    assert set(report["gates"]) == {"ppo", "dpo", STAGED, "half"}


def test_a_lead_of_the_staged_arm_does_not_hide_how_little_is_known_of_the_plain_ones(
    report: dict[str, Any],
) -> None:
    final = report["decision"]["final"] | {"ahead": None}
    undecided = report | {"decision": report["decision"] | {"final": final, "confidence": "low", "staged": STAGED}}

    for page in (render_html(undecided), render_markdown(undecided)):
        assert re.search(r"a true lead of .* points would often go unseen", page)


def test_algorithms_are_called_by_their_names(report: dict[str, Any]) -> None:
    names = [answer["question"] for answer in report["stability"]["algorithms"].values()]

    assert "Can we tolerate the oscillation of PPO then DPO?" in names
    assert "PPO_THEN_DPO" not in json.dumps(view(report, ()), default=lambda value: value.__dict__)


def test_detectors_of_another_algorithm_are_not_assessable(report: dict[str, Any]) -> None:
    arms = {arm["arm"]: arm for arm in report["arms"]}
    reasons = {
        name: {item["detector"]["name"]: item["readings"][-1]["why"] for item in arms[name]["collapse"]["detections"]}
        for name in (STAGED, "half")
    }

    assert sum(reason == "of PPO only" for reason in reasons[STAGED].values()) == 4
    assert sum(reason == "of DPO only" for reason in reasons["half"].values()) == 3


def test_what_the_arms_learned_from_is_said(report: dict[str, Any]) -> None:
    said = {arm["arm"]: arm["comparisons"] for arm in report["arms"]}

    assert said[STAGED] == (
        "50 % of the budget as ppo, then best against worst of a prompt's samples of that checkpoint, directly"
    )
    assert said["half"] == "75 % of the budget as ppo, then nothing"


def test_the_table_has_a_row_for_each_arm_and_measure(report: dict[str, Any]) -> None:
    table = tables.recovery(report)

    assert table is not None
    assert len(table.rows) == 10
    assert table.rows[0].label == "ppo_then_dpo: Gold gain"
    assert tables.starts(report)[0].startswith("ppo_then_dpo starts from ppo at evaluation point 2, and up to there is")


def test_a_report_without_such_arms_has_no_section() -> None:
    assert tables.recovery({"arms": []}) is None


def test_a_checkpoint_of_another_sweep_is_refused(synthetic: ModuleType, tmp_path: Path) -> None:
    arms = {
        "ppo": synthetic.Arm("ppo", (0.1, 0.2)),
        STAGED: synthetic.Arm(STAGED, (0.1, 0.2), start=("ppo", 0.5)),
    }
    sweep = synthetic.Sweep(tmp_path, arms)
    sweep.write()
    sweep.edit(f"{STAGED}/seed0/spec.json", needs={"start": {"identity": "f" * 64}})
    with pytest.raises(LedgerError, match=r"ppo_then_dpo/seed0: starts from another ppo/seed0 \(ffffffffffff\)"):
        load_ledger(tmp_path)
