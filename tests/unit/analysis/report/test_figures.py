from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from analysis.report.build import build_report
from analysis.report.figures import INK, PALETTE, pictures, recorded_axes


@pytest.fixture
def drawn(make_ledger):
    return pictures(build_report(make_ledger()))


def test_figures_are_wellformed_and_take_their_colours_from_the_page(drawn):
    for picture in drawn.values():
        root = ElementTree.fromstring(picture.svg)  # noqa: S314 - our own
        assert "width" not in root.attrib
        assert root.attrib["viewBox"]
        assert INK not in picture.svg
        assert not any(colour in picture.svg for colour in PALETTE)
        assert "currentColor" in picture.svg


def test_text_stays_text_and_says_which_arm(drawn):
    assert re.search(r"<text[^>]*>ppo</text>", drawn["curves_prompts_seen"].svg)
    assert "interval" in re.search(r"<desc[^>]*>(.*)</desc>", drawn["win_rates"].svg)[1]


def test_arms_differ_by_more_than_colour(drawn):
    for name in ("curves_prompts_seen", "frontier"):
        dashes = set(re.findall(r"stroke-dasharray: ([^;\"]+)", drawn[name].svg))
        assert dashes  # ppo is solid, dpo is dashed


def test_nothing_in_a_figure_tells_when_it_was_drawn(drawn):
    for picture in drawn.values():
        assert "<metadata" not in picture.svg
        assert "<!DOCTYPE" not in picture.svg


def test_without_a_training_reward_the_figure_shows_the_measure_alone(make_ledger, synthetic):
    arm = synthetic.Arm("dpo", (0.1,), edit=lambda rows: rows.assign(**{"score/proxy": float("nan")}))
    assert "measure" in pictures(build_report(make_ledger({"dpo": arm})))["over_optimisation"].svg


def test_there_is_a_curve_for_each_axis_that_was_recorded(make_ledger):
    report = build_report(make_ledger())
    assert list(recorded_axes(report)) == ["prompts_seen", "tokens", "device_seconds"]
    assert "after 57,344 tokens" in pictures(report)["curves_tokens"].svg
    report["arms"][1]["curve"][1]["tokens"] = None
    assert list(recorded_axes(report)) == ["prompts_seen", "device_seconds"]
    assert "curves_tokens" not in pictures(report)


def test_frontier_speaks_of_every_arm_and_bears_a_negative_kl(make_ledger):
    report = build_report(make_ledger())
    report["arms"][0]["curve"][1]["kl"] |= {"value": -0.4, "low": -0.9, "high": 0.1}
    svg = pictures(report)["frontier"].svg
    words = re.search(r"<desc[^>]*>(.*)</desc>", svg)[1]
    assert words.count("points") == 2
    assert "nan" not in svg.lower()
