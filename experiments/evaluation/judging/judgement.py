"""The result of any judge: a row for each pair, metrics, and facts. Imports neither torch nor a network library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.evaluation.judging.pairs import Pair
from experiments.records import PreferenceRow

IDENTICAL = "identical responses"  # note of a pair that was scored without asking


@dataclass(frozen=True)
class Judgement:
    """A judge's result for all pairs."""

    rows: list[PreferenceRow]
    values: dict[str, float]  # for the ledger
    facts: dict[str, Any]  # for judge.json


def preference_row(
    pair: Pair, score: float, ours_first: str = "", ours_second: str = "", note: str = ""
) -> PreferenceRow:
    """A ledger row of one pair."""
    return PreferenceRow(
        arm=pair.arm,
        opponent=pair.opponent,
        seed=pair.seed,
        prompt_id=pair.prompt_id,
        sample_id=pair.sample_id,
        score=score,
        ours_first=ours_first,
        ours_second=ours_second,
        note=note,
    )
