"""Do the work of a job of any kind. Heavy imports happen only in the job that needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.catalogue import CATALOGUE
from experiments.collector import gc_disabled
from experiments.records import Recorder
from experiments.rewards import REWARDS
from experiments.spec import JOB_SPECS, ArmJobSpec, JobSpec, MeasureJobSpec, RewardModelJobSpec
from experiments.tasks import task_of

# Kind of job -> dotted name of a function with the arguments of `run_stage` after the kind. Two kinds are not here:
# what measures depends on the task, and how an arm is trained on its algorithm.
STAGES = {
    "base_model": "experiments.artifacts.base_model.build",
    "ranking_data": "experiments.artifacts.ranking.build",
    "fresh_pairs": "experiments.artifacts.ranking.build_fresh",
    "reward_model": "experiments.artifacts.reward_model.build",
    "base_evaluation": "experiments.evaluation.evaluate.evaluate_base",
    "evaluation": "experiments.evaluation.evaluate.evaluate_arm",
    "judgement": "experiments.evaluation.judging.job.build",
}


def run_stage(
    kind: str, spec: JobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Do the work of one job.

    Args:
        kind: a key of `experiments.spec.JOB_SPECS`; "report" alone is no stage of an experiment.
        spec: the specification of that kind.
        needs: folders of the finished jobs that this one depends on, by role. A role is the kind of that job, or "arm";
            "start" and "start_evaluation" belong to the arm that this one starts from; a judge's evaluations have
            their labels. If the ranking data is among the needs, the base must be the one that it was sampled from.
        folder: where the results go.
        cache_dir: folder of converted models.
        recorder: where metrics, samples and progress go.

    Raises:
        InputError: an input turned out to be unusable.
    """
    assert type(spec) is JOB_SPECS[kind], f"no stage for kind {kind!r} with {type(spec).__name__}"
    with gc_disabled():
        work = _import_work(kind, spec)
        guard = _import_guard(needs)
    with guard:
        work(spec, needs, folder, cache_dir, recorder)


def _import_guard(needs: Mapping[str, Path]) -> AbstractContextManager[None]:
    """If the job needs the ranking data, refuse any base other than the one that was sampled for it."""
    if "ranking_data" not in needs:
        return nullcontext()
    from experiments.artifacts import same_base

    return same_base.same_as_in(needs["ranking_data"])


def _import_work(kind: str, spec: JobSpec) -> Callable[..., None]:
    """The function of a stage, with everything that it imports."""
    if isinstance(spec, MeasureJobSpec):
        build = task_of(spec.measure).work.build_measure
        return lambda spec, _, folder, __, recorder: build(spec.measure, folder, recorder)
    if isinstance(spec, ArmJobSpec):
        record = CATALOGUE[spec.arm.algorithm]
        train = _imported(record.train)
        return lambda spec, needs, *rest: train(spec, *(needs[role] for role in record.needs), *rest)
    if isinstance(spec, RewardModelJobSpec) and REWARDS[spec.reward_model.kind].score:
        return _imported("experiments.artifacts.text_reward.build")
    return _imported(STAGES[kind])


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]
