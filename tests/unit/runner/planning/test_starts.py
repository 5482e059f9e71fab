"""Arms that start from another arm's checkpoint: their place in the plan, and what is refused before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from experiments.errors import InputError
from experiments.spec import ArmJobSpec, FreshPairsJobSpec, Interpolation, RunSpec, Start
from runner.__main__ import compose
from runner.planning.graph import Job
from runner.planning.plan import Plan, make_plan

Composed = Callable[..., list[RunSpec]]
Planned = Callable[..., Plan]
STAGED = "ppo_then_dpo/seed0"


def job(plan: Plan, label: str) -> Job:
    return next(job for job in plan.jobs if job.label == label)


def with_arm(run: RunSpec, **changes: Any) -> RunSpec:
    """The run with other values of its arm."""
    content = run.model_dump()
    return RunSpec.model_validate(content | {"arm": content["arm"] | changes})


def starting(run: RunSpec, **changes: Any) -> RunSpec:
    return with_arm(run, start=run.model_dump()["arm"]["start"] | changes)


def interpolated(run: RunSpec, name: str, of: str) -> RunSpec:
    arm = Interpolation(algorithm="interpolation", name=name, start=Start(arm=of, share=0.5), weight=0.5)
    return run.model_copy(update={"arm": arm})


@pytest.fixture
def runs(composed: Composed) -> list[RunSpec]:
    """PPO, DPO, PPO then DPO."""
    return composed(staged=True)


def test_the_staged_arm_waits_for_the_plain_one_and_its_own_pairs(planned: Planned) -> None:
    plan = planned(staged=True)
    labels = [job.label for job in plan.jobs]

    assert labels == [
        "gold", "ranking_data", "reward_model", "ppo/seed0", "dpo/seed0", f"{STAGED}/fresh_pairs", STAGED,
        "ppo/seed0/evaluation", "dpo/seed0/evaluation", f"{STAGED}/evaluation", "base_evaluation", "report",
    ]  # fmt: skip
    base = {"ranking_data": "ranking_data"}  # is it the one that was sampled?
    assert job(plan, f"{STAGED}/fresh_pairs").needs == {"start": "ppo/seed0", "gold": "gold"} | base
    assert job(plan, STAGED).needs == {"start": "ppo/seed0", "fresh_pairs": f"{STAGED}/fresh_pairs"} | base
    assert job(plan, f"{STAGED}/evaluation").needs["start_evaluation"] == "ppo/seed0/evaluation"


def test_every_need_stands_before_its_job(planned: Planned) -> None:
    jobs = planned("seed=0,1,2", staged=True).jobs
    labels = [job.label for job in jobs]

    for position, entry in enumerate(jobs):
        assert set(entry.needs.values()) <= set(labels[:position])
    assert job(planned("seed=0,1,2", staged=True), "ppo_then_dpo/seed2").needs["start"] == "ppo/seed2"


def test_the_budget_is_divided_and_the_rest_is_work(planned: Planned) -> None:
    """Of 64 prompts and 16 ranked ones with four samples of 12 tokens, PPO takes half; of three points it has two."""
    plan = planned(staged=True)
    pairs, arm = job(plan, f"{STAGED}/fresh_pairs"), job(plan, STAGED)

    assert isinstance(pairs.file.spec, FreshPairsJobSpec)
    assert isinstance(arm.file.spec, ArmJobSpec)
    assert (pairs.file.spec.num_ranking_prompts, pairs.file.spec.start_point) == (8, 1)
    assert (arm.file.spec.num_prompts, arm.file.spec.comparisons) == (64, "best_worst")
    assert pairs.work.sampled == 8 * 4 * 12
    assert (arm.work.sampled, arm.work.trained) == (0, 2 * 32 * 12)
    assert 2 * job(plan, f"{STAGED}/evaluation").work.sampled == job(plan, "ppo/seed0/evaluation").work.sampled


def test_the_plan_says_how_budget_and_labels_are_shared(planned: Planned) -> None:
    said = {check.check: check.value for check in planned(staged=True).fairness}

    assert said["prompt presentations"] == "64; ppo_then_dpo: the first 50 % as ppo"
    assert said["gold labels"] == "64 shared by all; ppo_then_dpo: 32 more"


@pytest.mark.parametrize(
    ("index", "changes"),
    [(0, {"kl_coefficient": 0.7}), (2, {"beta": 0.7}), (0, {"learning_rate": 1e-5})],
    ids=["first stage's KL", "own beta", "first stage's learning rate"],
)
def test_identity_changes_with_the_first_stage_and_with_its_own_settings(
    runs: list[RunSpec], index: int, changes: dict[str, Any]
) -> None:
    before = make_plan(runs)
    runs[index] = with_arm(runs[index], **changes)
    after = make_plan(runs)
    moved = {one.label for one in before.jobs if one.identity != job(after, one.label).identity}

    assert {STAGED, f"{STAGED}/evaluation"} <= moved
    assert (f"{STAGED}/fresh_pairs" in moved) == (index == 0)
    assert not {"dpo/seed0", "ranking_data", "reward_model", "base_evaluation"} & moved


def test_the_plain_arms_are_the_same_jobs_with_and_without_the_staged_one(planned: Planned) -> None:
    alone, together = planned(), planned(staged=True)

    assert all(job(together, one.label).identity == one.identity for one in alone.jobs if one.kind != "report")


def test_interpolation_needs_only_the_checkpoint(runs: list[RunSpec]) -> None:
    plan = make_plan([*runs, interpolated(runs[0], "half", "dpo")])

    assert job(plan, "half/seed0").needs == {"start": "dpo/seed0"}
    assert job(plan, "half/seed0").work.trained == 0
    assert not any(entry.label == "half/seed0/fresh_pairs" for entry in plan.jobs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda runs: [*runs[:2], starting(runs[2], arm="nobody")],
            "ppo_then_dpo/seed0: arm.start.arm=nobody: this sweep has no arm nobody with seed 0; arms of this sweep "
            "that are trained from the base: dpo, ppo",
        ),
        (
            lambda runs: [*runs[:2], starting(runs[2], arm="dpo")],
            "arm.start.arm=dpo: dpo is trained with dpo, and ppo_then_dpo needs a ppo arm",
        ),
        (
            lambda runs: [*runs[:2], starting(runs[2], arm="ppo_then_dpo")],
            "arm.start.arm=ppo_then_dpo: ppo_then_dpo starts from ppo_then_dpo: a circle, but",
        ),
        (
            lambda runs: [*runs, interpolated(runs[0], "a", "b"), interpolated(runs[0], "b", "a")],
            "a/seed0: arm.start.arm=b: a starts from b, which starts from a: a circle, but",
        ),
        (
            lambda runs: [*runs, interpolated(runs[0], "a", "ppo_then_dpo")],
            "a/seed0: arm.start.arm=ppo_then_dpo: a starts from ppo_then_dpo, which starts from ppo, but an arm can "
            "only start from one that is trained from the base",
        ),
        (
            lambda runs: [*runs[:2], with_arm(runs[2], pairs_per_step=24, pairs_per_microbatch=8)],
            "arm.start.share=0.5 leaves 32 of budget.num_prompts=64, which is not a multiple of arm.pairs_per_step=24",
        ),
    ],
    ids=["unknown", "no PPO arm", "itself", "circle", "chain", "no whole steps"],
)
def test_a_start_that_cannot_be_is_refused(
    runs: list[RunSpec], make: Callable[[list[RunSpec]], list[RunSpec]], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        make_plan(make(runs))

    assert message in str(refused.value)


def test_too_few_steps_for_the_points_are_refused(composed: Composed) -> None:
    runs = composed("budget.num_prompts=128", "budget.num_evaluation_points=5", staged=True)
    runs[2] = with_arm(runs[2], pairs_per_step=64, pairs_per_microbatch=8)
    with pytest.raises(
        InputError, match=r"share=0\.5 leaves 1 steps for 2 evaluation points; lower arm\.pairs_per_step"
    ):
        make_plan(runs)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("0", "arm.start.share=0: input should be greater than 0"),
        ("1", "arm.start.share=1: input should be less than 1"),
        ("0.3", "arm.start.share=0.3: arm ppo keeps a checkpoint at each of the budget.num_evaluation_points=3 "
         "evaluation points only; valid shares are 0.5"),
    ],
)  # fmt: skip
def test_a_share_without_a_checkpoint_is_refused(share: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        compose(["+sweep=smoke", "+arm=ppo_then_dpo", f"arm.start.share={share}"])

    assert message in str(refused.value)


def test_a_weight_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"arm\.weight=1\.5: input should be less than 1"):
        compose(["+sweep=recovery", "+arm=ppo_no_kl_at_25", "arm.weight=1.5"])


def test_recovery_is_a_plan_without_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.planning.specifications.model_fingerprint", lambda _: "a" * 64)
    monkeypatch.setattr("runner.planning.specifications.data_fingerprint", lambda _: "b" * 64)
    plan = make_plan(compose(["+sweep=recovery"]))

    assert {run.arm.algorithm for run in plan.runs} == {"ppo", "ppo_then_dpo", "interpolation"}
    assert all(job.needs["start"] == "ppo_no_kl/seed0" for job in plan.jobs if "start" in job.needs)
