from __future__ import annotations

from collections import Counter

import pytest

from analysis.style.scripts import (
    ENGLISH,
    PLAIN_WORD,
    SPACED,
    STOPPED,
    find_words,
    note,
    scripts_of,
    split_words,
    unfit,
)
from analysis.style.surface import FEATURES, Text, proportions, repeats

VALUES = {feature.name: feature.value for feature in FEATURES}
CHINESE = "春天来了，河边的柳树发芽了。"
JAPANESE = "春が来ました。コーヒーを飲みますか？"
THAI = "ฤดูร้อนที่นี่ร้อนมาก"
KOREAN = "봄이 왔습니다. 강가에 버드나무가 있습니다."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("春天来了，好。", ["春", "天", "来", "了", "好"]),
        ("コーヒーを飲む", ["コ", "ー", "ヒ", "ー", "を", "飲", "む"]),
        ("ที่นี่", ["ที่", "นี่"]),  # a vowel sign and a tone stay with their letter
        ("ຂ້າວ", ["ຂ້", "າ", "ວ"]),
        ("ភាសា", ["ភា", "សា"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("봄이 왔습니다", ["봄이", "왔습니다"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("用 Python 3 写的 don't", ["用", "Python", "3", "写", "的", "don't"]),
        ("iPhone手机", ["iPhone", "手", "机"]),
    ],
)
def test_words_by_hand(text, words):
    assert find_words(text) == words


def test_words_of_spaced_scripts_are_what_they_were():
    text = "It's naïve – “quoted”, state-of-the-art; Привет, мир: 3.5 % of γάμμα_delta 🎉️ isn't"
    assert find_words(text) == PLAIN_WORD.findall(text)
    assert split_words(text) == text.split()


def test_split_words_keeps_blanks_and_takes_unspaced_letters_apart():
    assert split_words("The 电影, good") == ["The", "电", "影", ",", "good"]
    assert proportions("电影 电影")[3] == 0.5  # two different words among four


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (CHINESE + "天气很好！是吗？", 3),
        (JAPANESE, 2),
        ("ನಮಸ್ಕಾರ। यह है। अच्छा॥", 3),
        ("မင်္ဂလာပါ။ နေကောင်းလား။", 2),
        (KOREAN, 2),
        ("No. Yes!", 2),
    ],
)
def test_full_stops_of_other_scripts_end_sentences(text, sentences):
    assert VALUES["sentences"](Text.read(text)) == sentences


def test_wide_marks_are_exclamations_and_questions():
    assert VALUES["exclamations"](Text.read("好！")) == VALUES["questions"](Text.read("好？")) == 100


def test_ordinary_text_in_an_unspaced_script_is_no_loop_and_a_loop_is_one():
    ordinary = "这个电影非常好看，那个电影非常无聊，我不喜欢。"  # 电影非常 comes twice
    assert not repeats(Text.read(ordinary).lower)
    assert repeats(Text.read("我真的非常喜欢这部电影。" * 2).lower)
    assert repeats(Text.read("so good so good so good").lower)


def of(*texts: str) -> Counter[str]:
    return scripts_of(word for text in texts for word in find_words(text))


def test_scripts_are_counted_in_words():
    assert of("用 Python 3 写的", THAI[:1], KOREAN) == {
        "Chinese or Japanese": 3, "Latin": 1, "Thai": 1, "Hangul": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "english", "spaced", "stopped"),
    [
        (CHINESE, False, False, True),
        (JAPANESE, False, False, True),
        (THAI, False, False, False),
        (KOREAN, False, True, True),
        ("The tree is green.", True, True, True),
        ("Der Baum ist grün.", True, True, True),
        ("The word 柳 is a tree in the park near here.", True, True, True),
        ("The willow is 柳树发芽了 here.", False, False, True),
        ("2 + 2 = 4", True, True, True),
        ("", True, True, True),
    ],
)
def test_which_measures_fit(text, english, spaced, stopped):
    assert [unfit(fits, of(text)) == "" for fits in (ENGLISH, SPACED, STOPPED)] == [english, spaced, stopped]


def test_one_side_in_another_script_is_enough_and_is_named():
    why = unfit(ENGLISH, of("The tree is green."), of(THAI))
    assert why == "not assessable for this script: 100 % of the words are Thai"
    assert unfit(ENGLISH, of(THAI, KOREAN, CHINESE)).endswith("and others")


def test_note_is_only_for_unspaced_scripts():
    assert note(of("The tree."), of(KOREAN)) == ""
    assert note(of("The tree."), of(CHINESE)).startswith("Words in Chinese or Japanese have no spaces between them")
