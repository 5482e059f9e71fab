from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from markdown_it import MarkdownIt

from analysis.text import all_visible, hidden_in, is_hidden, markdown_fence, markdown_inline, visible

SPACES = "\u00a0\u1680\u2000\u2003\u200a\u202f\u205f\u3000"
IGNORABLE = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180f\u200b\u2065\u3164\ufe00\ufe0e\ufe0f\uffa0\ufff0\U000e0100"


def test_hidden_characters_are_spelled_out():
    assert visible("a\x1b[31mb") == "a⟨U+001B⟩[31mb"
    assert visible("\u202egnp.exe") == "⟨U+202E⟩gnp.exe"
    assert visible("zero\u200bwidth \ud800") == "zero⟨U+200B⟩width ⟨U+D800⟩"
    assert visible("line\n\tkept, naïve 日本") == "line\n\tkept, naïve 日本"


@pytest.mark.parametrize("char", [*SPACES, *IGNORABLE, "\u2800"], ids=lambda char: f"U+{ord(char):04X}")
def test_what_looks_like_nothing_or_like_a_space_is_spelled_out(char):
    assert visible(f"Ada{char}Lovelace") == f"Ada⟨U+{ord(char):04X}⟩Lovelace"
    assert hidden_in(f"Ada{char}", with_emoji=True) == [char]


def test_the_hidden_characters_are_as_many_as_unicode_has():
    """Of the 4,174 Default_Ignorable_Code_Points 267 have a category of visible ones; 16 spaces are foreign."""
    old = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    hidden = [chr(code) for code in range(sys.maxunicode + 1) if is_hidden(chr(code))]
    found = [char for char in hidden if unicodedata.category(char) not in old]
    assert sum(unicodedata.category(char) == "Zs" for char in found) == 16
    assert len(found) == 267 + 16 + len("\u2800\U0001d159\U00016fe4")
    planes = [char for char in hidden if 0xE0000 <= ord(char) < 0xE1000]
    assert len(planes) == 4096


@pytest.mark.parametrize(
    "text",
    [
        "نازنین\u200cزهرا می\u200cشود",  # Persian
        "क्\u200dष श्री ශ්\u200dරී",  # Devanagari, Sinhala
        "👩\u200d🔬 🏳\ufe0f\u200d🌈 🧑🏽\u200d💻 ❤\ufe0f 1\ufe0f\u20e3",
        "Cafe\u0301 Žofia 李 Ελένη Иван",
    ],
)
def test_what_a_script_or_an_emoji_is_spelled_with_stays(text):
    assert visible(text) == text
    assert hidden_in(text, with_emoji=True) == []


@pytest.mark.parametrize(
    "text", ["Ada\u200cLove", "Ada\u200d", "\u200cA", "زهرا\u200cx", "ا\u200cب", "a\ufe0f", "1\ufe0f", "👩\u200dA"]
)
def test_joiners_that_join_nothing_are_spelled_out(text):
    assert "⟨U+" in visible(text)


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


# What GFM (its section on extended autolinks) and GitHub turn into links inside one run of text, after escapes.
LINKED = re.compile(r"(https?|ftp)://|//\w|\bwww\.|[\w.+-]+@[\w-]+\.\w|(?<!\w)@\w|#\d|\bGH-\d", re.IGNORECASE)


@pytest.mark.parametrize(
    "text",
    [
        "see http://evil.example/x?a_b=c.", "HTTPS://A.B", "ftp://a.b/c", "<http://a.b>", "[x](http://a.b)",
        "http&#58;//a.b",
        "www.evil.com", "(WWW.Evil.com/x)", "*www.a.b*", "//evil.com",
        "me@x.co.uk", "first.last+tag@sub.example.com!", "mailto:a@b.co", "xmpp:a@b.co/x",
        "@octocat", "ping @org/team, thanks", "#12", "org/repo#3 and GH-7",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["{}", "| a |\n| --- |\n| {} |", "# {}", "- **x** {}"])
def test_addresses_and_mentions_stay_dead_and_look_the_same(text, place):
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(place.format(markdown_inline(text)))
    (inline,) = [token for token in tokens if token.type == "inline" and token.content not in {"a"}]
    runs = "".join("\0" if child.type == "html_inline" else child.content for child in inline.children)
    assert not any(LINKED.search(run) for run in runs.split("\0"))
    assert all(child.type != "link_open" for child in inline.children)
    assert runs.replace("\0", "").removeprefix("x ") == text


@pytest.mark.parametrize("text", ["a.b, 3.5 % and v1.2", "a / b", "issue 12", "half-word GHz-7", "arms[0].gold"])
def test_ordinary_text_is_not_broken(text):
    assert "<!--" not in markdown_inline(text)
