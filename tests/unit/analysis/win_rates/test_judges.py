from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.ledger import Ledger, LedgerError
from analysis.ledger.load import load_ledger
from analysis.report.build import build_report
from analysis.report.figures import pictures
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html
from analysis.report.sections import glance
from analysis.report.sections import win_rate as win_rate_tables
from analysis.statistics.bootstrap import Resamples
from analysis.win_rates import ahead, compare_all, judges, rules_of
from experiments.rules import Rules


@pytest.fixture
def judged(make_sweep: Callable[..., Any]) -> Callable[..., Any]:
    """A sweep with a judge: verdicts(arm, opponent, seed, prompt number, sample) -> (ours first, ours second, note)."""

    def make(verdicts: Callable[..., tuple[str, str, str]], num_samples: int = 2, **options: Any) -> Any:
        judge = {key: options.pop(key) for key in ("relation", "name", "numbers") if key in options}
        sweep = make_sweep(**options)
        sides = [[name for name, arm in sweep.arms.items() if arm.algorithm == kind] for kind in ("ppo", "dpo")]
        contests = list(product(*sides))
        value = {"A": 1.0, "tie": 0.5, "B": 0.0}
        ids = sorted(sweep.base["prompt_id"].unique())
        rows = []
        for seed in sweep.seeds:
            for arm, opponent in [*((arm, "base") for arm in sweep.arms), *contests]:
                for number, prompt in enumerate(ids):
                    for sample in range(num_samples):
                        first, second, note = verdicts(arm, opponent, seed, number, sample)
                        score = (value[first] + 1 - value[second]) / 2 if first and second else math.nan
                        if note == "identical responses":
                            score = 0.5
                        rows.append((arm, opponent, seed, prompt, sample, score, first, second, note))
        columns = ["arm", "opponent", "seed", "prompt_id", "sample_id", "score", "ours_first", "ours_second", "note"]
        sweep.judge(pd.DataFrame(rows, columns=columns), **judge.pop("numbers", {}), **judge)
        return sweep

    return make


def one(ledger: Ledger, arm: str = "ppo", opponent: str = "base") -> judges.Contest:
    resamples = Resamples.draw(np.random.default_rng(0), len(ledger.prompt_ids), len(ledger.seeds(arm)), 400)
    (assessment,) = judges.assessments(ledger, resamples)
    return next(item for item in assessment.contests if (item.arm, item.opponent) == (arm, opponent))


def test_preferences_are_seeds_by_prompts_by_samples(judged: Any) -> None:
    def verdicts(arm: str, opponent: str, seed: int, prompt: int, sample: int) -> tuple[str, str, str]:
        return ("A", "B", "") if (seed, prompt, sample) == (1, 2, 0) else ("B", "A", "")

    ledger = load_ledger(judged(verdicts, num_samples=1, seeds=(0, 1)).folder)
    scores = ledger.preferences("endpoint", "ppo", "dpo")

    assert scores is not None
    assert scores.shape == (2, 12, 1)
    assert [tuple(index) for index in np.argwhere(scores == 1)] == [(1, 2, 0)]
    mirrored = ledger.preferences("endpoint", "dpo", "ppo")
    np.testing.assert_array_equal(mirrored, 1 - scores)
    assert ledger.preferences("endpoint", "ppo", "other") is None
    assert ledger.preferences("endpoint", "base", "other") is None


def test_a_clear_judge_counts(judged: Any) -> None:
    ledger = load_ledger(judged(lambda arm, *_: ("A", "B", "") if arm == "ppo" else ("tie", "tie", "")).folder)
    contest, even = one(ledger), one(ledger, "dpo")

    assert (contest.preference.value, contest.swap_consistency.value, contest.counts) == (100.0, 100.0, True)
    assert even.preference.value == 50.0
    assert (contest.num_pairs, contest.num_missing, contest.why_not) == (24, 0, "")


def test_the_preference_by_hand(judged: Any) -> None:
    """Prompt 0: 3/4 and 1/4; every other prompt 1 and 0; so the mean is 50; both orders agree on 22 of 24 pairs."""

    def verdicts(arm: str, opponent: str, seed: int, prompt: int, sample: int) -> tuple[str, str, str]:
        if prompt == 0:
            return ("A", "tie", "") if sample == 0 else ("tie", "A", "")
        return ("A", "B", "") if sample == 0 else ("B", "A", "")

    contest = one(load_ledger(judged(verdicts).folder))
    assert contest.preference.value == 50.0
    assert contest.swap_consistency.value == pytest.approx(100 * 22 / 24)


def test_a_judge_that_goes_by_the_order_does_not_count(judged: Any) -> None:
    contest = one(load_ledger(judged(lambda *_: ("A", "A", "")).folder))

    assert (contest.preference.value, contest.swap_consistency.value, contest.counts) == (50.0, 0.0, False)
    assert "survives the swap of order in 0 % of pairs; 65 % are required" in contest.why_not


def test_the_training_reward_never_counts(judged: Any) -> None:
    ledger = load_ledger(judged(lambda *_: ("A", "B", ""), relation="IS THE TRAINING REWARD").folder)

    assert one(ledger).why_not == "it is the reward that was trained on"


def test_missing_verdicts_are_left_out_counted_and_too_many_block(judged: Any) -> None:
    def verdicts(arm: str, opponent: str, seed: int, prompt: int, sample: int) -> tuple[str, str, str]:
        return ("A", "", "refused") if prompt < 3 and sample == 0 else ("A", "B", "")

    contest = one(load_ledger(judged(verdicts).folder))
    assert (contest.preference.value, contest.preference.n) == (100.0, 12)
    assert (contest.num_missing, contest.missing) == (3, {"refused": 3})
    assert contest.why_not.startswith("12% of its verdicts are missing; 5% are allowed")


def test_prompts_without_any_verdict_are_resampled_out(judged: Any) -> None:
    def verdicts(arm: str, opponent: str, seed: int, prompt: int, sample: int) -> tuple[str, str, str]:
        return ("", "", "cost cap") if prompt > 4 else ("A", "B", "")

    contest = one(load_ledger(judged(verdicts).folder))
    assert (contest.preference.n, contest.preference.value, contest.num_missing) == (5, 100.0, 14)


@pytest.mark.parametrize("judged_prompts", [0, 1])
def test_hardly_anything_judged_is_no_estimate_and_no_crash(judged: Any, judged_prompts: int) -> None:
    def verdicts(arm: str, opponent: str, seed: int, prompt: int, sample: int) -> tuple[str, str, str]:
        return ("A", "B", "") if prompt < judged_prompts else ("", "", "cost cap")

    sweep = judged(verdicts)
    contest = one(load_ledger(sweep.folder))
    assert (contest.preference, contest.swap_consistency, contest.counts) == (None, None, False)
    report = build_report(load_ledger(sweep.folder))
    assert "too few verdicts" in render_html(report)
    assert "too few verdicts" in render_markdown(report)


def test_equal_responses_are_even_and_say_nothing_of_order(judged: Any) -> None:
    contest = one(load_ledger(judged(lambda *_: ("", "", "identical responses")).folder))

    assert (contest.preference.value, contest.swap_consistency, contest.counts) == (50.0, None, True)


def test_a_reward_model_has_no_order(judged: Any) -> None:
    sweep = judged(lambda *_: ("", "", "identical responses"), name="reward_model")
    contest = one(load_ledger(sweep.folder))

    assert (contest.preference.value, contest.counts) == (50.0, True)
    assert "scores each response by itself" in render_html(build_report(load_ledger(sweep.folder)))


# --------------------------------------------------------------------------------------------------------- as primary
@pytest.fixture
def decided_by(judged: Any, synthetic: Any) -> Callable[..., Ledger]:
    """A ledger in which an asked judge decides."""

    def make(verdicts: Callable[..., tuple[str, str, str]], primary: str = "endpoint", **options: Any) -> Ledger:
        sweep = judged(verdicts, num_prompts=40, **options)
        named = {**synthetic.RULES["win_rate"], "primary_judge": primary}
        sweep.edit("plan.json", rules={**synthetic.RULES, "win_rate": named})
        return load_ledger(sweep.folder)

    return make


def dpo_wins(arm: str, opponent: str, *_: int) -> tuple[str, str, str]:
    """Against the gold scores of the synthetic sweep, in which the PPO arm is ahead."""
    return ("A", "B", "") if arm == "dpo" else ("B", "A", "")


def test_an_asked_judge_can_decide_everything(decided_by: Any, resamples_for: Any) -> None:
    ledger = decided_by(dpo_wins)
    found = compare_all(ledger, resamples_for(ledger))
    assert {key[2] for key, rate in found.items() if rate.adjusted_p is not None} == {"endpoint"}
    assert ahead(found["ppo", "dpo", "endpoint"]) == "dpo"
    assert found["ppo", "dpo", "endpoint"].independence == "INDEPENDENT"

    report = build_report(ledger)
    assert report["headline"].startswith("DPO (dpo) beats PPO (ppo): it wins 100 %")
    assert "of pairs by endpoint; 1 of 2 arms beats the base, and ppo fell below it" in report["headline"]
    assert report["decision"]["confidence"] == "low"
    assert [arm["verdict"] for arm in report["arms"]] == ["is worse than the base", "beats the base"]
    gate = report["gates"]["ppo"][0]
    assert (gate["meaning"], gate["reply"]) == ("against the base, by endpoint", "no")
    assert report["strengths"]["judge"] == "endpoint"
    assert report["judges"]["endpoint"]["decides"]
    for text in (render_html(report), render_markdown(report)):
        assert "Every comparison by endpoint" in text
        assert "Verdict by endpoint" in text


def test_scores_contradicting_the_judge_that_decides_lower_the_confidence(decided_by: Any) -> None:
    ledger = decided_by(dpo_wins, seeds=(0, 1, 2))
    report = build_report(ledger)
    assert report["decision"]["final"]["second_judge"] == "gold"
    assert report["decision"]["confidence"] == "low"


@pytest.fixture
def two_of_ppo(synthetic: Any) -> dict[str, Any]:
    """The measure likes the first PPO arm best; `prefers_plain` the second."""
    rises = {"praise": ("ppo", 0.3), "plain": ("ppo", 0.0), "pairs": ("dpo", 0.1)}
    return {name: synthetic.Arm(algorithm, (gain,)) for name, (algorithm, gain) in rises.items()}


def prefers_plain(arm: str, *_: Any) -> tuple[str, str, str]:
    return ("A", "B", "") if arm == "plain" else ("B", "A", "")


def test_who_decides_also_chooses_and_is_shown(decided_by: Any, two_of_ppo: Any) -> None:
    report = build_report(decided_by(prefers_plain, arms=two_of_ppo))
    final = report["decision"]["final"]
    assert (final["arm"], final["ahead"], final["judge"]) == ("plain", "plain", "endpoint")
    assert report["headline"].startswith("PPO (plain) beats DPO (pairs): it wins 100 %")
    wins = {name: value for name, value in report["summary"].items() if name.startswith("win_rate/")}
    assert wins == {
        "win_rate/praise_vs_base": 0, "win_rate/plain_vs_base": 100, "win_rate/pairs_vs_base": 0,
        "win_rate/praise_vs_pairs": 0, "win_rate/plain_vs_pairs": 100,
    }  # fmt: skip
    assert report["summary"]["gold/praise"] > report["summary"]["gold/plain"]
    row = next(row for row in glance.summary(report).rows if row.label == "Win rate against the base")
    assert "endpoint" in row.meaning
    assert [item.main for item in row.cells[1:3]] == ["0.0\u00a0%", "100.0\u00a0%"]
    assert [row.cells[0].main for row in win_rate_tables.matrix(report).rows] == ["0.0\u00a0%", "100.0\u00a0%"]
    assert "plain 100.00 percent" in pictures(report)["win_rates"].svg


def test_without_the_verdicts_that_choose_nobody_is_chosen(decided_by: Any, two_of_ppo: Any) -> None:
    def half_answered(arm: str, opponent: str, seed: int, prompt: int, sample: int) -> tuple[str, str, str]:
        return ("", "", "timeout") if (arm, opponent) == ("praise", "base") and sample else prefers_plain(arm)

    report = build_report(decided_by(half_answered, arms=two_of_ppo))
    assert report["decision"]["final"] is None
    assert "endpoint has given too few verdicts against the base to choose one of the PPO arms" in report["headline"]
    assert "no arm is chosen" in render_html(report)


def test_with_one_arm_of_each_there_is_nothing_to_choose_and_gaps_do_not_matter(decided_by: Any) -> None:
    report = build_report(decided_by(lambda arm, other, *_: ("", "", "timeout") if other == "base" else ("A", "B", "")))
    assert report["decision"]["final"]["rate"]["value"] == 100
    assert [arm["win_rate"]["endpoint"] for arm in report["arms"]] == [None, None]
    assert not any(name.endswith("_vs_base") for name in report["summary"] if name.startswith("win_rate/"))
    assert "ppo without a verdict" in pictures(report)["win_rates"].svg


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"relation": "IS THE TRAINING REWARD"}, "the judge is the training reward"),
        ({"relation": "unheard of"}, "how the judge relates to the training reward is not recorded"),
    ],
)
def test_a_judge_that_is_or_may_be_the_training_reward_decides_nothing(decided_by: Any, options: Any, why: str) -> None:
    report = build_report(decided_by(dpo_wins, **options))
    assert report["headline"].startswith("Neither PPO (ppo) nor DPO (dpo) is shown to be better")
    assert why in report["headline"]
    assert {arm["verdict"] for arm in report["arms"]} == {"is not shown to differ from the base"}
    assert report["gates"]["ppo"][0]["reply"] == "not assessable"
    assert render_html(report)


def test_a_deciding_judge_that_goes_by_the_order_decides_nothing(decided_by: Any, resamples_for: Any) -> None:
    ledger = decided_by(lambda *_: ("A", "A", ""))
    found = compare_all(ledger, resamples_for(ledger))["ppo", "base", "endpoint"]
    assert "survives the swap of order in 0 %" in found.blocked


def test_a_deciding_judge_that_failed_leaves_a_report_without_verdicts(decided_by: Any, tmp_path: Path) -> None:
    ledger = decided_by(dpo_wins)
    (ledger.folder / "judges/endpoint/status.json").write_text(json.dumps({"state": "failed", "error": "cost cap"}))
    report = build_report(load_ledger(ledger.folder))
    assert "because the judge that decides, endpoint, has given no result" in report["headline"]
    assert report["gates"]["ppo"][0]["reply"] == "not assessable"
    assert render_html(report)
    assert render_markdown(report)


def test_a_judge_that_was_never_planned_is_refused(decided_by: Any) -> None:
    with pytest.raises(LedgerError, match="primary_judge is 'reward_model'; there are gold, vader, endpoint"):
        rules_of(decided_by(dpo_wins, primary="reward_model"))


def test_preferences_of_a_judge_follow_the_seeds_that_are_left(judged: Any) -> None:
    """The judge has seen both seeds; one run's evaluation was then taken back."""
    sweep = judged(lambda *_: ("A", "B", ""), seeds=(0, 1))
    sweep.edit("dpo/seed0/status.json", state="failed", error="disk")
    ledger = load_ledger(sweep.folder)
    assert ledger.preferences("endpoint", "ppo", "dpo").shape == (1, 12, 2)
    assert ledger.preferences("endpoint", "ppo", "base").shape == (2, 12, 2)


# ---------------------------------------------------------------------------------------------------- in the report
def test_a_sweep_without_a_judge_has_no_such_section(make_ledger: Callable[..., Ledger]) -> None:
    report = build_report(make_ledger())

    assert (report["asked_judges"], report["missing_judges"]) == ([], [])
    assert "Further judges" not in render_html(report) + render_markdown(report)


def test_a_judge_moves_no_other_number(make_ledger: Callable[..., Ledger], judged: Any, tmp_path: Any) -> None:
    sweep = judged(lambda *_: ("A", "B", ""))
    with_judge = build_report(load_ledger(sweep.folder))
    plan = json.loads((sweep.folder / "plan.json").read_text())
    sweep.edit("plan.json", jobs=[job for job in plan["jobs"] if job["kind"] != "judgement"])
    without = build_report(load_ledger(sweep.folder))

    changed = {key for key in without if without[key] != with_judge[key]}
    assert changed == {"asked_judges", "ledger"}  # the ledger's hash covers what the judge wrote


def test_what_a_judge_took_and_how_it_relates_is_in_the_report(judged: Any) -> None:
    numbers = {"num_requests": 70.0, "num_cached_answers": 2.0, "cost": 0.0123, "cap_reached": 1.0}
    ledger = load_ledger(judged(lambda *_: ("A", "B", ""), numbers=numbers, relation="SAME FAMILY").folder)
    report = build_report(ledger)

    for text in (render_html(report), render_markdown(report)):
        assert "SAME FAMILY" in text
        assert (
            "70 requests sent; 2 answers known from earlier runs; 0.0123 EUR in all; the cost cap was reached" in text
        )


def test_hostile_texts_of_a_judge_are_escaped(judged: Any) -> None:
    attack = "<script>alert(1)</script>|`x`"
    sweep = judged(lambda *_: ("A", "", attack))
    (sweep.folder / "judges/endpoint/judge.json").write_text(json.dumps({"relation": attack, "evidence": attack}))
    report = build_report(load_ledger(sweep.folder))

    assert "<script" not in render_html(report)
    assert "<script" not in render_markdown(report)


def test_an_unfinished_judge_is_listed_and_the_report_does_without(judged: Any) -> None:
    sweep = judged(lambda *_: ("A", "B", ""))
    sweep.edit("judges/endpoint/status.json", state="failed", error="no such model")
    ledger = load_ledger(sweep.folder)

    assert (ledger.judges, ledger.missing) == ({}, ())
    assert [(item.run, item.reason) for item in ledger.missing_judges] == [
        ("judges/endpoint", "failed (no such model)")
    ]
    assert "no such model" in render_html(build_report(ledger))


def test_a_judge_of_other_evaluations_is_not_believed(judged: Any) -> None:
    sweep = judged(lambda *_: ("A", "B", ""))
    spec = json.loads((sweep.folder / "judges/endpoint/spec.json").read_text())
    spec["needs"]["dpo/seed0/evaluation"]["identity"] = "other"
    sweep.edit("judges/endpoint/spec.json", needs=spec["needs"])

    (missing,) = load_ledger(sweep.folder).missing_judges
    assert missing.reason.startswith("has not judged the results of dpo/seed0/evaluation")


def test_a_judge_that_has_not_seen_every_arm_is_not_believed(judged: Any) -> None:
    sweep = judged(lambda *_: ("A", "B", ""))
    spec = json.loads((sweep.folder / "judges/endpoint/spec.json").read_text())
    del spec["needs"]["ppo/seed0/evaluation"]
    sweep.edit("judges/endpoint/spec.json", needs=spec["needs"])

    (missing,) = load_ledger(sweep.folder).missing_judges
    assert missing.reason.startswith("has not judged the results of ppo/seed0/evaluation")


def test_a_judge_may_have_seen_an_arm_that_the_report_lacks(judged: Any) -> None:
    sweep = judged(lambda *_: ("A", "B", ""))
    sweep.edit("dpo/seed0/evaluation/status.json", state="failed")

    assert list(load_ledger(sweep.folder).judges) == ["endpoint"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.assign(score=2.0), "scores outside 0 to 1"),
        (lambda rows: rows.assign(prompt_id="x"), "prompts that were not evaluated"),
        (lambda rows: rows.drop(columns="note"), "must have the columns"),
    ],
)
def test_a_broken_file_of_preferences_is_named(judged: Any, change: Callable[..., pd.DataFrame], message: str) -> None:
    sweep = judged(lambda *_: ("A", "B", ""))
    path = sweep.folder / "judges/endpoint/preferences.parquet"
    change(pd.read_parquet(path)).to_parquet(path)

    with pytest.raises(LedgerError, match=message):
        load_ledger(sweep.folder)


def test_a_large_sweep_is_read_in_a_second_or_two(synthetic: Any) -> None:
    """24 contests x 3 seeds x 200 prompts x 4 samples: the size that a report must manage."""
    prompts = [f"{number:016x}" for number in range(200)]
    index = pd.MultiIndex.from_product([range(3), prompts, range(4)], names=["seed", "prompt_id", "sample_id"])
    rows = index.to_frame(index=False).assign(score=0.5, ours_first="A", ours_second="A", note="")
    contests = {(f"arm{a}", f"arm{b}"): rows for a in range(8) for b in range(10, 13)}
    judge = judges.AskedJudge("endpoint", {}, "INDEPENDENT", "", {}, contests)
    samples = pd.DataFrame({"prompt_id": prompts})
    rules = Rules.model_validate(synthetic.RULES)
    ledger = Ledger({}, rules, (), (), samples, samples, {}, {}, Path(), judges={"endpoint": judge})
    start = time.process_time()
    for arm, opponent in contests:
        ledger.preferences("endpoint", arm, opponent)
        ledger.swap_agreement("endpoint", arm, opponent)

    assert time.process_time() - start < 2
