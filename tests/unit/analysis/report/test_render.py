from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import CONTENT_SECURITY_POLICY, render_html

HOSTILE = (
    "<script>alert(1)</script>\n```\n# heading | cell\n````\n\x1b[2J\u202e <img src=x onerror=alert(2)> "
    "{{ 7 * 7 }} $\\frac{"
)
VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


class Page(HTMLParser):
    """Collects tags, ids and references, and checks that elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def hostile_report(make_ledger, synthetic):
    def edit(rows):
        return rows.assign(response=HOSTILE, prompt="<b>prompt</b> | ```")

    arms = {"p<i>|`$x": synthetic.Arm("ppo", (0.1,), edit=edit), "dpo": synthetic.Arm("dpo", (0.1,), edit=edit)}
    return build_report(make_ledger(arms))


def test_page_is_self_contained_and_runs_nothing(make_ledger):
    html = render_html(build_report(make_ledger()))
    page = Page(html)
    policies = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [CONTENT_SECURITY_POLICY]
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "link", "form", "img"}
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert re.match(r"#|data:|$", attrs.get(name) or "")
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_page_is_accessible(make_ledger):
    page = Page(render_html(build_report(make_ledger())))
    tags = [tag for tag, _ in page.tags]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert tags.count("table") == tags.count("caption")
    assert all(attrs.get("scope") in {"row", "col"} for tag, attrs in page.tags if tag == "th")
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) == 6
    for attrs in pictures:
        assert attrs["role"] == "img"
        assert set(attrs["aria-labelledby"].split()) <= set(ids)
    assert dict(page.tags)["html"]["lang"] == "en"
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(next_one - level <= 1 for level, next_one in pairwise(levels))
    named = {attrs["for"] for tag, attrs in page.tags if tag == "label"}
    assert {attrs["id"] for tag, attrs in page.tags if tag == "input"} == named


def test_decision_comes_first_and_every_number_last(make_ledger):
    report = build_report(make_ledger())
    html, text = render_html(report), render_markdown(report)
    ids = ("gates", "questions", "over", "frontier", "learning", "samples", "appendices", "glance", "pairs", "points")
    headings = ("What to do", "The three questions", "Samples", "The arms at a glance", "Every evaluation point")
    for page, order in (
        (html, ["<h1>", 'aria-current="true"', *(f'id="{name}"' for name in ids), 'id="limits"', 'id="provenance"']),
        (text, ["# ", "**How sure", *(f"\n## {words}" for words in headings), "\n## What this does not prove"]),
    ):
        places = [page.index(words) for words in order]
        assert places == sorted(places)
    top = text.split("<details>")[0]
    assert len(top.splitlines()) < 40  # what a pull request shows before anything is opened
    assert text.count("<details>") == text.count("</details>")


def test_reader_chooses_the_axis_without_a_script(make_ledger):
    report = build_report(make_ledger())
    page = Page(render_html(report))
    radios = [attrs for tag, attrs in page.tags if tag == "input"]
    assert {attrs["type"] for attrs in radios} == {"radio"}
    assert {attrs["name"] for attrs in radios} == {"axis"}
    assert [attrs["id"] for attrs in radios if "checked" in attrs] == ["axis-prompts_seen"]
    report["arms"][0]["curve"][1]["tokens"] = None
    assert "axis-tokens" not in {attrs.get("id") for _, attrs in Page(render_html(report)).tags}


def test_hostile_text_stays_text_in_html(hostile_report):
    html = render_html(hostile_report)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "i"}
    assert "<b>prompt" not in html
    assert any("<script>alert(1)</script>" in text for text in page.texts)
    assert "{{ 7 * 7 }}" in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert any("p<i>|`$x" in text for text in page.texts)  # in the figures, as text


def test_hostile_text_stays_text_in_markdown(hostile_report):
    text = render_markdown(hostile_report)
    outside, fence = [], None
    for line in text.split("\n"):
        marks = re.fullmatch(r"(`{3,})(text)?", line)
        if fence is None and marks and marks[2]:
            fence = marks[1]
        elif fence is not None and line == fence:
            fence = None
        elif fence is None:
            outside.append(line)
    assert fence is None
    page = "\n".join(outside)
    assert "<script>" not in page
    assert "alert(1)" not in page
    assert "\x1b" not in text
    tables = [line for line in outside if line.startswith("|")]
    assert len(tables) > 30
    assert "p&lt;i&gt;\\|\\`\\$x" in page


def test_tables_of_markdown_have_equal_columns(make_ledger):
    width = None
    for line in render_markdown(build_report(make_ledger())).split("\n"):
        if not line.startswith("|"):
            width = None
            continue
        columns = len(re.findall(r"(?<!\\)\|", line))
        assert width in (None, columns)
        width = columns


def test_reader_finds_what_matters_in_both(make_sweep):
    from analysis.ledger.load import load_ledger

    sweep = make_sweep()
    sweep.edit("dpo/seed0/status.json", state="failed", error="boom")
    report = build_report(load_ledger(sweep.folder))
    for text in (render_html(report), render_markdown(report)):
        for words in (
            "Missing from this report",
            "training failed",
            "What this does not prove",
            "never drives a verdict",
            "noise floor",
            "not assessable",
        ):
            assert words in text  # fmt: skip


def test_rendering_needs_nothing_but_the_json(make_ledger):
    import json

    report = build_report(make_ledger())
    again = json.loads(json.dumps(report))
    assert render_html(again) == render_html(report)
    assert render_markdown(again) == render_markdown(report)
