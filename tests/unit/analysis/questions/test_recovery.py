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
from markupsafe import escape

from analysis.ledger import Ledger, LedgerError
from analysis.ledger.load import load_ledger
from analysis.over_optimisation.audit import Halves
from analysis.questions import recovery
from analysis.questions import recovery_words as recovery_answer
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html, view
from analysis.report.sections import recovery as tables
from analysis.statistics.bootstrap import Estimate, Resamples
from analysis.style.sweep import SweepStyle
from analysis.text import markdown_inline

STAGED = "ppo_then_dpo"


@pytest.fixture(scope="module")
def folder(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO over-optimises after its first point; the staged arm wins back; the interpolated one is nearer the base."""
    arms = {
        "ppo": synthetic.Arm("ppo", (0.10, 0.0, -0.2, -0.3), reward=(0.2, 0.4, 0.6, 0.8), kl=8.0),
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
    return {item.arm: item for item in recovery.recoveries(ledger, SweepStyle(ledger, resamples), resamples)}


def test_only_arms_with_a_start_are_told_of(found: dict[str, recovery.Recovery]) -> None:
    assert {name: (item.start, item.point) for name, item in found.items()} == {STAGED: ("ppo", 2), "half": ("ppo", 3)}


def test_before_and_after_are_the_checkpoints_and_the_final_models(
    found: dict[str, recovery.Recovery], ledger: Ledger
) -> None:
    gold = found[STAGED].changes[0]
    base, before, after = (
        100 * ledger.numbers(arm, "score/gold", point).mean() for arm, point in (("base", 0), ("ppo", 2), (STAGED, 4))
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
        "Gain in the measure", "KL to the base",
        "Variety within a prompt", "Different word pairs", "Told apart from the base",
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
        (item,) = recovery.recoveries(ledger, SweepStyle(ledger, resamples), resamples)
        return {change.name: change for change in item.changes}

    return make


def test_the_staged_arm_is_compared_with_both_and_interpolation_with_the_base_alone(ledger: Ledger) -> None:
    assert [(one, other) for one, other, _ in ledger.contests if other != "base"] == [
        ("ppo", "dpo"), (STAGED, "ppo"), (STAGED, "dpo"),
    ]  # fmt: skip


def test_the_headline_is_about_the_plain_arms(report: dict[str, Any]) -> None:
    final = report["decision"]["final"]

    assert (final["arm"], final["opponent"]) == ("ppo", "dpo")
    assert [(pair["arm"], pair["opponent"]) for pair in report["head_to_head"]] == [("ppo", "dpo")]
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

    for name in ("clip_fraction", "constant_reward", "update_kl"):
        assert {found[name] for found in reasons.values()} == {"the ledger has no such rows up to this point"}


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
    assert table.rows[0].label == "ppo_then_dpo: Gain in the measure"
    assert tables.starts(report)[0].startswith("ppo_then_dpo starts from ppo at evaluation point 2, and up to there is")
    assert tables.starts(report)[0].endswith(
        "cannot be told: on half of the prompts there are 12; the rule asks for 20."
    )


def test_a_report_without_such_arms_has_no_section() -> None:
    assert tables.recovery({"recovery": []}) is None


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


# ----------------------------------------------------------------------------------- a sweep about one checkpoint
RISES, FALLS = (0.2, 0.4, 0.6, 0.8), (0.30, 0.05, 0.0, 0.0)


@pytest.fixture
def make_way_back(
    synthetic: ModuleType, tmp_path: Path
) -> Callable[..., tuple[Ledger, recovery.Checkpoint, recovery_answer.WayBack | None]]:
    """A PPO arm with the given gold and proxy, and two arms that start from the half of it."""

    def make(
        gold: tuple[float, ...], proxy: tuple[float, ...], num_prompts: int = 60, **others: Any
    ) -> tuple[Ledger, recovery.Checkpoint, recovery_answer.WayBack | None]:
        arms = {
            "ppo": synthetic.Arm("ppo", gold, reward=proxy, kl=8.0),
            STAGED: synthetic.Arm(STAGED, (0.0, 0.0, 0.1, 0.4), start=("ppo", 0.5)),
            "half": synthetic.Arm("interpolation", (0.0, 0.0, 0.0, gold[1]), kl=2.0, start=("ppo", 0.5)),
            **others,
        }
        ledger = load_ledger(synthetic.Sweep(tmp_path, arms, num_prompts=num_prompts).write())
        resamples = Resamples.draw(np.random.default_rng(0), num_prompts, 1)
        found = recovery.recoveries(ledger, SweepStyle(ledger, resamples), resamples)
        checkpoints = recovery.checkpoints(ledger, found, Halves.draw(ledger, np.random.default_rng(1)))
        return ledger, checkpoints[0], recovery_answer.answer(ledger, found, checkpoints)

    return make


def test_a_checkpoint_whose_gold_fell_while_its_proxy_rose_has_over_optimised(make_way_back: Any) -> None:
    ledger, checkpoint, answer = make_way_back(FALLS, RISES)
    half = Halves.draw(ledger, np.random.default_rng(1)).reported_on
    one, two = (100 * ledger.numbers("ppo", "score/gold", point)[:, half].mean() for point in (1, 2))

    assert (checkpoint.arm, checkpoint.point, checkpoint.peak) == ("ppo", 2, 1)
    assert checkpoint.measure.value == pytest.approx(two - one)
    assert checkpoint.measure.unit == "points"
    assert checkpoint.measure.n == 30
    assert checkpoint.training_reward.low > 0
    assert checkpoint.reply == "yes"
    assert answer.over_optimised
    assert answer.words.startswith("ppo had over-optimised at its checkpoint: the measure −")
    assert "since its peak, evaluation point 1, and the training reward +" in answer.words


@pytest.mark.parametrize(
    ("gold", "proxy", "reply", "words"),
    [
        (
            (0.1, 0.3, 0.3, 0.3),
            RISES,
            "no",
            "is not shown to have over-optimised at its checkpoint: the measure had not",
        ),
        (FALLS, (0.6, 0.4, 0.2, 0.0), "inconclusive", "the training reward is not shown to have risen on"),
    ],
)
def test_a_fall_and_a_rising_proxy_must_both_be_shown(
    make_way_back: Any, gold: tuple[float, ...], proxy: tuple[float, ...], reply: str, words: str
) -> None:
    _, checkpoint, answer = make_way_back(gold, proxy)

    assert checkpoint.reply == reply
    assert words in answer.words
    assert not answer.over_optimised


def test_too_few_prompts_say_nothing_of_the_checkpoint(make_way_back: Any) -> None:
    _, checkpoint, answer = make_way_back(FALLS, RISES, num_prompts=24)

    assert checkpoint.reply == "not assessable"
    assert "cannot be told: on half of the prompts there are 12; the rule asks for 20" in answer.words


def test_another_arm_from_the_base_makes_it_a_sweep_about_more(synthetic: ModuleType, make_way_back: Any) -> None:
    _, _, answer = make_way_back(FALLS, RISES, dpo=synthetic.Arm("dpo", (0.05, 0.06, 0.07, 0.08)))

    assert answer is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((0.5, 0.4), "style moves away from the base's in all of these"),
        ((0.5, 0.0), "style moves away from the base's in a and is not shown to change in b"),
        ((-0.5, None), "style comes nearer the base's in a and is not assessable in b"),
    ],
)
def test_directions_are_said_of_each_arm_or_of_all(
    make_way_back: Any, changes: tuple[float | None, ...], words: str
) -> None:
    def one(arm: str, value: float | None) -> recovery.Recovery:
        change = None if value is None else Estimate(value, value - 0.1, value + 0.1, 0.05, "AUC", 60)
        return recovery.Recovery(arm, "ppo", 2, (recovery.Change(recovery.STYLE, "", None, None, change),))

    ledger, checkpoint, _ = make_way_back(FALLS, RISES)
    found = [one(arm, value) for arm, value in zip("ab", changes, strict=True)]
    answer = recovery_answer.answer(ledger, found, [checkpoint])

    assert answer is not None
    assert answer.remark.endswith(f"{words}.")


def test_the_headline_answers_what_was_won_back(make_way_back: Any) -> None:
    ledger, _, _ = make_way_back(FALLS, RISES)
    report = json.loads(json.dumps(build_report(ledger)))
    changes = {item["arm"]: item["changes"][0]["change"] for item in report["recovery"]}
    won = changes[STAGED]

    assert report["headline"].startswith("ppo had over-optimised at its checkpoint")
    assert f"+{won['value']:.1f} [+{won['low']:.1f} to +{won['high']:.1f}] in {STAGED}" in report["headline"]
    remark = report["decision"]["remark"]
    assert remark.startswith("From the checkpoint on, variety within a prompt")
    assert f"<p>{escape(remark)}</p>" in render_html(report)
    assert markdown_inline(remark) in render_markdown(report)
    assert report["decision"]["confidence"] == "low"
    assert "cannot be compared" not in report["headline"]
    (words,) = tables.starts(report)
    assert (
        "By then it had over-optimised: since the measure's peak at evaluation point 1, chosen on the other half"
        in words
    )
    assert "it has changed by −" in words
