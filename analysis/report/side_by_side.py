"""Samples to read, chosen by a rule that is printed beside them, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.ledger import BASE, Ledger
from analysis.scores import POINTS, values
from analysis.statistics.bootstrap import FloatArray

NUM_EACH = 3
RULE = (
    "Every arm's first seed is compared with the base under the same prompt and random numbers. Shown are the "
    f"{NUM_EACH} samples whose gain in the measure, averaged over the arms, is nearest to the median; then the "
    f"{NUM_EACH} on which the arms disagree most; then the {NUM_EACH} with the largest drop of any arm. A prompt is "
    "shown once."
)


def choose_samples(ledger: Ledger) -> list[dict[str, Any]]:
    """The chosen prompts with the response and score of the base and of every arm."""
    first = {arm: ledger.seeds(arm)[:1] for arm in ledger.arms}
    measure_APM = np.stack([values(ledger, ledger.measure, arm, seeds=first[arm])[0] for arm in ledger.arms])
    gain_APM = measure_APM - values(ledger, ledger.measure, BASE)
    return [_sample(ledger, first, why, cell) for why, cell in _cells(gain_APM)]


def _cells(gain_APM: FloatArray) -> Iterator[tuple[str, tuple[int, int]]]:
    """(reason, (prompt, sample)) in the order of `RULE`; of equals the earlier prompt."""
    mean = gain_APM.mean(axis=0)
    keys = {"typical": np.abs(mean - np.median(mean)), "largest drop": gain_APM.min(axis=0)}
    if len(gain_APM) > 1:
        keys = {
            "typical": keys["typical"],
            "arms disagree": -np.ptp(gain_APM, axis=0),
            "largest drop": keys["largest drop"],
        }
    taken: set[int] = set()
    for why, key_PM in keys.items():
        for prompt, sample in _first_free(key_PM, taken):
            taken.add(prompt)
            yield why, (prompt, sample)


def _first_free(key_PM: FloatArray, taken: set[int]) -> list[tuple[int, int]]:
    """The `NUM_EACH` smallest cells, at most one of each prompt, none of a prompt already taken."""
    chosen: dict[int, int] = {}
    for flat in np.argsort(key_PM, axis=None, kind="stable"):
        prompt, sample = divmod(int(flat), key_PM.shape[1])
        if prompt not in taken and prompt not in chosen:
            chosen[prompt] = sample
        if len(chosen) == NUM_EACH:
            break
    return list(chosen.items())


def _sample(ledger: Ledger, seeds: Mapping[str, Sequence[int]], why: str, cell: tuple[int, int]) -> dict[str, Any]:
    index = (0, *cell)
    return {
        "why": why,
        "prompt": str(ledger.array(BASE, "prompt")[index]),
        "responses": [
            _response(ledger, BASE, None, index),
            *(_response(ledger, arm, seeds[arm], index) for arm in ledger.arms),
        ],
    }


def _response(ledger: Ledger, arm: str, seeds: Sequence[int] | None, index: tuple[int, int, int]) -> dict[str, Any]:
    text, finish = (ledger.array(arm, column, seeds=seeds)[index] for column in ("response", "finish_reason"))
    measure = values(ledger, ledger.measure, arm, seeds=seeds)[index]
    return {
        "arm": arm,
        "text": str(text),
        "measure": {"exact": POINTS * float(measure), "unit": "points"},
        "cut": finish == "length",
    }
