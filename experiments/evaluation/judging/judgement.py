"""What any judge leaves: a row for each pair, numbers, and facts. Loads neither a model nor a network library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.evaluation.judging.pairs import Pair
from experiments.records import PreferenceRow

IDENTICAL = "identical responses"  # decided without asking


@dataclass(frozen=True)
class Judgement:
    """What a judge made of all pairs."""

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
