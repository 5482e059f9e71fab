from __future__ import annotations

import pytest

from analysis.report.text import all_visible, markdown_fence, markdown_inline, visible


def test_hidden_characters_are_spelled_out():
    assert visible("a\x1b[31mb") == "a⟨U+001B⟩[31mb"
    assert visible("\u202egnp.exe") == "⟨U+202E⟩gnp.exe"
    assert visible("zero\u200bwidth \ud800") == "zero⟨U+200B⟩width ⟨U+D800⟩"
    assert visible("line\n\tkept, naïve 日本") == "line\n\tkept, naïve 日本"


def test_all_strings_of_a_report_are_made_visible():
    assert all_visible({"a\x00": ["b\x07", 1, None, ("c\x7f",)]}) == {
        "a⟨U+0000⟩": ["b⟨U+0007⟩", 1, None, ["c⟨U+007F⟩"]]
    }


@pytest.mark.parametrize("text", ["plain", "```", "a ````` b", "`` ``` ````"])
def test_fence_is_longer_than_any_run_inside(text):
    opening, *body, closing = markdown_fence(text).split("\n")
    assert opening.removesuffix("text") == closing
    assert "\n".join(body) == text
    assert closing not in text


def test_inline_text_cannot_leave_its_cell_or_become_markup():
    assert markdown_inline("a|b\n# c") == "a\\|b \\# c"
    assert markdown_inline("<script>*x*[y](z)`") == "&lt;script&gt;\\*x\\*\\[y\\](z)\\`"
