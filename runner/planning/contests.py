"""Which arm is compared with which: as the sweep declares or, by default, each algorithm with every other."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import combinations, product

from experiments.catalogue import CATALOGUE
from experiments.spec import Contest, RunSpec
from runner.planning.problems import Problem

GROUP = "algorithm:"  # before the name of an algorithm: every arm of it
BASE = "base"


def against_base(runs: Sequence[RunSpec]) -> tuple[Contest, ...]:
    """Every arm with the base."""
    return tuple(Contest(arm=arm, opponent=BASE) for arm in dict.fromkeys(run.arm.name for run in runs))


def between_arms(runs: Sequence[RunSpec]) -> tuple[Contest, ...]:
    """The other contests, arm by arm and none twice, in the order in which they are reported."""
    declared = runs[0].contests
    sides = _by_default() if declared is None else ((contest.arm, contest.opponent) for contest in declared)
    found: dict[frozenset[str], Contest] = {}
    for arm, opponent in (pair for one, other in sides for pair in product(_arms(runs, one), _arms(runs, other))):
        if arm != opponent:
            found.setdefault(frozenset((arm, opponent)), Contest(arm=arm, opponent=opponent))
    return tuple(found.values())


def contest_problems(runs: Sequence[RunSpec]) -> list[Problem]:
    """Sides of declared contests that this sweep does not have."""
    names = dict.fromkeys(run.arm.name for run in runs)
    groups = dict.fromkeys(GROUP + run.arm.algorithm for run in runs)
    found = []
    for contest in runs[0].contests or ():
        for key, side in contest.model_dump().items():
            if side not in (*names, *groups):
                near = difflib.get_close_matches(side, [*names, *groups], n=1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                there = f"there are {', '.join((*names, *groups))}"
                found.append(Problem("", f"contests: {key}={side} is no side of this sweep{meant}; {there}"))
        if contest.arm == contest.opponent and contest.arm in names:
            found.append(Problem("", f"contests: {contest.arm} is compared with itself; name two arms"))
    return found


def _by_default() -> Iterator[tuple[str, str]]:
    """Every algorithm from the base with every other, then every staged one with all of them."""
    names = [name for name, record in CATALOGUE.items() if record.contends]
    plain = [name for name in names if not CATALOGUE[name].described.staged]
    staged = [name for name in names if CATALOGUE[name].described.staged]
    yield from ((GROUP + one, GROUP + other) for one, other in combinations(plain, 2))
    yield from ((f"{GROUP}{one}", "plain") for one in staged)


def _arms(runs: Sequence[RunSpec], side: str) -> list[str]:
    """The arms of a side in the plan's order. For "plain", all that start from the base, by algorithm."""
    if side == "plain":
        return [arm for name, one in CATALOGUE.items() if not one.described.staged for arm in _arms(runs, GROUP + name)]
    return list(dict.fromkeys(run.arm.name for run in runs if side in (run.arm.name, GROUP + run.arm.algorithm)))
