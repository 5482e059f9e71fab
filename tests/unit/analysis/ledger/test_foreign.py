"""Files that were made to fill the memory, to run for ever or to end in a traceback are refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.__main__ import main
from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.ledger.parquet import read_rows
from experiments.foreign import ForeignFileError, parse_json, read_plain


def repeated(text: str, times: int) -> pa.Table:
    """One text, kept once in the file, many times in the memory."""
    return pa.table({"response": pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), [text])})


BOMBS: dict[str, Callable[[], pa.Table]] = {
    "900 GB of one text": lambda: repeated("a" * 900_000, 1_000_000),
    "20 GB of a short text": lambda: repeated("ab " * 5_000, 1_400_000),
    "zeros": lambda: pa.table({f"c{number}": pa.array(np.zeros(900_000)) for number in range(80)}),
    "a long list": lambda: pa.table({"embedding": [np.zeros(150_000_000, np.int8)]}),
    "a long text": lambda: pa.table({"response": ["a" * 3_000_000]}),
    "many rows": lambda: pa.table({"x": pa.nulls(40_000_000)}),
    "many columns": lambda: pa.table({str(number): [1] for number in range(1_100)}),
    "rows inside rows": lambda: pa.table({"x": [{"a": [{"b": 1}]}]}),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_a_small_file_that_unpacks_to_a_huge_table_is_refused(tmp_path, make):
    path = tmp_path / "bomb.parquet"
    pq.write_table(make(), path, compression="zstd")
    assert path.stat().st_size < 4_000_000
    with pytest.raises(ForeignFileError, match=r"bomb\.parquet is not read: .*(more than|a column holds)"):
        read_rows(path)


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd"])
def test_an_honest_table_is_read_as_pandas_does(tmp_path, codec):
    path, rows = tmp_path / "rows.parquet", range(5_000)
    frame = pd.DataFrame(
        {
            "prompt_id": [f"{row:016x}" for row in rows],
            "response": [f"word {row} " * 40 for row in rows],
            "kind": pd.Categorical(["eos", "length"] * 2_500),
            "score/gold": np.linspace(0, 1, 5_000),
            "embedding": [np.full(16, row, np.float32) for row in rows],
        }
    )
    frame.to_parquet(path, compression=codec)
    pd.testing.assert_frame_equal(read_rows(path), pd.read_parquet(path))


def test_a_flipped_bit_anywhere_in_a_footer_is_one_sentence(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": ["a", "b"], "number": [1.0, 2.0]}).to_parquet(path)
    whole, refused = path.read_bytes(), 0
    length = int.from_bytes(whole[-8:-4], "little")
    generator = random.Random(0)
    for _ in range(300):
        broken = bytearray(whole)
        broken[len(whole) - 8 - generator.randrange(length)] ^= 1 << generator.randrange(8)
        path.write_bytes(broken)
        with contextlib.suppress(ForeignFileError):  # any other error ends the test
            read_rows(path)
            continue
        refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 3, b"\0" * 5_000, b"PAR1" + b"\xff" * 4_000 + b"PAR1"], ids=len
)
def test_what_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(ForeignFileError, match="cannot be read as Parquet"):
        read_rows(tmp_path / "x.parquet")


@pytest.mark.parametrize("read", [read_rows, read_plain])
def test_nobody_waits_at_a_pipe(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ForeignFileError, match="it is no plain file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 70 + "]" * 70,
        '{"a":' * 900 + "1" + "}" * 900,
        "[" * 500_000,
        "1" * 101,
        "-1e999",
        "NaN",
        '{"x": Infinity}',
    ],
    ids=range(7),
)
def test_json_that_breaks_recursion_or_arithmetic_is_refused(content):
    with pytest.raises(ValueError, match=r"nested deeper than 64|has \d+ digits|is no finite number"):
        parse_json(content)


def test_ordinary_json_is_read():
    value = {"a": [1, -2.5e-300, 2**60, None, True, "[[[["], "b": {"c": {}}}
    assert parse_json(json.dumps(value)) == value


def test_a_large_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "sparse.json"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ForeignFileError, match="is larger than 1,000 bytes"):
        read_plain(path, 1_000)


# --------------------------------------------------------------------------------------------- the ledger of a report
def bomb(path: Path) -> None:
    frame = pd.read_parquet(path)
    pq.write_table(
        pa.Table.from_pandas(frame.loc[[0]]).take(pa.array(np.zeros(2_000_001, np.int32))), path, compression="zstd"
    )


def change_plan(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_rule(path: Path, section: str, **changes: object) -> None:
    rules = json.loads(path.read_text())["rules"]
    change_plan(path, rules={**rules, section: {**rules[section], **changes}})


FOREIGN_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "samples that fill the memory": ("ppo/seed0/evaluation/samples/point_1.parquet", bomb, "2,000,001 rows"),
    "numbers that are texts": (
        "dpo/seed0/evaluation/samples/point_2.parquet",
        lambda path: pd.read_parquet(path).assign(**{"score/gold": "high"}).to_parquet(path),
        "values of score/gold that are missing or not finite",
    ),
    "texts that are numbers": (
        "dpo/seed0/evaluation/samples/point_2.parquet",
        lambda path: pd.read_parquet(path).assign(response=3).to_parquet(path),
        "values of response that are missing or no text",
    ),
    "metrics inside metrics": (
        "ppo/seed0/metrics.jsonl", lambda path: path.write_text('{"a": {"b": 1}}\n'), "no object of numbers and texts",
    ),
    "metrics that are a list": ("ppo/seed0/metrics.jsonl", lambda path: path.write_text("[1]\n"), "line 1 is not"),
    "metrics that are broken": ("ppo/seed0/metrics.jsonl", lambda path: path.write_text("{\n{}\n"), "line 1 is not"),
    "a deep plan": ("plan.json", lambda path: path.write_text('{"a":' * 400 + "1" + "}" * 400), "nested deeper"),
    "a deep specification": (
        "ppo/seed0/spec.json", lambda path: path.write_text('{"a":' + "[" * 800 + "]" * 800 + "}"), "nested deeper",
    ),
    "a schedule of three thousand million seeds": (
        "plan.json", lambda path: change_rule(path, "stability", seed_looks=[3, 3_000_000_000]), "3000000000",
    ),
    "a level that asks for endless resamples": (
        "plan.json", lambda path: change_rule(path, "win_rate", significance_level=1e-12), "absurd numbers: 1e-12",
    ),
    "rules without a section": (
        "plan.json", lambda path: change_plan(path, rules={}), "rules.confidence: field required",
    ),
    "a rule that is unknown": (
        "plan.json", lambda path: change_rule(path, "style", max_auc=0.6), "rules.style.max_auc: extra inputs are not",
    ),
    "a rule that is a text": (
        "plan.json", lambda path: change_rule(path, "switch", tolerated_shift="2"), "switch.tolerated_shift: input",
    ),
    "arms that are a number": ("plan.json", lambda path: change_plan(path, arms=3), "plan.arms: input should"),
    "shared jobs that are a list": (
        "plan.json", lambda path: change_plan(path, shared=[]), "plan.shared: input should be an object",
    ),
    "a number too long": ("plan.json", lambda path: path.write_text('{"schema": ' + "9" * 400 + "}"), "has 400 digits"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "message"), FOREIGN_FILES.values(), ids=FOREIGN_FILES)
def test_a_report_of_a_foreign_folder_is_refused_in_one_sentence(make_sweep, capsys, name, edit, message):
    sweep = make_sweep(num_prompts=3)
    edit(sweep.folder / name)
    assert main(["report", str(sweep.folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(sweep.folder) in error
    assert message in error


def test_samples_that_together_fill_the_memory_are_refused(make_sweep, monkeypatch):
    folder = make_sweep().folder
    assert load_ledger(folder).runs
    monkeypatch.setattr("analysis.ledger.load.MAX_MEMORY_SHARE", 1e-9)
    with pytest.raises(LedgerError, match="of this machine's memory"):
        load_ledger(folder)
