from __future__ import annotations

import copy

import pytest

from analysis.ledger.load import load_ledger
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html, view
from analysis.report.sections import win_rate
from analysis.report.sections.words import words


@pytest.fixture
def report(make_ledger, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.3,)), "dpo": synthetic.Arm("dpo", (0.0,))}
    return build_report(make_ledger(arms, num_prompts=60))


def row(table, label):
    return next(item for item in table.rows if item.label == label).cells


def test_what_is_shown_and_what_is_not_stand_beside_their_numbers(report):
    table = win_rate.comparisons(report)
    assert table.columns[2] == "p, corrected for 3 comparisons"
    assert row(table, "ppo against the base")[1].main == "▲ ppo ahead"
    unseen = row(table, "dpo against the base")[1]
    assert unseen.main == "● no difference shown"
    effect = report["arms"][1]["win_rate"]["gold"]["minimum_detectable_effect"]
    assert unseen.remark == f"a true one under {effect:.1f}\u00a0points would often go unseen"
    assert win_rate.matrix(report).rows[0].cells[0].remark == "▲ ppo ahead"


def with_rate(report, **changes):
    """The report with other numbers for PPO against the base by gold."""
    changed = copy.deepcopy(report)
    changed["arms"][0]["win_rate"]["gold"].update(changes)
    return changed


@pytest.mark.parametrize(
    ("changes", "main", "remark"),
    [
        ({"ahead": None, "adjusted_p": 0.2}, "● not shown", "clear by itself, not after correction"),
        (
            {"ahead": None, "blocked": "6 of 100 preferences are missing"},
            "no verdict",
            "6 of 100 preferences are missing",
        ),
        ({"ahead": None, "adjusted_p": None}, "descriptive", ""),
        ({"ahead": "base", "value": 30.0, "low": 20.0, "high": 40.0}, "▲ the base ahead", ""),
    ],
)
def test_every_reading_says_why(report, changes, main, remark):
    cell = row(win_rate.comparisons(with_rate(report, **changes)), "ppo against the base")[1]
    assert cell.main == main
    assert cell.remark.startswith(remark)


def test_rate_that_is_not_identified_is_not_shown(report):
    control = {"rates": {"identified": False}, "features": ["length"]}
    cells = row(win_rate.comparisons(with_rate(report, controlled=control)), "ppo against the base")
    assert (cells[4].main, cells[4].remark, cells[5].main) == (
        "not identified",
        "too few pairs are alike in style",
        "–",
    )
    without = row(win_rate.comparisons(with_rate(report, controlled=None)), "ppo against the base")
    assert without[4].main == "not assessable"


def test_other_judges_carry_their_label_and_the_training_reward_no_verdict(report):
    table = win_rate.by_judge(report)
    assert table.columns == ("vader (INDEPENDENT)", "proxy (IS THE TRAINING REWARD)")
    assert row(table, "ppo against dpo")[1].remark == "no verdict: the judge is the training reward"


def test_strengths_are_ranked_with_the_base_at_zero(report):
    table = win_rate.strengths(report)
    assert [item.label for item in table.rows[:2]] == ["base", "ppo"]
    assert table.rows[0].cells[0].main == "0"


def test_circle_is_called_one(report):
    checks = copy.deepcopy(report)
    checks["strengths"]["checks"][0]["intransitive"] = True
    assert win_rate.direct_checks(report).rows[0].cells[3].main == "● agree"
    assert win_rate.direct_checks(checks).rows[0].cells[3].main == "▲ judge intransitivity"


def test_outcomes_have_their_exact_test(report):
    table = win_rate.outcomes(report)
    assert [item.label for item in table.rows][:2] == ["ppo: cut at the length limit", "ppo: empty"]
    assert row(table, "ppo: empty")[4].main == "1"


def test_one_algorithm_alone_without_primary_comparisons_still_renders(make_sweep, synthetic):
    sweep = make_sweep({"ppo": synthetic.Arm("ppo", (0.3,))})
    sweep.edit(
        "plan.json", rules={**synthetic.RULES, "win_rate": {**synthetic.RULES["win_rate"], "primary_comparisons": []}}
    )
    report = build_report(load_ledger(sweep.folder))
    assert win_rate.matrix(report) is None
    assert win_rate.direct_checks(report) is None
    assert row(win_rate.comparisons(report), "ppo against the base")[1].main == "descriptive"
    for text in (render_html(report), render_markdown(report)):
        assert "There is no pair to compare." in text


def test_controlled_rate_reaches_its_gate(report):
    gate = next(item for item in report["gates"]["ppo"] if item["name"].lower().startswith("controlled"))
    assert gate["number"] == report["arms"][0]["win_rate"]["gold"]["controlled"]["rates"]["controlled"]


def test_the_words_name_the_judge_that_decides(report):
    def meaning(term, report):
        return dict(words(report))[term]

    assert view(report, ())["words"] == words(report)
    assert "gold: probability of a positive text. It decides here" in meaning("Measure", report)
    assert "which gold prefers" in meaning("Win rate", report)
    asked = {**report, "judges": {"endpoint": {"decides": True}}}
    assert "does not decide here" in meaning("Measure", asked)
    assert "which endpoint prefers" in meaning("Win rate", asked)
