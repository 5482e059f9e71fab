"""Comparisons that were judged by another tool: annotation file -> arrays. The texts are untrusted and are not kept."""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from analysis.statistics.bootstrap import FloatArray
from analysis.statistics.controlled_win_rate import IntArray
from analysis.text import visible

MAX_UNUSABLE = 0.05  # share of rows; with more the rest may no longer be a fair sample of the prompts
MAX_BYTES = 2**30  # unpacked; a small packed file can unpack to anything
GZIP_MAGIC = b"\x1f\x8b"
EDGE_CHARACTERS = 100  # so much of a response's beginning or end in common with others is no coincidence

Use = Literal["used", "missing", "malformed"]


class AnnotationError(ValueError):
    """The file cannot be used. The message says why, for people."""


@dataclass(frozen=True)
class Annotations:
    """One model against one baseline. N usable rows.

    Attributes:
        generator: the model's name, as the file has it.
        baseline: the baseline's name.
        preference_N: how much the model is preferred: 0 baseline, 1 model, one half a draw.
        prompt_N: number of the row's prompt, from 0.
        characters_N: length of the model's response.
        baseline_characters_N: length of the baseline's response.
        repeated_share: share of the model's responses that begin, or end, with the same text; see the function.
        num_missing: rows without a preference.
        num_malformed: rows that are not what the format says.
    """

    generator: str
    baseline: str
    preference_N: FloatArray
    prompt_N: IntArray
    characters_N: FloatArray
    baseline_characters_N: FloatArray
    repeated_share: float
    num_missing: int
    num_malformed: int

    @property
    def num_prompts(self) -> int:
        """P."""
        return int(self.prompt_N.max()) + 1


def read_annotations(path: Path, format_name: str) -> Annotations:
    """Read one file, packed by gzip or not.

    Raises:
        AnnotationError: unknown format, no such file, not JSON, other columns, too many unusable rows.
    """
    if format_name not in FORMATS:
        raise AnnotationError(f"unknown format {visible(repr(format_name))}; known: {', '.join(FORMATS)}")
    try:
        return FORMATS[format_name](load_json(path))
    except AnnotationError as error:
        raise AnnotationError(f"{visible(str(path))}: {error}") from None


def load_json(path: Path) -> Any:
    """The file's JSON value.

    Raises:
        AnnotationError: it cannot be read, is too large, or is not JSON.
    """
    data = read_packed(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"not JSON ({visible(str(error))})") from None


def read_packed(path: Path) -> bytes:
    """The file's bytes, unpacked if gzip packed them.

    Raises:
        AnnotationError: it cannot be read or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if data.startswith(GZIP_MAGIC):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(getattr(error, "strerror", None) or f"cannot be unpacked ({error})") from None
    if len(data) > MAX_BYTES:
        raise AnnotationError(f"more than {MAX_BYTES} bytes")
    return data


def read_alpaca_eval(value: Any) -> Annotations:
    """AlpacaEval's `annotations.json`: a list of objects with `ALPACA_EVAL_COLUMNS`, the model being number 2.

    `preference` is 1 if the baseline wins, 2 if the model wins, anything between for an undecided judge; 1.5 and
    0 are draws; null or NaN means that the judge gave no answer.

    Raises:
        AnnotationError: other columns, several models in one file, too many unusable rows.
    """
    if not isinstance(value, list) or not value:
        raise AnnotationError("not a list of comparisons")
    present = {key for row in value if isinstance(row, dict) for key in row}
    absent = [column for column in ALPACA_EVAL_COLUMNS if column not in present]
    if absent:
        raise AnnotationError(f"no comparison has {', '.join(absent)}; alpaca_eval needs {ALPACA_EVAL_COLUMNS}")
    uses = [alpaca_eval_use(row) for row in value]
    count = Counter(uses)
    if count["missing"] + count["malformed"] > MAX_UNUSABLE * len(value):
        raise AnnotationError(
            f"{count['missing']} comparisons have no preference and {count['malformed']} are malformed, together more "
            f"than {100 * MAX_UNUSABLE:.0f} % of {len(value)}"
        )
    rows = [row for row, use in zip(value, uses, strict=True) if use == "used"]
    numbers: dict[str, int] = {}
    return Annotations(
        generator=_only_one("generator_2", rows),
        baseline=_only_one("generator_1", rows),
        preference_N=np.array([row["preference"] - 1 if row["preference"] else 0.5 for row in rows], dtype=np.float64),
        prompt_N=np.array([numbers.setdefault(row["instruction"], len(numbers)) for row in rows]),
        characters_N=np.array([len(row["output_2"]) for row in rows], dtype=np.float64),
        baseline_characters_N=np.array([len(row["output_1"]) for row in rows], dtype=np.float64),
        repeated_share=repeated_share([row["output_2"] for row in rows]),
        num_missing=count["missing"],
        num_malformed=count["malformed"],
    )


def alpaca_eval_use(row: Any) -> Use:
    """Whether a row can be used, or why not."""
    if not isinstance(row, dict):
        return "malformed"
    if not all(isinstance(row.get(column), str) for column in ALPACA_EVAL_COLUMNS if column != "preference"):
        return "malformed"
    preference = row.get("preference")
    if preference is None or (isinstance(preference, float) and math.isnan(preference)):
        return "missing"
    is_number = isinstance(preference, int | float) and not isinstance(preference, bool)
    return "used" if is_number and (preference == 0 or 1 <= preference <= 2) else "malformed"


def repeated_share(responses: list[str]) -> float:
    """Share of the responses with the most common beginning, or with the most common end; 0 if all differ."""
    beginnings = Counter(text[:EDGE_CHARACTERS] for text in responses)
    ends = Counter(text[-EDGE_CHARACTERS:] for text in responses)
    most_common = max(count for counts in (beginnings, ends) for count in counts.values())
    return most_common / len(responses) if most_common > 1 else 0.0


def _only_one(column: str, rows: list[dict[str, Any]]) -> str:
    names = sorted({row[column] for row in rows})
    if len(names) > 1:
        shown = ", ".join(visible(repr(name[:40])) for name in names[:3])
        raise AnnotationError(f"{len(names)} different {column} in one file ({shown}); one file is one model")
    return str(names[0])


ALPACA_EVAL_COLUMNS = ("instruction", "generator_1", "generator_2", "output_1", "output_2", "preference")
FORMATS: Mapping[str, Callable[[Any], Annotations]] = MappingProxyType({"alpaca_eval": read_alpaca_eval})
