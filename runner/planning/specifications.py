"""What each job is told: its specification, the work it does at most, and the fingerprints of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from experiments.catalogue import CATALOGUE
from experiments.errors import InputError
from experiments.inputs.fingerprint import (
    EMBEDDER,
    JUDGE,
    data_fingerprint,
    embedder_fingerprint,
    model_fingerprint,
    pinned_model,
)
from experiments.inputs.model_files import pinned_path
from experiments.rewards import REWARDS
from experiments.spec import (
    ArmJobSpec,
    BaseEvaluationJobSpec,
    EvaluationJobSpec,
    FreshPairsJobSpec,
    RunSpec,
    Start,
    start_of,
    start_point,
)
from runner.planning.fairness import num_fresh_labels
from runner.planning.problems import Problem, refuse

SHARED = ("measure", "ranking_data", "reward_model", "base_evaluation")
COMPARING = {"judgement", "report"}  # use those arms that have finished, and are made again when others join


@dataclass(frozen=True)
class Work:
    """What a job does at most, in response tokens: every response at full length, prompts not counted."""

    sampled: int = 0
    trained: int = 0  # through a backward pass


def pinned_with_inputs(runs: Sequence[RunSpec]) -> tuple[list[RunSpec], list[dict[str, str]]]:
    """The arms at the commits that their hub revisions mean now, and fingerprints of what each reads.

    From here on a revision is a commit, so that all jobs load the same files however long the sweep takes.

    Raises:
        InputError: with all that is wrong.
    """
    problems: dict[str, Problem] = {}

    def attempt(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def once(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except InputError as error:
                problems[str(error)] = Problem("", str(error))
                return None

        return once

    pin, pin_path = attempt(pinned_model), attempt(pinned_path)
    of_model, of_data, of_embedder = (
        attempt(model_fingerprint),
        attempt(data_fingerprint),
        attempt(embedder_fingerprint),
    )
    pinned, inputs = [], []
    for run in runs:
        model, embedder, judge = pin(run.model), run.evaluation.embedder, run.judge.reward_model
        embedder, path = embedder and pin_path(embedder, EMBEDDER), judge and pin_path(judge.path, JUDGE)
        found = {"base_model": model and of_model(model), "data": of_data(run.data.path)}
        inputs.append(found | ({"embedder": of_embedder(embedder)} if embedder else {}))
        evaluation = run.evaluation.model_copy(update={"embedder": embedder})
        judges = run.judge.model_copy(
            update={"reward_model": judge.model_copy(update={"path": path}) if judge else None}
        )
        pinned.append(run.model_copy(update={"model": model, "evaluation": evaluation, "judge": judges}))
    refuse(list(problems.values()))
    return pinned, inputs


def without_embedder(inputs: Mapping[str, str]) -> dict[str, str]:
    """What a job that embeds nothing reads."""
    return {key: value for key, value in inputs.items() if key != "embedder"}


def evaluation_spec(run: RunSpec) -> EvaluationJobSpec:
    """Of an arm."""
    return EvaluationJobSpec(
        model=run.model,
        data=run.data,
        evaluation=run.evaluation,
        num_prompts=run.budget.num_evaluation_prompts,
        samples_per_prompt=run.budget.samples_per_evaluation_prompt,
    )


def base_evaluation_spec(run: RunSpec) -> BaseEvaluationJobSpec:
    """That of the arms, so that they can be compared, and how often the base alone is sampled beyond it."""
    return BaseEvaluationJobSpec(
        **dict(evaluation_spec(run)), further_samples_per_prompt=run.budget.further_base_samples_per_prompt
    )


def fresh_pairs_spec(run: RunSpec, start: Start) -> FreshPairsJobSpec:
    """Of the pairs that are sampled from a checkpoint."""
    return FreshPairsJobSpec(
        model=run.model,
        data=run.data,
        num_ranking_prompts=num_fresh_labels(run) // run.data.samples_per_prompt,
        start_point=start_point(start, run.budget.num_evaluation_points),
        seed=run.seed,
    )


def arm_spec(run: RunSpec) -> ArmJobSpec:
    """Of one arm and seed; an arm whose reward is trained on nothing learns from no comparison."""
    record = CATALOGUE[run.arm.algorithm]
    reads_none = "reward_model" in record.needs and REWARDS[run.reward_model.kind].score
    return ArmJobSpec(
        model=run.model,
        data=run.data,
        arm=run.arm,
        comparisons="none" if reads_none else comparisons(run, record.pairs),
        seed=run.seed,
        num_prompts=run.budget.num_prompts,
        num_points=run.budget.num_evaluation_points,
    )


def comparisons(run: RunSpec, by_default: Literal["all", "best_worst"]) -> Literal["all", "best_worst"]:
    """Which pairs a model learns from. `by_default` counts if the configuration leaves that to the arms."""
    return by_default if run.data.comparisons == "per_arm" else run.data.comparisons


def reward_tokens(run: RunSpec) -> int:
    """Response tokens that the reward model trains on: a prompt's samples once an epoch, for all their comparisons."""
    prompts = run.reward_model.prompts_trained_on(run.budget.num_ranking_prompts)
    return prompts * run.data.samples_per_prompt * run.data.max_new_tokens


def evaluated_tokens(run: RunSpec) -> int:
    """Response tokens of one evaluation point."""
    return run.budget.num_evaluation_prompts * run.budget.samples_per_evaluation_prompt * run.data.max_new_tokens


def base_evaluation_work(run: RunSpec) -> Work:
    """Two sets of random numbers, for the noise floor, and the further samples."""
    further = run.budget.num_evaluation_prompts * run.budget.further_base_samples_per_prompt * run.data.max_new_tokens
    return Work(sampled=2 * evaluated_tokens(run) + further)


def arm_work(run: RunSpec) -> Work:
    """What training an arm takes at most."""
    start, record = start_of(run.arm), CATALOGUE[run.arm.algorithm]
    tokens = round(run.budget.num_prompts * (1 - (start.share if start else 0))) * run.data.max_new_tokens
    return Work(sampled=tokens if record.samples else 0, trained=tokens * record.passes(run.arm))
