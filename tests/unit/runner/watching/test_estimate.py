"""The time left, on hand-worked cases and on the recording of a real sweep (numbers only)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.watching.estimate import Left, Load, own_time_left, sweep_time_left, units_of

RECORDING = json.loads((Path(__file__).parent / "recordings" / "ppo_vs_dpo.json").read_text())
JOBS: list[dict[str, Any]] = RECORDING["jobs"]
END = max(job["end"] for job in JOBS)


def status_at(job: dict[str, Any], moment: float) -> dict[str, Any]:
    """What status.json said of a running job, from the moments at which it made progress."""
    worked = moment - job["start"]
    seen = [(seconds, done) for seconds, done in job["progress"] if seconds <= worked]
    first, last = (seen[0], seen[-1]) if seen else ((0.0, 0), (0.0, 0))
    return {
        "done": last[1],
        "total": job["total"] if seen else 0,
        "counted_from": {"done": first[1], "seconds": first[0]},
        "counted_to": last[0],
        "seconds": worked,
    }


def load_at(job: dict[str, Any], moment: float) -> Load:
    units = units_of(job["kind"], job["sampled"], job["trained"])
    common = (job["label"], job["kind"], tuple(job["needs"]), units, job["wide"])
    if job["end"] <= moment:
        return Load(*common, seconds=job["end"] - job["start"], ended=True)
    if job["start"] <= moment:
        return Load(*common, seconds=moment - job["start"], status=status_at(job, moment))
    return Load(*common)


def left_at(moment: float) -> Left:
    left = sweep_time_left([load_at(job, moment) for job in JOBS], RECORDING["slots"])
    assert left is not None
    return left


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_estimate_of_a_recorded_sweep_is_within_30_percent(share: float) -> None:
    """At half time no evaluation has begun, so the plan's work has to stand in for their durations."""
    truth = (1 - share) * END

    assert left_at(share * END).seconds == pytest.approx(truth, rel=0.3)


@pytest.mark.parametrize("job", [job for job in JOBS if job["progress"]], ids=lambda job: str(job["label"]))
def test_the_estimate_of_each_recorded_job_at_its_half_time_is_within_30_percent(job: dict[str, Any]) -> None:
    """Its own progress, where it has made enough; else what the jobs before it say."""
    half = (job["start"] + job["end"]) / 2
    ended = [load_at(other, half) for other in JOBS if other["end"] <= half]
    left = sweep_time_left([*ended, load_at(job, half)], RECORDING["slots"])

    assert left is not None
    assert left.seconds == pytest.approx(job["end"] - half, rel=0.3)


def test_nothing_is_guessed_before_anything_is_known() -> None:
    assert sweep_time_left([load_at(job, 5.0) for job in JOBS], 2) is None
    assert own_time_left({"done": 0, "total": 0, "seconds": 3.0}) is None
    assert own_time_left({}) is None
    assert own_time_left({"counted_from": None, "counted_to": "x", "done": "many"}) is None


def test_own_progress_counts_from_where_the_count_began_and_runs_on_between_two_writings() -> None:
    """20 of 80 units took 40 s; 50 are left, 100 s, of which 10 s have passed since the last."""
    status = {"done": 30, "total": 80, "counted_from": {"done": 10, "seconds": 100.0}, "counted_to": 140.0}

    assert own_time_left(status | {"seconds": 150.0}) == pytest.approx(90.0)
    assert own_time_left(status | {"seconds": 999.0}) == 0.0


def test_jobs_that_wait_take_what_their_kind_took_and_share_the_slots() -> None:
    """Peers took 10 s a unit: five jobs of 20 s on two slots are three rounds, 60 s."""
    done = [Load("a", "dpo", units=1, seconds=10.0, ended=True), Load("b", "dpo", units=3, seconds=30.0, ended=True)]
    waiting = [Load(f"w{number}", "dpo", units=2) for number in range(5)]

    assert sweep_time_left([*done, *waiting], 2) == Left(60.0, at_least=False)


def test_a_new_kind_is_estimated_by_its_work() -> None:
    """195 s on both of two slots for 39 units: 10 slot-seconds a unit, so 7 units take 70 s on one."""
    done = Load("ranking_data", "ranking_data", units=39, wide=True, seconds=195.0, ended=True)

    assert sweep_time_left([done, Load("x", "evaluation", units=7)], 2) == Left(70.0, at_least=False)


def test_a_job_starts_after_its_needs_and_a_wide_one_alone() -> None:
    """a runs 5 s more; then the wide one takes 10 s on all slots; then c and d side by side, 10 s."""
    peer = Load("peer", "k", seconds=10.0, ended=True)
    status = {"done": 1, "total": 2, "counted_from": {"done": 0, "seconds": 0.0}, "counted_to": 5.0, "seconds": 5.0}
    running = Load("a", "k", seconds=5.0, status=status)
    wide = Load("wide", "k", needs=("a",), wide=True)
    rest = [Load(label, "k", needs=("wide", "peer")) for label in ("c", "d")]

    assert sweep_time_left([peer, running, wide, *rest], 2) == Left(25.0, at_least=False)


def test_early_in_a_job_its_peers_count_more_than_its_first_steps() -> None:
    """1 of 100 units in 10 s says 990 s more; two peers took 100 s. It has done a hundredth of what it says."""
    peers = [Load(f"p{number}", "k", seconds=100.0, ended=True) for number in range(2)]
    status = {"done": 1, "total": 100, "counted_from": {"done": 0, "seconds": 0.0}, "counted_to": 10.0, "seconds": 10.0}
    left = sweep_time_left([*peers, Load("a", "k", seconds=10.0, status=status)], 1)

    assert left is not None
    assert left.seconds == pytest.approx(0.01 * 990 + 0.99 * 90)


def test_what_nobody_can_know_makes_it_a_lower_bound() -> None:
    done = Load("a", "dpo", units=1, seconds=10.0, ended=True)

    assert sweep_time_left([done, Load("b", "dpo", units=1), Load("judge", "judgement")], 2) == Left(10.0, True)


def test_ended_jobs_without_a_duration_and_failed_needs_hold_nothing_up() -> None:
    done = Load("a", "dpo", units=1, seconds=10.0, ended=True)
    failed = Load("f", "ppo", units=9, ended=True)

    assert sweep_time_left([done, failed, Load("b", "dpo", needs=("f",), units=1)], 1) == Left(10.0, False)
    assert sweep_time_left([done, failed], 1) == Left(0.0, False)
