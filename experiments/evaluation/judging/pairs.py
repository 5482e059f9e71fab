"""The pairs of responses to compare: of final models, on the same prompts and random numbers. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.spec import Contest as SpecifiedContest
from experiments.spec import JudgedRun

BASE = "base"
STREAM = 1  # of the random numbers that the base and every arm share
KEYS = ["prompt_id", "sample_id"]


@dataclass(frozen=True)
class Contest:
    """Two models of one seed: an arm and its opponent, which is the base or another arm."""

    arm: JudgedRun
    opponent: JudgedRun | None  # None is the base


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt."""

    arm: str
    opponent: str
    seed: int
    prompt_id: str
    sample_id: int
    prompt: str
    ours: str  # the arm's response
    theirs: str


def contests(runs: Sequence[JudgedRun], declared: Sequence[SpecifiedContest]) -> list[Contest]:
    """Every arm against the base, then the contests of the sweep, between runs of one seed."""
    opponents: dict[str, list[str]] = {}
    for contest in declared:
        opponents.setdefault(contest.arm, []).append(contest.opponent)
    by_name = {(run.arm, run.seed): run for run in runs}
    pairs = [(run, by_name.get((name, run.seed))) for run in runs for name in opponents.get(run.arm, [])]
    return [Contest(run, None) for run in runs] + [Contest(one, other) for one, other in pairs if other is not None]


def final_samples(folder: Path, max_samples_per_prompt: int) -> pd.DataFrame:
    """An evaluation's last point, indexed by prompt and sample: prompt, response and scores."""
    last = max(folder.glob("samples/point_*.parquet"), key=lambda path: int(path.stem.removeprefix("point_")))
    frame = pd.read_parquet(last)
    kept = frame[(frame["stream"] == STREAM) & (frame["sample_id"] < max_samples_per_prompt)]
    return kept.set_index(KEYS).sort_index()


def make_pairs(
    samples: Mapping[str, pd.DataFrame], runs: Sequence[JudgedRun], declared: Sequence[SpecifiedContest]
) -> list[Pair]:
    """All pairs, prompt by prompt. So a judge that stops early has judged every contest on the same prompts.

    Args:
        samples: role of an evaluation, or "base" -> its `final_samples`, all with the same index.
        runs: those whose evaluations exist.
        declared: contests between arms, by name.
    """
    responses = {role: frame["response"].tolist() for role, frame in samples.items()}
    prompts = samples[BASE]["prompt"].tolist()
    return [
        Pair(
            arm=contest.arm.arm,
            opponent=contest.opponent.arm if contest.opponent else BASE,
            seed=contest.arm.seed,
            prompt_id=str(prompt_id),
            sample_id=int(sample_id),
            prompt=prompts[row],
            ours=responses[contest.arm.role][row],
            theirs=responses[contest.opponent.role if contest.opponent else BASE][row],
        )
        for row, (prompt_id, sample_id) in enumerate(samples[BASE].index)
        for contest in contests(runs, declared)
    ]
