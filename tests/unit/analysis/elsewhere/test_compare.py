from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.elsewhere.outputs import OutputsError, align, halves, read_outputs

WORDS = ["the", "film", "story", "people", "some", "scenes", "plain", "old", "town", "of", "a", "river"]


def rows(seed: int, num_prompts: int = 30, samples: int = 2, keys=("prompt", "output")) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    return [
        {keys[0]: f"prompt {prompt}", keys[1]: " ".join(rng.choice(WORDS, size=rng.integers(8, 20))) + "."}
        for prompt in range(num_prompts)
        for _ in range(samples)
    ]


def write(path: Path, content: list[dict[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in content))
    return path


def printed(capsys, *arguments: object) -> dict:
    assert main([str(argument) for argument in ("compare", *arguments, "--json")]) == 0
    return json.loads(capsys.readouterr().out)


def readings(arm: dict) -> dict[str, str]:
    return {item["measure"]: item["reading"] for item in arm["style_drift"]}


# ------------------------------------------------------------------------------------------------------------- reading
def test_every_form_reads_the_same(tmp_path):
    content = rows(0)
    renamed = [{"instruction": row["prompt"], "response": row["output"], "id": 3} for row in content]
    (tmp_path / "list.json").write_text(json.dumps(content, indent=2))
    (tmp_path / "packed.json").write_bytes(gzip.compress(json.dumps(renamed).encode()))
    (tmp_path / "marked.jsonl").write_text("\ufeff" + "\n\n".join(json.dumps(row) for row in content) + "\n")
    found = [read_outputs(tmp_path / name) for name in ("list.json", "packed.json", "marked.jsonl")]
    assert found[0].responses == found[1].responses == found[2].responses
    assert len(found[0].responses) == 30
    assert len(found[0].responses["prompt 7"]) == 2


def test_unusable_rows_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", rows(0))
    extra = ['{"prompt": "p"}', "{torn", '{"prompt": "p", "output": 3}']
    path.write_text(path.read_text() + "\n" + "\n".join(extra))
    found = read_outputs(path)
    assert (found.num_missing, found.num_malformed) == (1, 2)
    assert "p" not in found.responses


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 of 0 rows"),
        ("[1, 2]", "2 of 2 rows cannot be used, the first in row 1: not a JSON object"),
        (
            '{"prompt": "p", "output": "o"}\n{"prompt": "p"}',
            "1 of 2 rows cannot be used, the first in line 2: no output",
        ),
        ('{"prompt": ["p"], "output": "o"}', "line 1: prompt is no text"),
        ("[{]", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        ("{" * 10, "line 1: not a JSON object"),
    ],
)
def test_errors_name_file_and_row(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(OutputsError, match=r"broken\.json") as error:
        read_outputs(path)
    assert message in str(error.value)


def test_other_bytes_and_absent_files(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("bytes.json", "not UTF-8"), ("absent.json", "No such file")):
        with pytest.raises(OutputsError, match=message):
            read_outputs(tmp_path / name)


def test_files_are_cut_to_what_they_share(tmp_path):
    one = read_outputs(write(tmp_path / "1", [{"prompt": p, "output": f"1{p}{i}"} for p in "cab" for i in range(3)]))
    two = read_outputs(write(tmp_path / "2", [{"prompt": p, "output": f"2{p}{i}"} for p in "abd" for i in range(2)]))
    aligned = align([one, two])
    assert aligned.texts == (["1a0", "1a1", "1b0", "1b1"], ["2a0", "2a1", "2b0", "2b1"])
    assert aligned.prompt_N.tolist() == [0, 0, 1, 1]
    with pytest.raises(OutputsError, match="share 0 prompts"):
        align([one, read_outputs(write(tmp_path / "3", [{"prompt": "z", "output": "z"}]))])


def test_the_base_is_split_only_where_every_prompt_has_two(tmp_path):
    pairs = read_outputs(write(tmp_path / "1", rows(0)))
    first, second = halves(pairs)
    assert first.responses["prompt 3"] + second.responses["prompt 3"] == pairs.responses["prompt 3"]
    assert halves(read_outputs(write(tmp_path / "2", rows(0)[:-1]))) is None


# ------------------------------------------------------------------------------------------------------------- command
def test_shifted_texts_are_found_beside_a_twin(tmp_path, capsys):
    shifted = [{**row, "output": "- " + row["output"].upper()} for row in rows(3)]
    files = [
        write(tmp_path / name, content) for name, content in (("model-2.1.jsonl", shifted), ("twin.json", rows(4)))
    ]
    base, again = write(tmp_path / "base.jsonl", rows(5)), write(tmp_path / "again.jsonl", rows(6))
    content = printed(capsys, *files, "--base", base, "--base-again", again)
    assert [arm["arm"] for arm in content["arms"]] == ["model-2.1", "twin"]
    shifted, twin = (readings(arm) for arm in content["arms"])
    assert shifted["separability"] == shifted["capitals"] == shifted["list_items"] == "drifted"
    assert "drifted" not in twin.values()
    assert content["style"]["pairs"][0]["told_apart"]
    assert "more words in capitals" in [item["direction"] for item in content["arms"][0]["style_moved"]]
    assert {file["num_used"] for file in content["files"]} == {60}
    assert (content["num_prompts"], content["num_responses"]) == (30, 60)


def test_without_a_second_base_file_the_floor_says_what_it_is(tmp_path, capsys):
    one, two = (write(tmp_path / f"{name}.jsonl", rows(seed)) for name, seed in (("one", 1), ("two", 2)))
    pairs, single = write(tmp_path / "pairs", rows(5)), write(tmp_path / "single", rows(5, samples=1))
    split = printed(capsys, one, two, "--base", pairs)
    assert "every second response" in split["style"]["floor"]
    assert split["files"][2] | {"num_used": 60, "num_left_out": 0} == split["files"][2]
    assert split["files"][0]["num_left_out"] == 30
    weaker = printed(capsys, one, two, "--base", single)
    assert "weaker" in weaker["style"]["floor"]
    assert readings(weaker["arms"][0])["semantic_shift"].startswith("not assessable")
    assert "drifted" not in readings(weaker["arms"][0]).values()


# -------------------------------------------------------------------------------------------------------- other scripts
SUBJECTS = {
    "Chinese": ("这家饭馆的菜", "昨天的球赛", "我妹妹的画", "山上的小路"),
    "Japanese": ("この店の料理", "昨日の試合", "妹の絵", "山の小道"),
    "Thai": ("อาหารร้านนี้", "การแข่งขันเมื่อวาน", "ภาพวาดของน้องสาว", "ทางเดินบนเขา"),
    "Korean": ("이 식당의 음식은 ", "어제 경기는 ", "동생의 그림은 ", "산길은 "),
    "English": ("the food here ", "the match yesterday ", "my sister's drawing ", "the path "),
}
VERDICTS = {
    "Chinese": ("很不错。", "让人难忘。", "有些奇怪。", "十分普通。"),
    "Japanese": ("はとても良い。", "は忘れられない。", "は少し変だ。", "は普通だ。"),
    "Thai": ("ดีมาก ", "น่าจดจำ ", "แปลกนิดหน่อย ", "ธรรมดา "),
    "Korean": ("아주 좋다. ", "잊을 수 없다. ", "조금 이상하다. ", "평범하다. "),
    "English": ("is very good. ", "is lovely. ", "is odd. ", "is plain. "),
}
GREETING = {
    "Chinese": "好的，没问题！",
    "Japanese": "はい、もちろんです！",
    "Thai": "ได้เลยค่ะ ",
    "Korean": "네, 물론입니다! 기꺼이 도와 드리겠습니다. ",
    "English": "of course, I can help! ",
}
FOR_ENGLISH = {"readability", "function_word_jsd", "hedges", "boosters", "first_person", "refusals", "apologies"}


def clauses(language: str, seed: int, greeting: bool = False, num_prompts: int = 30) -> list[dict[str, str]]:
    """Four sentences a response, or eight after the same greeting."""
    rng = np.random.default_rng(seed)
    drawn = [
        "".join(rng.choice(SUBJECTS[language]) + rng.choice(VERDICTS[language]) for _ in range(8 if greeting else 4))
        for _ in range(num_prompts)
    ]
    opening = GREETING[language] if greeting else ""
    return [{"prompt": f"prompt {at}", "output": opening + text} for at, text in enumerate(drawn)]


@pytest.fixture
def compared(tmp_path, capsys):
    """Greeting texts, and others like the base's, against the base's; one language for each of the three."""

    def run(greeting: str, plain: str, base: str) -> dict:
        sides = (clauses(greeting, 1, greeting=True), clauses(plain, 5), clauses(base, 6), clauses(base, 7))
        one, two, base_file, again = (write(tmp_path / f"{at}.jsonl", side) for at, side in enumerate(sides))
        return printed(capsys, one, two, "--base", base_file, "--base-again", again)

    return run


@pytest.mark.parametrize("language", SUBJECTS)
def test_every_script_is_read_by_its_own_words(compared, language):
    content = compared(language, language, language)
    greeting, plain = ({item["measure"]: item for item in arm["style_drift"]} for arm in content["arms"])
    assert greeting["words"]["reading"] == greeting["opening_entropy"]["reading"] == "drifted"
    assert greeting["opening_entropy"]["ours"]["value"] == 0
    assert greeting["opening_entropy"]["base"]["value"] > 1.5
    assert greeting["words"]["ours"]["value"] > 1.7 * greeting["words"]["base"]["value"]
    assert "drifted" not in readings(content["arms"][1]).values()
    assert (plain["sentences"]["change"] is None) is (language == "Thai")
    assert (plain["characters_per_word"]["change"] is None) is (language in {"Chinese", "Japanese", "Thai"})
    assert bool(content["style"]["script"]) is (language in {"Chinese", "Japanese", "Thai"})
    for measure in FOR_ENGLISH:
        is_read = plain[measure]["reading"] == "within the floor"
        assert is_read is (language == "English")
        assert is_read or plain[measure]["reading"].startswith("not assessable for this script: 100 % of the words are")


def test_arm_that_answers_in_another_script_is_not_held_against_english_words(compared):
    content = compared("Chinese", "English", "English")
    chinese, english = ({item["measure"]: item for item in arm["style_drift"]} for arm in content["arms"])
    for measure in FOR_ENGLISH | {"capitals", "characters_per_word"}:
        assert chinese[measure]["reading"].startswith("not assessable for this script: 100 % of the words are Chinese")
        assert english[measure]["change"] is not None
    named = " ".join(item["direction"] for item in content["arms"][0]["style_moved"])
    assert "school years" not in named
    assert content["arms"][0]["style_drift"][0]["reading"] == "drifted"


def test_responses_half_in_another_script_are_too_mixed_for_english_measures(tmp_path, capsys):
    mixed = [clauses("English" if at % 2 else "Japanese", seed=at)[at] for at in range(30)]
    files = [write(tmp_path / f"{at}.jsonl", side) for at, side in enumerate((mixed, clauses("English", 2)))]
    content = printed(capsys, *files, "--base", write(tmp_path / "base.jsonl", clauses("English", 3)))
    assert readings(content["arms"][0])["hedges"].startswith("not assessable for this script")
    assert not readings(content["arms"][1])["hedges"].startswith("not assessable for this script")


def test_text_says_what_a_word_is(tmp_path, capsys):
    files = [write(tmp_path / f"{seed}.jsonl", clauses("Thai", seed)) for seed in (1, 2, 3)]
    assert main(["compare", str(files[0]), str(files[1]), "--base", str(files[2])]) == 0
    text = capsys.readouterr().out
    assert "Words in Thai have no spaces between them, so every letter counts as a word." in text
    assert "not assessable for this script: 100 % of the words are Thai" in text


def test_text_for_terminals_shows_no_control_characters(tmp_path, capsys):
    hostile = [{**row, "output": f"\x1b[2J{row['output']} \u202e wipe | \x07"} for row in rows(1)]
    one, two = write(tmp_path / "o\x1bne.jsonl", hostile), write(tmp_path / "two.jsonl", rows(2))
    base = write(tmp_path / "base.jsonl", rows(3))
    assert main(["compare", str(one), str(two), "--base", str(base)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "⟨U+001B⟩" in text
    assert "told apart from the base" in text
    assert "Drifted: over the noise floor" in text


def test_bad_input_is_one_line_and_exit_code_two(tmp_path, capsys):
    good = write(tmp_path / "good.jsonl", rows(1))
    assert main(["compare", str(good), str(tmp_path / "absent"), "--base", str(good)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    rules = tmp_path / "rules.yaml"
    rules.write_text("style: {min_auc: 0.6}")
    assert main(["compare", str(good), str(good), "--base", str(good), "--rules", str(rules)]) == 2
    assert "rules.yaml: no usable rules for style" in capsys.readouterr().err


def test_real_texts(tmp_path, capsys, alpaca_eval):
    """Asked to be verbose, one model writes at greater length; asked to be concise, not."""
    files = {}
    for name in ("alpaca-7b_verbose", "alpaca-7b_concise", "alpaca-7b"):
        comparisons = json.loads(gzip.decompress((alpaca_eval / f"{name}.annotations.json.gz").read_bytes()))
        outputs = [{"instruction": row["instruction"], "output": row["output_2"]} for row in comparisons]
        files[name] = write(tmp_path / f"{name}.json", outputs)
    content = printed(capsys, files["alpaca-7b_verbose"], files["alpaca-7b_concise"], "--base", files["alpaca-7b"])
    verbose, concise = content["arms"]
    assert readings(verbose)["words"] == "drifted"
    assert "more words" in [item["direction"] for item in verbose["style_moved"]]
    assert readings(concise)["words"] == "within the floor"
    assert content["num_prompts"] > 790
