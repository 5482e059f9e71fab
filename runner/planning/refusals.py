"""What is refused: sweeps that cannot work, and run folders that hold another sweep's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import InputError
from experiments.evaluation.judging.key import api_key
from experiments.inputs.fingerprint import is_our_reward_model, weights_sha256
from experiments.judge_spec import EndpointJudge
from experiments.spec import JudgementJobSpec, RunSpec
from runner.ledger.plan_file import PLAN_SCHEMA
from runner.ledger.reader import NUMBERED_REPORT, is_finished, read_json
from runner.planning.check_models import check_models as check_models_apart
from runner.planning.check_texts import Question
from runner.planning.check_texts import check_texts as check_texts_apart
from runner.planning.fairness import differences, flatten
from runner.planning.problems import Problem, listing
from runner.planning.starts import label_of

if TYPE_CHECKING:
    from runner.planning.plan import Plan

COMPARING = {"judgement", "report"}  # take those arms that there are, and are made again when others join
RESERVED = {"base", "shared", "report", "judges"}
ONE_PER_SWEEP = ("name", "runs_dir", "cache_dir", "keep_adapters", "engine", "tracker", "judge", "rules")


def listed_twice(runs: Sequence[RunSpec]) -> list[Problem]:
    """Arms x seeds that are there more than once."""
    labels = [label_of(run) for run in runs]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    return [Problem(label, "is listed more than once; each arm and seed has one folder") for label in twice]


def reserved_names(runs: Sequence[RunSpec]) -> list[Problem]:
    """Arms whose folder would be one of the sweep's own."""
    names = sorted({run.arm.name for run in runs})
    taken = [name for name in names if name in RESERVED or NUMBERED_REPORT.fullmatch(name)]
    return [Problem("", f"arm.name={name}: the sweep's folder or its report uses this name already") for name in taken]


def disagreements(runs: Sequence[RunSpec]) -> list[Problem]:
    """Settings that a sweep has once."""
    contents = {label_of(run): run.model_dump(include=set(ONE_PER_SWEEP)) for run in runs}
    return [Problem("", f"a sweep has one value for all arms: {difference}") for difference in differences(contents)]


def refuse(problems: Sequence[Problem]) -> None:
    """Raise an `InputError` that lists the problems, if there are any."""
    if problems:
        raise InputError(listing(problems))


def refuse_training_reward(run: RunSpec, judge: Path, reward: Path) -> None:
    """The judge that decides must not be the reward that PPO trains on, if that one is in the cache already.

    Weights are compared: a copy may have another specification beside them.
    """
    others = [card.name for card in run.scores if card.role in {"measure", "secondary"}] + ["endpoint"]
    both_ours = is_our_reward_model(judge) and is_our_reward_model(reward)
    if both_ours and weights_sha256(judge) == weights_sha256(reward):
        refuse(
            [
                Problem(
                    "",
                    "rules.win_rate.primary_judge=reward_model: judge.reward_model.path holds the training reward's "
                    f"weights, which must not decide who is better; {', '.join(others)} or another folder can",
                )
            ]
        )


def check_texts(plan: Plan) -> str:
    """Make sure that the texts yield what the sweep will ask of them.

    Returns:
        How many of their rows are used, in a sentence.

    Raises:
        InputError: names what is missing. Found out here and not by the evaluation, hours later.
    """
    run = plan.runs[0]  # the fairness checks have made sure that every arm has the same data
    measure = next(job for job in plan.jobs if job.kind == "measure")
    question = Question(
        data=run.data,
        fingerprint=measure.file.inputs["data"],
        num_ranking_prompts=run.budget.num_ranking_prompts,
        num_evaluation_prompts=run.budget.num_evaluation_prompts,
    )
    return check_texts_apart(question, Path(measure.file.cache_dir))


def check_models(plan: Plan) -> None:
    """Make sure that the base, the reward-model judge and the embedder can do what will be asked of them.

    Raises:
        InputError: one sentence for each thing that cannot work.
    """
    inputs: dict[str, str] = {}
    for job in plan.jobs:
        if not (isinstance(job.file.spec, JudgementJobSpec) and isinstance(job.file.spec.judge, EndpointJudge)):
            inputs |= job.file.inputs
    check_models_apart(plan.runs[0], inputs)  # the fairness checks have made sure that every arm has the same models


def check_keys(plan: Plan) -> None:
    """Make sure that the judges still to be asked can be, before anything is trained for them.

    Raises:
        InputError: an environment variable that should hold a key does not.
    """
    for job in plan.jobs:
        if isinstance(job.file.spec, JudgementJobSpec) and not is_finished(job.folder, job.identity):
            judge = job.file.spec.judge
            if isinstance(judge, EndpointJudge):
                api_key(judge)


def check_folder(plan: Plan) -> None:
    """Refuse a run folder that holds another specification's results.

    Raises:
        InputError: names each key that differs, with both values.
    """
    path = plan.folder / "plan.json"
    if not path.exists():
        return
    try:
        there = read_json(path)
        if there["schema"] != PLAN_SCHEMA:
            raise ValueError(f"its schema is {there['schema']}, not {PLAN_SCHEMA}")
        changes = _changes(there, plan.content())
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no plan of this program ({error}); name=… chooses another folder. "
            "If this sweep wrote it and it was torn since, remove it: what has finished is recognised without it"
        ) from None
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        raise InputError(
            f"{plan.folder} holds the results of another specification:\n{lines}\nname=… chooses another folder."
        )


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Keys of two plans that differ, with both values; arms are compared where both plans have them."""
    pairs = [("", there["settings"], here["settings"])]
    arms = {arm["folder"]: arm["knobs"] for arm in there["arms"]}
    pairs += [
        (f"{arm['folder']}: arm.", arms[arm["folder"]], arm["knobs"]) for arm in here["arms"] if arm["folder"] in arms
    ]
    lines = [f"{prefix}{line}" for prefix, old, new in pairs for line in _changed(flatten(old), flatten(new))]
    return lines or _changed_identities(there, here)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*old, *new])
    return [f"{key} is {old.get(key)} there, {new.get(key)} now" for key in keys if old.get(key) != new.get(key)]


def _changed_identities(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Equal keys, another identity: the files behind the paths have changed."""
    known = {job["label"]: job["identity"] for job in there["jobs"] if job["kind"] not in COMPARING}
    changed = [job["label"] for job in here["jobs"] if known.get(job["label"], job["identity"]) != job["identity"]]
    return [
        f"{label}: the files behind model.path or data.path, or this program's schema, are others now"
        for label in changed
    ]
