"""How long a sweep will still take, from what its jobs have recorded. Pure functions.

A running job is estimated from its own progress. A waiting one is estimated from finished jobs of the same kind. If
there are none, its planned work and the speed of all finished jobs are used. The jobs are then placed on the slots in
the plan's order, as the runner will do it. The estimate assumes that nothing fails.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.catalogue import CATALOGUE

# Work in forward passes of a token. Sampling goes token by token, about half as fast as a pass over a whole text; a
# backward pass costs two forward ones. It only matters until a job of the same kind has finished.
SAMPLED, TRAINED = 2.0, 3.0
# Passes that score each sampled token: base and reward model; the base needs no second look at itself; the critic
# too; two of a prompt's four samples.
SCORED = {"evaluation": 2.0, "base_evaluation": 1.0, "ranking_data": 0.5} | {
    name: record.scored for name, record in CATALOGUE.items()
}

SHORT = {"base_model", "measure", "report"}  # take seconds, so an estimate may do without them


@dataclass(frozen=True)
class Load:
    """A job as the estimate sees it."""

    label: str
    kind: str  # jobs of one kind take equally long for equal work
    needs: tuple[str, ...] = ()
    units: float = 0.0  # of work, 0 if unknown; see `units_of`
    wide: bool = False  # takes all slots
    seconds: float | None = None  # worked: in all if it has ended, so far if it runs; None if it waits
    ended: bool = False
    status: Mapping[str, Any] | None = None  # of one that runs


@dataclass(frozen=True)
class Left:
    """Time left."""

    seconds: float
    at_least: bool  # the time of some job is unknown and left out


def units_of(kind: str, sampled: int, trained: int) -> float:
    """Work of a job in forward passes of a token, from the tokens that it samples and trains on."""
    return (SAMPLED + SCORED.get(kind, 0.0)) * sampled + TRAINED * trained


def own_time_left(status: Mapping[str, Any]) -> float | None:
    """Seconds that a running job still needs, from its own status; None before it has made progress.

    Args:
        status: content of ``status.json``: ``done`` of ``total`` units, counted since ``counted_from``.
    """
    try:
        began, advanced, now = (
            float(value) for value in (status["counted_from"]["seconds"], status["counted_to"], status["seconds"])
        )
        done, total = int(status["done"]), int(status["total"])
        counted = done - int(status["counted_from"]["done"])
    except (KeyError, TypeError, ValueError):
        return None
    if counted <= 0 or advanced <= began:
        return None
    return max(0.0, (total - done) * (advanced - began) / counted - (now - advanced))


def sweep_time_left(loads: Sequence[Load], slots: int) -> Left | None:
    """Seconds until the last job ends. None if nothing is known yet.

    Args:
        loads: all jobs, in the order in which they start when there is room.
        slots: jobs at a time.
    """
    speeds = _Speeds(loads, slots)
    left = {load.label: _job_time_left(load, speeds) for load in loads if not load.ended}
    kinds = {load.label: load.kind for load in loads}
    unknown = {kinds[label] for label, seconds in left.items() if seconds is None}
    if left and all(seconds is None for seconds in left.values()):
        return None
    makespan = _makespan(loads, {label: seconds or 0.0 for label, seconds in left.items()}, slots)
    return Left(makespan, at_least=bool(unknown - SHORT))


class _Speeds:
    """What the jobs that have ended say about the others."""

    def __init__(self, loads: Sequence[Load], slots: int) -> None:
        ended = [load for load in loads if load.ended and load.seconds]
        self._peers = {kind: [load for load in ended if load.kind == kind] for kind in {load.kind for load in ended}}
        measured = [load for load in ended if load.units]
        spent = sum((load.seconds or 0.0) * (slots if load.wide else 1) for load in measured)
        units = sum(load.units for load in measured)
        self._seconds_per_unit = spent / units if units else None
        self._slots = slots

    def from_peers(self, load: Load) -> float | None:
        """Seconds in all, from ended jobs of the same kind."""
        peers = self._peers.get(load.kind, [])
        if not peers:
            return None
        seconds = sum(peer.seconds or 0.0 for peer in peers)
        units = sum(peer.units for peer in peers)
        return seconds * load.units / units if units and load.units else seconds / len(peers)

    def from_work(self, load: Load) -> float | None:
        """Seconds in all, from the work that all ended jobs have done in their time."""
        if self._seconds_per_unit is None or not load.units:
            return None
        return load.units * self._seconds_per_unit / (self._slots if load.wide else 1)


def _job_time_left(load: Load, speeds: _Speeds) -> float | None:
    """At first what its peers took. The further a job is, the more its own progress counts."""
    peers, worked = speeds.from_peers(load), load.seconds or 0.0
    own = own_time_left(load.status) if load.status else None
    if own is not None:
        share = worked / (worked + own) if worked + own else 1.0
        return own if peers is None else share * own + (1 - share) * max(0.0, peers - worked)
    in_all = speeds.from_work(load) if peers is None else peers
    return None if in_all is None else max(0.0, in_all - worked)


def _makespan(loads: Sequence[Load], left: Mapping[str, float], slots: int) -> float:
    """Place the jobs on the slots in their order, each as soon as its needs have ended; when the last one ends."""
    places = {load.label: place for place, load in enumerate(loads)}
    waits = {load.label: sum(need in left for need in load.needs) for load in loads if load.label in left}
    followers: dict[str, list[str]] = {}
    for load in loads:
        for need in load.needs:
            followers.setdefault(need, []).append(load.label)
    running = [
        (left[load.label], places[load.label]) for load in loads if load.label in left and load.seconds is not None
    ]
    heapq.heapify(running)
    started = {place for _, place in running}
    ready = [places[label] for label, count in waits.items() if not count and places[label] not in started]
    heapq.heapify(ready)
    now = 0.0
    while running or ready:
        while ready and (len(running) < slots if not loads[ready[0]].wide else not running):
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + left[loads[place].label], place))
            if loads[place].wide:
                break
        now, place = heapq.heappop(running)
        for label in followers.get(loads[place].label, []):
            if label in waits:
                waits[label] -= 1
                if not waits[label]:
                    heapq.heappush(ready, places[label])
    return now
