"""Which adapters stay, with real folders and jobs that train nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import InputError
from runner.driving.retention import check_starts
from runner.ledger.integrity import fingerprints
from runner.ledger.reader import is_finished, read_json
from runner.planning.graph import Job
from runner.planning.plan import Plan

Planned = Callable[..., Plan]
SweepOf = Callable[..., Any]
ALL, FINAL = "keep_adapters=all", "keep_adapters=final"
POINTS = ("budget.num_evaluation_points=5", "budget.num_prompts=128")


def points(plan: Plan, arm: str) -> list[str]:
    return sorted(path.name for path in (plan.folder / arm / "seed0" / "adapters").glob("point_*"))


def job(plan: Plan, label: str) -> Job:
    return next(job for job in plan.jobs if job.label == label)


def with_weights(arm: Job) -> None:
    """As a real arm leaves them: weights at every point, and their digests in the status."""
    for folder in (arm.folder / "adapters").glob("point_*"):
        (folder / "adapter_model.safetensors").write_text(folder.name)
    status = read_json(arm.folder / "status.json") | {"files": fingerprints(arm.folder)}
    (arm.folder / "status.json").write_text(json.dumps(status))


def test_all_are_kept_unless_told_otherwise(planned: Planned, sweep_of: SweepOf) -> None:
    plan = planned(*POINTS)
    sweep_of(plan).run()

    assert points(plan, "ppo") == ["point_1", "point_2", "point_3", "point_4"]


def test_the_last_stays_and_what_another_arm_starts_from(planned: Planned, sweep_of: SweepOf) -> None:
    plan = planned(*POINTS, FINAL, staged=True)  # ppo_then_dpo starts from ppo at half of the budget: point 2

    assert sweep_of(plan).run() == 0
    assert points(plan, "ppo") == ["point_1", "point_2", "point_4"]
    assert points(plan, "dpo") == points(plan, "ppo_then_dpo") == ["point_4"]
    assert read_json(plan.folder / "dpo/seed0/adapters/removed.json")["points"] == [1, 2, 3]


@pytest.mark.parametrize("reader", ["ppo/seed0/evaluation", "ppo_then_dpo/seed0/fresh_pairs", "ppo_then_dpo/seed0"])
def test_nothing_is_removed_while_a_reader_has_not_finished(planned: Planned, sweep_of: SweepOf, reader: str) -> None:
    plan = planned(*POINTS, FINAL, staged=True)
    sweep = sweep_of(plan)

    assert sweep.run(**{reader: "fail"}) == 1
    assert len(points(plan, "ppo")) == 4
    assert sweep.run() == 0
    assert len(points(plan, "ppo")) == 3


def test_the_setting_is_no_part_of_what_a_job_is_and_can_change_both_ways(planned: Planned, sweep_of: SweepOf) -> None:
    before, after = planned(*POINTS, ALL), planned(*POINTS, FINAL)
    assert [one.identity for one in before.jobs] == [one.identity for one in after.jobs]
    sweep_of(before).run()
    with_weights(job(before, "ppo/seed0"))

    sweep = sweep_of(after)
    assert sweep.run() == 0
    assert sweep.started() == ["report"]  # of another status, which `with_weights` has written
    assert points(after, "ppo") == ["point_4"]
    assert "keeps no adapters of the points 1, 2, 3 any more" in sweep.text
    assert is_finished(job(after, "ppo/seed0").folder, job(after, "ppo/seed0").identity)

    sweep = sweep_of(before)
    assert sweep.run() == 0
    assert sweep.started() == []
    assert "nothing is trained again for them: dpo/seed0 (points 1, 2, 3); ppo/seed0 (points 1, 2, 3)" in sweep.text


def test_an_adapter_that_should_be_there_is_still_missed(planned: Planned, sweep_of: SweepOf) -> None:
    plan = planned(*POINTS, FINAL)
    sweep = sweep_of(plan)
    sweep.run()
    arm = job(plan, "ppo/seed0")
    with_weights(arm)
    shutil.rmtree(arm.folder / "adapters" / "point_4")

    assert sweep.run() == 0
    assert sweep.started() == ["ppo/seed0", "report"]
    assert "damaged and done again: adapters/point_4/adapter_model.safetensors is missing" in sweep.text


def test_removal_that_was_cut_short_is_completed(planned: Planned, sweep_of: SweepOf) -> None:
    plan = planned(*POINTS, FINAL)
    sweep = sweep_of(plan)
    sweep.run()
    left = plan.folder / "ppo/seed0/adapters/point_3"
    left.mkdir()  # noted as removed, but the process was killed before it was gone

    assert sweep.run() == 0
    assert sweep.started() == []
    assert not left.exists()
    assert read_json(left.with_name("removed.json"))["points"] == [1, 2, 3]


def test_an_evaluation_that_must_be_made_again_takes_its_arm_with_it(planned: Planned, sweep_of: SweepOf) -> None:
    plan = planned(*POINTS, FINAL)
    sweep = sweep_of(plan)
    sweep.run()
    (plan.folder / "ppo/seed0/evaluation/status.json").write_text("{")

    assert sweep.run() == 0
    assert sweep.started() == ["ppo/seed0", "ppo/seed0/evaluation", "report"]
    assert "had finished, but is trained again: its evaluation has to be made again" in sweep.text


def test_an_arm_cannot_join_that_starts_from_what_was_removed(planned: Planned, sweep_of: SweepOf) -> None:
    sweep_of(planned(*POINTS, FINAL)).run()
    later = planned(*POINTS, staged=True)
    with pytest.raises(InputError, match=r"ppo_then_dpo/seed0: it starts from ppo/seed0, but .* of the points 1, 2;"):
        check_starts(later)

    shutil.rmtree(job(later, "ppo/seed0").folder)
    check_starts(later)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"points": 3}', '{"points": ["x", null]}'])
def test_a_note_that_makes_no_sense_excuses_nothing(
    planned: Planned, sweep_of: SweepOf, content: str, tmp_path: Path
) -> None:
    plan = planned(*POINTS)
    sweep = sweep_of(plan)
    sweep.run()
    arm = job(plan, "ppo/seed0")
    with_weights(arm)
    shutil.rmtree(arm.folder / "adapters" / "point_1")
    (arm.folder / "adapters" / "removed.json").write_text(content)

    assert not is_finished(arm.folder, arm.identity)


def test_a_disk_that_refuses_costs_room_and_nothing_else(
    planned: Planned, sweep_of: SweepOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr("runner.driving.retention.write_json", refuse)
    plan = planned(*POINTS, FINAL)
    sweep = sweep_of(plan)

    assert sweep.run() == 0
    assert "adapters could not be removed: Read-only file system" in sweep.text
    assert len(points(plan, "ppo")) == 4
