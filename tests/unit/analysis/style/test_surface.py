from __future__ import annotations

import pytest

from analysis.style.surface import EMPTY, FEATURES, Text, automated_readability_index, proportions, repeats, words

VALUES = {feature.name: feature.value for feature in FEATURES}


def measure(name: str, text: str) -> float:
    return VALUES[name](Text.read(text))


def test_words_survive_markup_curly_apostrophes_and_emptiness():
    assert words(Text.read("It’s <b>GREAT</b>, 10/10!")) == ["it's", "b", "great", "b", "10", "10"]
    assert words(Text.read(" ...\n")) == [EMPTY]
    assert all(feature.value(Text.read("")) == 0 for feature in FEATURES if feature.name != "sentences")


def test_code_is_left_out_of_everything_but_its_own_count():
    text = "Two words\n```python\n# Header\n- item!\n```\n"
    assert measure("code_blocks", text) == 100
    assert measure("words", text) == 2
    assert measure("headers", text) == measure("list_items", text) == measure("exclamations", text) == 0
    assert measure("words", "open fence\n```\nnever closed") == 2


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("headers", "# One\ntwo three ##four", 25.0),
        ("list_items", "- a b\n2. c\n* d\n1990 was e", 100 * 3 / 8),
        ("bold", "**a b** c __d__ 2 ** 3", 100 * 2 / 6),
        ("table_rows", "| a | b |\n|---|---|\nc | d", 50.0),
        ("exclamations", "a! b!! c d", 75.0),
        ("questions", "a? b", 50.0),
        ("emoji", "fine 🎉🎉 day", 100.0),
        ("capitals", "I SAW THE film A", 40.0),
        ("line_breaks", "a\nb\n\nc d", 75.0),
        ("first_person", "I saw my film, you us", 50.0),
        ("second_person", "You're sure your dog", 50.0),
        ("hedges", "perhaps it's possible that likeliness", 40.0),
        ("boosters", "very, of course fine", 50.0),
        ("apologies", "I'm so sorry", 100.0),
        ("apologies", "a sorrynot", 0.0),
        ("refusals", "I can’t say", 100.0),
        ("flattery", "Great question! Yes", 100.0),
        ("flattery", "Yes. Great question", 0.0),
        ("closing_offers", "Bye. Let me know if so", 100.0),
        ("self_reference", "As an AI, no", 100.0),
        ("sentences", "A b. C d!\nE f", 3.0),
        ("sentences", "Version 3.5 is out", 1.0),
        ("words_per_sentence", "a b c d. e f", 3.0),
        ("characters_per_word", "ab abcd", 3.0),
        ("characters", "ab c", 4.0),
    ],
)
def test_by_hand(name, text, value):
    assert measure(name, text) == pytest.approx(value)


def test_readability_by_hand():
    # 7 words of 27 characters in 2 sentences
    text = Text.read("The good cat sleeps. Rivers flow on.")
    characters = 3 + 4 + 3 + 6 + 6 + 4 + 2
    assert automated_readability_index(text) == pytest.approx(4.71 * characters / 7 + 0.5 * 7 / 2 - 21.43)


def test_loops():
    assert repeats(Text.read("a b c d. A b c d").lower)
    assert not repeats(Text.read("a b c d e a b c").lower)


def test_hostile_text_takes_linear_time():
    """A pattern that backtracks would hang here."""
    for piece in ("**a", "| ", "\n ", "- ", "#" * 7 + " ", "```", "__"):
        text = Text.read(piece * 50_000)
        assert all(feature.value(text) >= 0 or feature.name == "readability" for feature in FEATURES)


def test_proportions_by_hand():
    length, punctuation, capitals, different = proportions("Hi, Bob. Hi,")
    assert (length, punctuation, capitals) == (4, 3 / 12, 3 / 12)
    assert different == pytest.approx(2 / 3)
    assert proportions("") == (0, 0, 0, 1)
