"""Responses made by any tool: files of prompt and output -> rows that answer the same prompts. Texts are untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.elsewhere.annotations import AnnotationError, read_packed
from analysis.style.corpus import IntArray
from analysis.text import visible

PROMPT_KEYS, OUTPUT_KEYS = ("prompt", "instruction"), ("output", "response")
MAX_UNUSABLE = 0.05  # share of rows; with more the rest may no longer be a fair sample of the prompts
MIN_COMMON_PROMPTS = 2


class OutputsError(ValueError):
    """The files cannot be compared. The message names the file and the row, for people."""


@dataclass(frozen=True)
class Outputs:
    """One file.

    Attributes:
        name: of the file, as it was given.
        responses: the responses to each prompt, in the file's order.
        num_missing: rows without a prompt or an output.
        num_malformed: rows that are something else than such an object.
    """

    name: str
    responses: Mapping[str, list[str]]
    num_missing: int
    num_malformed: int


@dataclass(frozen=True)
class Aligned:
    """Several files cut to what they share: row i of each answers the same prompt. N rows.

    Attributes:
        texts: one list of N responses for each file.
        prompt_N: number of each row's prompt, ascending.
    """

    texts: tuple[list[str], ...]
    prompt_N: IntArray


def read_outputs(path: Path) -> Outputs:
    """Read a JSON list of objects or JSON lines, packed by gzip or not.

    Raises:
        OutputsError: it cannot be read, or too many rows cannot be used.
    """
    name = visible(str(path))
    try:
        data = read_packed(path)
    except AnnotationError as error:
        raise OutputsError(f"{name}: {error}") from None
    responses: dict[str, list[str]] = {}
    problems: list[tuple[str, bool]] = []
    num_rows = 0
    for where, row in _rows(data, name):
        num_rows += 1
        problem, is_missing = _problem(row)
        if problem:
            problems.append((f"{where}: {problem}", is_missing))
        else:
            responses.setdefault(_value(row, PROMPT_KEYS), []).append(_value(row, OUTPUT_KEYS))
    if len(problems) > MAX_UNUSABLE * num_rows or not responses:
        first = f", the first in {problems[0][0]}" if problems else ""
        raise OutputsError(f"{name}: {len(problems)} of {num_rows} rows cannot be used{first}")
    num_missing = sum(is_missing for _, is_missing in problems)
    return Outputs(name, responses, num_missing, len(problems) - num_missing)


def _rows(data: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """Each row with where it stands; a line that is no JSON is a row too."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OutputsError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OutputsError(f"{name}: not a JSON list ({visible(str(error))})") from None
        yield from ((f"row {number}", row) for number, row in enumerate(value, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError):
                yield f"line {number}", None


def _problem(row: Any) -> tuple[str, bool]:
    """What is wrong with a row, and whether something is only missing; an empty text if nothing is."""
    if not isinstance(row, dict):
        return "not a JSON object", False
    for keys in (PROMPT_KEYS, OUTPUT_KEYS):
        value = _value(row, keys)
        if value is None:
            return f"no {' or '.join(keys)}", True
        if not isinstance(value, str):
            return f"{keys[0]} is no text", False
    return "", False


def _value(row: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def align(files: Sequence[Outputs]) -> Aligned:
    """Keep the prompts that all files have, and of each as many responses as the file with the fewest has.

    Raises:
        OutputsError: fewer than two prompts are shared.
    """
    shared = [prompt for prompt in files[0].responses if all(prompt in file.responses for file in files)]
    if len(shared) < MIN_COMMON_PROMPTS:
        counts = ", ".join(f"{file.name} has {len(file.responses)}" for file in files)
        raise OutputsError(f"the files share {len(shared)} prompts, at least {MIN_COMMON_PROMPTS} are needed: {counts}")
    counts_P = [min(len(file.responses[prompt]) for file in files) for prompt in shared]
    texts = tuple(
        [text for prompt, count in zip(shared, counts_P, strict=True) for text in file.responses[prompt][:count]]
        for file in files
    )
    return Aligned(texts, np.repeat(np.arange(len(shared)), counts_P))


def halves(outputs: Outputs) -> tuple[Outputs, Outputs] | None:
    """Every second response to each prompt here and there; None if a prompt has only one."""
    paired = {prompt: found for prompt, found in outputs.responses.items() if len(found) > 1}
    if len(paired) < len(outputs.responses):
        return None
    first, second = (
        Outputs(outputs.name, {prompt: found[start::2] for prompt, found in paired.items()}, 0, 0) for start in (0, 1)
    )
    return first, second
