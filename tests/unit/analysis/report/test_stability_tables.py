from __future__ import annotations

import pytest

from analysis.report.build import build_report
from analysis.report.render import render_html
from analysis.report.sections import collapse, stability


@pytest.fixture
def falling(make_ledger, synthetic):
    arms = {
        "ppo": synthetic.Arm("ppo", (0.2, 0.3, 0.0), edit=lambda rows: rows.assign(response="the same")),
        "dpo": synthetic.Arm("dpo", (0.1, 0.2, 0.3)),
    }
    return build_report(make_ledger(arms, num_prompts=40))


def test_tolerance_is_answered_for_each_algorithm(falling):
    table = stability.tolerances(falling)
    assert [row.cells[0].main for row in table.rows] == ["no", "yes"]
    assert [row.label for row in table.rows] == [
        f"Can we tolerate the oscillation of {name}?" for name in ("PPO", "DPO")
    ]


def test_every_row_of_stability_has_a_cell_for_each_arm(falling):
    table = stability.stability(falling)
    assert all(len(row.cells) == 2 for row in table.rows)
    cells = {row.label: row.cells for row in table.rows}
    assert cells["Within the tolerance"][0].tone == "bad"
    assert "observed" in cells["Spread of steps"][0].remark
    assert "base against itself 100.0" in cells["Changed answers"][0].remark


def test_fired_detector_says_where_and_beyond_what(falling):
    rows = {row.label: row.cells for row in collapse.overview(falling).rows}
    assert rows["Identical"][0].main.startswith("■ fired: +100.0")
    assert rows["Identical"][0].remark == "at point 1, seed 0; threshold +2.0\u00a0points"
    assert rows["Identical"][1].main == "ok"
    ppo, dpo = collapse.details(falling)
    assert ppo.columns == dpo.columns == ("1", "2", "3")


@pytest.mark.parametrize("options", [{"num_samples": 1}, {"seeds": (0, 1, 2)}, {"seeds": tuple(range(5))}])
def test_other_designs_can_be_shown(make_ledger, options):
    report = build_report(make_ledger(num_prompts=6, **options))
    assert "Across seeds" in render_html(report)
