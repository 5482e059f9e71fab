from __future__ import annotations

import pytest

from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html

OVER = (0.12, 0.2, 0.24, 0.22, 0.14, 0.04)


@pytest.fixture
def over_optimised(make_ledger, synthetic):
    arms = {
        "ppo": synthetic.Arm("ppo", OVER, reward=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7), kl=40.0),
        "dpo": synthetic.Arm("dpo", (0.05,) * 6, kl=9.0),
    }
    return build_report(make_ledger(arms, num_prompts=100))


def test_verdict_reaches_gate_and_question(over_optimised):
    gate = next(item for item in over_optimised["gates"]["ppo"] if item["name"] == "Over-optimisation")
    assert gate["reply"] == "no"
    assert over_optimised["questions"][2]["reply"] == "yes"
    assert over_optimised["questions"][2]["sentence"] == over_optimised["arms"][0]["switch_answer"]["sentence"]


def test_section_and_figure_show_verdict_switch_and_suspects(over_optimised):
    for page in (render_html(over_optimised), render_markdown(over_optimised)):
        for words in (
            "hacking",
            "stops paying at evaluation point",
            "most training reward for their measure",
            "H4b",
            "descriptive",
        ):
            assert words in page
        assert "does not warn of what is to come" in page
    assert "switch point, 80 %" in render_html(over_optimised)


def test_sweep_without_ppo_has_no_switch_question(make_ledger, synthetic):
    report = build_report(make_ledger({"dpo": synthetic.Arm("dpo", (0.1, 0.2))}, num_prompts=24))
    assert report["questions"][2]["sentence"].startswith("Not assessable")
