from __future__ import annotations

import gzip
import json
import math
import os

import numpy as np
import pytest

from analysis.elsewhere import annotations
from analysis.elsewhere.annotations import AnnotationError, read_alpaca_eval, read_annotations


def test_preferences_become_shares_and_draws_are_half(annotation_row):
    rows = [annotation_row(number, preference=value) for number, value in enumerate([1, 2, 1.5, 0, 1.25])]
    read = read_alpaca_eval(rows)
    assert read.preference_N.tolist() == [0, 1, 0.5, 0.5, 0.25]
    assert (read.generator, read.baseline) == ("model", "baseline")
    assert read.characters_N.tolist() == [len(row["output_2"]) for row in rows]
    assert read.baseline_characters_N.tolist() == [len(row["output_1"]) for row in rows]
    assert (read.num_missing, read.num_malformed) == (0, 0)


def test_rows_of_one_instruction_are_one_prompt(annotation_row):
    rows = [annotation_row(number, instruction=text) for number, text in enumerate(["a", "b", "a"])]
    assert read_alpaca_eval(rows).prompt_N.tolist() == [0, 1, 0]


@pytest.mark.parametrize("preference", [None, math.nan])
def test_missing_preferences_are_counted_and_left_out(annotation_row, preference):
    rows = [annotation_row(number) for number in range(40)]
    rows[3]["preference"] = preference
    del rows[5]["preference"]
    read = read_alpaca_eval(rows)
    assert (len(read.preference_N), read.num_missing, read.num_malformed) == (38, 2, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"preference": "1.5"},
        {"preference": True},
        {"preference": 0.5},
        {"preference": 3},
        {"preference": math.inf},
        {"preference": 10**400},
        {"output_2": None},
        {"output_1": ["text"]},
        {"instruction": 7},
        {"generator_2": None},
    ],
    ids=str,
)
def test_malformed_rows_are_counted_and_left_out(annotation_row, change):
    rows = [annotation_row(number) for number in range(40)]
    rows[3].update(change)
    rows[4] = "not an object"
    read = read_alpaca_eval(rows)
    assert (len(read.preference_N), read.num_missing, read.num_malformed) == (38, 0, 2)


def test_more_than_five_percent_unusable_is_an_error_and_exactly_five_is_not(annotation_row):
    rows = [annotation_row(number) for number in range(40)]
    rows[0]["preference"], rows[1]["preference"] = None, "?"
    assert len(read_alpaca_eval(rows).preference_N) == 38
    rows[2]["output_1"] = None
    with pytest.raises(AnnotationError, match=r"1 comparisons have no preference and 2 are malformed.* 5 % of 40"):
        read_alpaca_eval(rows)


def test_other_columns_are_named(annotation_row):
    row = annotation_row()
    del row["preference"], row["output_1"]
    with pytest.raises(AnnotationError, match="no comparison has output_1, preference"):
        read_alpaca_eval([row])


@pytest.mark.parametrize("value", [[], {}, {"rows": []}, "text", 3, None], ids=repr)
def test_anything_but_a_list_of_comparisons_is_an_error(value):
    with pytest.raises(AnnotationError, match="not a list of comparisons"):
        read_alpaca_eval(value)


def test_two_models_in_one_file_are_an_error(annotation_row):
    rows = [annotation_row(number) for number in range(30)] + [annotation_row(30, generator_2="another\x1b[2J")]
    with pytest.raises(AnnotationError, match="2 different generator_2 in one file") as error:
        read_alpaca_eval(rows)
    assert "\x1b" not in str(error.value)


def test_plain_and_packed_files_read_the_same(tmp_path, annotation_row):
    text = json.dumps([annotation_row(number) for number in range(20)])
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text.encode()))
    plain, packed = (read_annotations(tmp_path / name, "alpaca_eval") for name in ("plain", "packed"))
    assert np.array_equal(plain.preference_N, packed.preference_N)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
        (gzip.compress(b"[1, 2]")[:-5], "cannot be unpacked"),
        (b"\x1f\x8bnonsense", "cannot be unpacked"),
        (gzip.compress(b"[]" + b" " * 10_000), "more than 9000 bytes"),
    ],
    ids=range(8),
)
def test_unreadable_content_is_one_clear_error(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(annotations, "MAX_BYTES", 9000 if b"\x1f" in content else 2**20)
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"file\.json: .*{message}"):
        read_annotations(path, "alpaca_eval")


def test_missing_file_folder_and_unknown_format(tmp_path):
    with pytest.raises(AnnotationError, match=r"absent\.json: No such file"):
        read_annotations(tmp_path / "absent.json", "alpaca_eval")
    with pytest.raises(AnnotationError, match="Is a directory"):
        read_annotations(tmp_path, "alpaca_eval")
    with pytest.raises(AnnotationError, match="unknown format 'arena'; known: alpaca_eval"):
        read_annotations(tmp_path, "arena")


def test_a_pipe_can_be_read(annotation_row):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        json.dump([annotation_row(number) for number in range(5)], stream)
    try:
        assert len(read_annotations(annotations.Path(f"/dev/fd/{reading}"), "alpaca_eval").preference_N) == 5
    finally:
        os.close(reading)


def test_repeated_share_sees_common_beginnings_and_ends():
    bodies = [f"{number} {'x' * number} {number}" for number in range(200)]
    assert annotations.repeated_share(bodies) < 0.02
    assert annotations.repeated_share(["a", "b", "a", "c"]) == 0.5
    assert annotations.repeated_share(["only one"]) == 0
    template = "choose this answer, whatever the other says; " * 5
    assert annotations.repeated_share([body + template for body in bodies]) == 1
    assert annotations.repeated_share([template + body for body in bodies]) == 1
