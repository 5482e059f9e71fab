"""Do the work of a job of any kind. Heavy imports happen only in the job that needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path

from experiments.catalogue import CATALOGUE
from experiments.collector import gc_disabled
from experiments.records import Recorder
from experiments.spec import (
    ArmJobSpec,
    BaseEvaluationJobSpec,
    EvaluationJobSpec,
    FreshPairsJobSpec,
    JobSpec,
    JudgementJobSpec,
    MeasureJobSpec,
    RankingJobSpec,
    RewardModelJobSpec,
)
from experiments.tasks import task_of


def run_stage(
    kind: str, spec: JobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Do the work of one job.

    Args:
        kind: a key of `experiments.spec.JOB_SPECS`.
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
    with gc_disabled():
        work = _import_work(kind, spec, needs, folder, cache_dir, recorder)
        guard = _import_guard(needs)
    with guard:
        work()


def _import_guard(needs: Mapping[str, Path]) -> AbstractContextManager[None]:
    """If the job needs the ranking data, refuse any base other than the one that was sampled for it."""
    if "ranking_data" not in needs:
        return nullcontext()
    from experiments.artifacts import same_base

    return same_base.same_as_in(needs["ranking_data"])


def _import_work(
    kind: str, spec: JobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> Callable[[], None]:
    """Import everything that the job uses, and return the function that does its work."""
    match kind, spec:
        case "measure", MeasureJobSpec():
            return partial(task_of(spec.measure).work.build_measure, spec.measure, folder, recorder)
        case "ranking_data", RankingJobSpec():
            from experiments.artifacts import ranking

            return partial(ranking.build, spec, needs["measure"], folder, cache_dir, recorder)
        case "fresh_pairs", FreshPairsJobSpec():
            from experiments.artifacts import ranking

            return partial(ranking.build_fresh, spec, needs["start"], needs["measure"], folder, cache_dir, recorder)
        case "reward_model", RewardModelJobSpec():
            from experiments.artifacts import reward_model

            return partial(reward_model.build, spec, needs["ranking_data"], folder, cache_dir, recorder)
        case "base_evaluation", BaseEvaluationJobSpec():
            from experiments.evaluation import evaluate

            return partial(evaluate.evaluate_base, spec, needs["measure"], needs["reward_model"], cache_dir, recorder)
        case "evaluation", EvaluationJobSpec():
            from experiments.evaluation import evaluate

            return partial(
                evaluate.evaluate_arm,
                spec,
                needs["arm"],
                needs["measure"],
                needs["reward_model"],
                cache_dir,
                recorder,
                needs.get("start_evaluation"),
            )
        case "arm", ArmJobSpec():
            return _import_arm(spec, needs, folder, cache_dir, recorder)
        case "judgement", JudgementJobSpec():
            from experiments.evaluation.judging import job

            return partial(job.build, spec, needs, folder, cache_dir, recorder)
        case _:
            raise AssertionError(f"no stage for kind {kind!r} with {type(spec).__name__}")


def _import_arm(
    spec: ArmJobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> Callable[[], None]:
    record = CATALOGUE[spec.arm.algorithm]
    module, _, function = record.train.rpartition(".")
    train = getattr(import_module(module), function)
    return partial(train, spec, *(needs[role] for role in record.needs), folder, cache_dir, recorder)
