from __future__ import annotations

import pytest

from analysis.ledger.load import load_ledger
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html
from analysis.report.sections import gates, questions
from analysis.report.sections.words import words as words_of


@pytest.fixture
def report(make_ledger):
    return build_report(make_ledger(num_prompts=20))


def test_the_report_says_what_to_do_and_why(report):
    for text in (render_html(report), render_markdown(report)):
        for words in (
            "What to do",
            "Do not choose yet",
            "python -m runner +sweep=synthetic seed=0,1,2",
            "The three questions",
            "Can we tolerate the oscillation of PPO?",
            "U1 Headroom",
            "What would change this",
        ):
            assert words in text


def test_gates_have_arms_as_columns_and_an_outcome_in_every_cell(report):
    table = gates.gates(report)
    assert table.columns == ("ppo", "dpo")
    assert len(table.rows) == 7
    outcomes = ("pass", "fail", "inconclusive", "not assessable")
    for row in table.rows:
        assert all(any(word in item.main + item.remark for word in outcomes) for item in row.cells)


def test_one_row_of_the_rules_is_marked(report):
    marks = [row.cells[2].main for row in gates.rules(report).rows]
    assert marks.count("▲ this one") == 1
    assert marks.index("▲ this one") == report["recommendation"]["row"]


def test_the_first_question_comes_with_its_numbers(report):
    first, second, third = questions.questions(report)
    assert len(first["evidence"].rows) == 9
    assert len(second["evidence"].rows) >= 1  # one variant of PPO
    assert third["evidence"] is None


def test_a_where_question_is_not_answered_by_no(report):
    report["questions"][2] |= {"reply": "no", "in_words": "No switch inside the observed range"}
    assert [item["reply"] for item in questions.questions(report)][2] == "No switch inside the observed range"
    assert "<strong>No switch inside the observed range.</strong>" in render_html(report)


def test_answers_are_seen_and_their_evidence_is_folded(report):
    for text in (render_html(report), render_markdown(report)):
        answers = text.partition("The three questions")[2]
        head, evidence = answers.split("<details><summary>Evidence", 1)
        assert "What would change this" in head
        assert "9 measurements against thresholds" in evidence
        assert "U1 Headroom" not in head


def test_words_of_the_first_page_are_explained_on_it(report):
    for text in (render_html(report), render_markdown(report)):
        before_the_gates = text.partition("Gates of the final models")[0]
        for word, _ in words_of(report):
            assert word in before_the_gates


def test_hostile_names_of_sweeps_stay_text(make_sweep):
    sweep = make_sweep()
    sweep.edit("plan.json", sweep="<b>```\n# x; rm -rf /", command=["name=<b>```\n# x; rm -rf /"])
    report = build_report(load_ledger(sweep.folder))
    assert "<b>```" not in render_html(report)
    assert "````text" in render_markdown(report)
