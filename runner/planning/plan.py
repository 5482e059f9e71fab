"""From specifications to a plan: which jobs there are, what each needs, and whether the comparison is fair.

    measure ──► ranking data ──► reward model ──► ppo arms ─┐
                   │               └──► base evaluation   ├──► evaluation of each arm ──► (judges) ──► report
                   └──► dpo arms ─────────────────────────┘

    An arm may start from another's checkpoint. It then waits for that arm to finish, and its evaluation for that of the
    other, whose points up to the checkpoint it shares:

    ppo arm ──► fresh pairs, sampled from the checkpoint ──► dpo stage ──┬──► its evaluation
       └──► evaluation of the ppo arm ───────────────────────────────────┘

A job's identity is the hash of what its result depends on. Equal identities are one job, so shared artifacts are
built once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from experiments.errors import InputError
from experiments.evaluation.judging.key import api_key
from experiments.evaluation.judging.template import TEMPLATE_SHA256
from experiments.inputs.fingerprint import (
    EMBEDDER,
    JUDGE,
    data_fingerprint,
    embedder_fingerprint,
    is_our_reward_model,
    model_fingerprint,
    pinned_model,
    reward_model_fingerprint,
    weights_sha256,
)
from experiments.inputs.model_files import pinned_path
from experiments.judge_spec import EndpointJudge
from experiments.spec import (
    ArmJobSpec,
    BaseEvaluationJobSpec,
    Engine,
    EvaluationJobSpec,
    FreshPairsJobSpec,
    JobSpec,
    JudgedRun,
    JudgementJobSpec,
    MeasureJobSpec,
    PPOThenDPO,
    RankingJobSpec,
    RewardModelJobSpec,
    RunSpec,
    Start,
    start_of,
    start_point,
)
from experiments.tasks import task_of
from runner.ledger.files import timestamp, write_json
from runner.ledger.jobfile import JobFile, Need, digest, identity_of
from runner.ledger.reader import NUMBERED_REPORT, is_finished, read_json
from runner.planning.check_models import check_models as check_models_apart
from runner.planning.check_texts import Question
from runner.planning.check_texts import check_texts as check_texts_apart
from runner.planning.fairness import Check, differences, fairness_checks, flatten, num_fresh_labels
from runner.planning.problems import Problem, listing
from runner.planning.starts import label_of, label_of_start, start_problems

SHARED = ("measure", "ranking_data", "reward_model", "base_evaluation")
# What holds others up comes first (first_stage: an arm that others start from), and the shortest last, so that no long
# job is left to run alone. DPO arms need no reward model, so they can start beside it.
ORDER = (
    "measure", "ranking_data", "reward_model", "first_stage", "dpo", "ppo", "fresh_pairs", "ppo_then_dpo",
    "interpolation", "evaluation", "base_evaluation", "judgement", "report",
)  # fmt: skip
COMPARING = {"judgement", "report"}  # take those arms that there are, and are made again when others join
SETTINGS = ("model", "data", "reward_model", "evaluation", "budget")
RESERVED = {"base", "shared", "report", "judges"}
ONE_PER_SWEEP = ("name", "runs_dir", "cache_dir", "keep_adapters", "engine", "tracker", "judge", "rules")
SCHEMA = 3  # of plan.json


@dataclass(frozen=True)
class Work:
    """What a job does at most, in response tokens: every response at full length, prompts not counted."""

    sampled: int = 0
    trained: int = 0  # through a backward pass


@dataclass(frozen=True)
class Job:
    """One process's worth of work, in one folder."""

    folder: Path  # where it works; shared artifacts lie in the cache
    ledger: Path  # where RUNS_DIR keeps its record: the folder itself, or a copy without weights
    file: JobFile
    needs: Mapping[str, str]  # role → label
    rank: str  # its place in ORDER
    work: Work

    @property
    def label(self) -> str:
        """Its name within the sweep."""
        return self.file.label

    @property
    def kind(self) -> str:
        """Which stage it is."""
        return self.file.kind

    @property
    def identity(self) -> str:
        """Hash of what its result depends on."""
        return self.file.identity

    @property
    def wide(self) -> bool:
        """Whether it gets the whole machine where there is no GPU: everything else waits for it."""
        return self.kind in {"measure", "ranking_data"}


@dataclass(frozen=True)
class Plan:
    """A sweep: jobs in the order in which they start when there is room."""

    name: str
    folder: Path
    engine: Engine
    runs: tuple[RunSpec, ...]
    fairness: tuple[Check, ...]
    jobs: tuple[Job, ...]
    arguments: tuple[str, ...] = ()  # of the command that started it

    def content(self) -> dict[str, Any]:
        """What ``plan.json`` says of the jobs and arms; folders are relative to the sweep's."""
        return {
            "arms": [_arm_entry(run) for run in self.runs],
            "shared": {job.kind: str(job.ledger.relative_to(self.folder)) for job in self.jobs if job.kind in SHARED},
            "scores": [asdict(card) for card in self.runs[0].scores],
            "settings": self.runs[0].model_dump(mode="json", include=set(SETTINGS)),
            "fairness": [{"check": check.check, "value": check.value, "ok": check.ok} for check in self.fairness],
            "jobs": [
                {
                    "label": job.label,
                    "kind": job.kind,
                    "folder": str(job.ledger.relative_to(self.folder)),
                    "identity": job.identity,
                    "needs": list(job.needs.values()),
                }
                for job in self.jobs
            ],
        }

    def write(self) -> None:
        """Write ``plan.json``; going on with a sweep makes neither it nor its registered rules younger.

        It is part of the ledger, so it keeps the command that it has if nothing else differs, such as the engine.
        """
        path = self.folder / "plan.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        rules = self.runs[0].rules.model_dump(mode="json")
        first = {"created": timestamp(), "registered_rules": {"sha256": digest(rules), "values": rules}}
        command = {"command": list(self.arguments)}
        there = read_json(path) if path.exists() else {}
        if there:
            first = {key: there[key] for key in first}
        plan = {"schema": SCHEMA, "sweep": self.name} | first | {"rules": rules} | self.content()
        if "command" not in there or there != plan | {"command": there["command"]}:
            write_json(path, plan | command)


def make_plan(runs: Sequence[RunSpec], arguments: Sequence[str] = ()) -> Plan:
    """Plan a sweep.

    Args:
        runs: its arms x seeds, at least one.
        arguments: of the command that asks for them.

    Raises:
        InputError: an arm is listed twice, arms disagree on what a sweep has once, a model or data path cannot be
            used, or the comparison would not be fair. All that is wrong is listed.
    """
    _refuse(_listed_twice(runs) + _reserved_names(runs) + _disagreements(runs) + start_problems(runs))
    runs, inputs = _pinned_with_inputs(runs)
    arms = _jobs_of_all(runs, inputs)
    fairness = _fairness(runs, arms)
    _refuse(
        [Problem("", f"the comparison is not fair: {check.check}: {check.value}") for check in fairness if not check.ok]
    )
    jobs = list({job.label: job for arm in arms for job in arm.values()}.values())
    judges = _judge_jobs(runs, jobs)
    jobs += [*judges, _report_job(runs[0], jobs, judges)]
    jobs.sort(key=lambda job: ORDER.index(job.rank))
    return Plan(runs[0].name, run_folder(runs[0]), runs[0].engine, tuple(runs), fairness, tuple(jobs), tuple(arguments))


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


def run_folder(run: RunSpec) -> Path:
    """The sweep's folder, RUNS_DIR."""
    return Path(run.runs_dir).expanduser().absolute() / run.name


def with_needs(job: Job, there: Mapping[str, Job]) -> Job:
    """A comparison of what there is, by label: arms that failed are left out, and its identity says so."""
    needs = {role: label for role, label in job.needs.items() if label in there}
    files = {
        role: Need(folder=str(there[label].folder), identity=there[label].identity) for role, label in needs.items()
    }
    identity = identity_of(
        job.kind, job.file.spec, job.file.inputs, {role: need.identity for role, need in files.items()}
    )
    return replace(job, needs=needs, file=job.file.model_copy(update={"needs": files, "identity": identity}))


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
        if there["schema"] != SCHEMA:
            raise ValueError(f"its schema is {there['schema']}, not {SCHEMA}")
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


# ------------------------------------------------------------------------------------------------------------- the jobs
def _pinned_with_inputs(runs: Sequence[RunSpec]) -> tuple[list[RunSpec], list[dict[str, str]]]:
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
    _refuse(list(problems.values()))
    return pinned, inputs


def _jobs_of_all(runs: Sequence[RunSpec], inputs: Sequence[Mapping[str, str]]) -> list[dict[str, Job]]:
    """The jobs of each arm, by kind. Those that start from another arm need that arm's."""
    started_from = set(filter(None, map(label_of_start, runs)))
    found: dict[str, dict[str, Job]] = {}
    for run, fingerprints in zip(runs, inputs, strict=True):
        if start_of(run.arm) is None:
            jobs = _jobs_of(run, fingerprints)
            if label_of(run) in started_from:
                jobs["arm"] = replace(jobs["arm"], rank="first_stage")
            found[label_of(run)] = jobs
    for run, fingerprints in zip(runs, inputs, strict=True):
        if label := label_of_start(run):
            found[label_of(run)] = _jobs_after(run, fingerprints, found[label])
    return [found[label_of(run)] for run in runs]


def _jobs_of(run: RunSpec, inputs: Mapping[str, str]) -> dict[str, Job]:
    """The jobs that one arm depends on and consists of, by kind.

    ``inputs``: fingerprints of base model and data and, for the evaluations alone, of the embedder if there is one.
    """
    shared = _shared_jobs(run, inputs)
    trained_on = _without_embedder(inputs)
    ranking = {"ranking_data": shared["ranking_data"]}
    to_evaluate = ranking | {kind: shared[kind] for kind in ("measure", "reward_model")}
    needs = to_evaluate if run.arm.algorithm == "ppo" else ranking
    arm = _own_job(run, "arm", _arm_spec(run), trained_on, needs, _arm_work(run))
    return shared | {"arm": arm, "evaluation": _evaluation_job(run, inputs, {"arm": arm} | to_evaluate)}


def _jobs_after(run: RunSpec, inputs: Mapping[str, str], first: Mapping[str, Job]) -> dict[str, Job]:
    """The same of an arm that starts from a checkpoint of the arm with the jobs ``first``."""
    shared, trained_on = _shared_jobs(run, inputs), _without_embedder(inputs)
    needs, pairs = {"start": first["arm"]}, {}
    to_evaluate = {kind: shared[kind] for kind in ("measure", "ranking_data", "reward_model")}
    if isinstance(run.arm, PPOThenDPO):
        spec, work = (
            _fresh_pairs_spec(run, run.arm.start),
            Work(sampled=num_fresh_labels(run) * run.data.max_new_tokens),
        )
        needs |= {"ranking_data": shared["ranking_data"]}  # of the base, which must be the one that was sampled
        measure = {"measure": shared["measure"]}
        pairs = {"fresh_pairs": _own_job(run, "fresh_pairs", spec, trained_on, needs | measure, work)}
    arm = _own_job(run, "arm", _arm_spec(run), trained_on, needs | pairs, _arm_work(run))
    evaluation = _evaluation_job(run, inputs, {"arm": arm, "start_evaluation": first["evaluation"]} | to_evaluate)
    return shared | pairs | {"arm": arm, "evaluation": evaluation}


def _evaluation_job(run: RunSpec, inputs: Mapping[str, str], needs: Mapping[str, Job]) -> Job:
    """Of one arm; points that another arm's evaluation has are no work."""
    start, num_points = start_of(run.arm), run.budget.num_evaluation_points
    own_points = num_points - 1 - (start_point(start, num_points) if start else 0)
    work = Work(sampled=_evaluated_tokens(run) * own_points)
    return _own_job(run, "evaluation", _evaluation_spec(run), inputs, needs, work)


def _without_embedder(inputs: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in inputs.items() if key != "embedder"}


def _shared_jobs(run: RunSpec, inputs: Mapping[str, str]) -> dict[str, Job]:
    """The artifacts that every arm of the sweep uses."""
    data, budget = run.data, run.budget
    only_data, only_model = ({key: inputs[key]} for key in ("data", "base_model"))
    measure_spec = MeasureJobSpec(measure=task_of(data).measure_settings(data))
    measure = _shared_job(run, "measure", measure_spec, only_data, {}, Work())
    ranking_spec = RankingJobSpec(model=run.model, data=data, num_ranking_prompts=budget.num_ranking_prompts)
    sampled = Work(sampled=budget.num_ranking_prompts * data.samples_per_prompt * data.max_new_tokens)
    ranking = _shared_job(run, "ranking_data", ranking_spec, _without_embedder(inputs), {"measure": measure}, sampled)
    reward_spec = RewardModelJobSpec(
        task=data.task,
        model=run.model,
        reward_model=run.reward_model,
        comparisons=_comparisons(run)[0],
        seed=data.seed,
    )
    trained = Work(trained=_reward_tokens(run))
    reward = _shared_job(run, "reward_model", reward_spec, only_model, {"ranking_data": ranking}, trained)
    needs = {"measure": measure, "ranking_data": ranking, "reward_model": reward}
    base = _shared_job(run, "base_evaluation", _base_evaluation_spec(run), inputs, needs, _base_evaluation_work(run))
    return {job.kind: job for job in (measure, ranking, reward, base)}


def _evaluation_spec(run: RunSpec) -> EvaluationJobSpec:
    return EvaluationJobSpec(
        model=run.model,
        data=run.data,
        evaluation=run.evaluation,
        num_prompts=run.budget.num_evaluation_prompts,
        samples_per_prompt=run.budget.samples_per_evaluation_prompt,
    )


def _base_evaluation_spec(run: RunSpec) -> BaseEvaluationJobSpec:
    """That of the arms, so that they can be compared, and how often the base alone is sampled beyond it."""
    return BaseEvaluationJobSpec(
        **dict(_evaluation_spec(run)), further_samples_per_prompt=run.budget.further_base_samples_per_prompt
    )


def _fresh_pairs_spec(run: RunSpec, start: Start) -> FreshPairsJobSpec:
    return FreshPairsJobSpec(
        model=run.model,
        data=run.data,
        num_ranking_prompts=num_fresh_labels(run) // run.data.samples_per_prompt,
        start_point=start_point(start, run.budget.num_evaluation_points),
        seed=run.seed,
    )


def _arm_spec(run: RunSpec) -> ArmJobSpec:
    for_reward, for_dpo = _comparisons(run)
    return ArmJobSpec(
        model=run.model,
        data=run.data,
        arm=run.arm,
        comparisons=for_reward if run.arm.algorithm == "ppo" else for_dpo,
        seed=run.seed,
        num_prompts=run.budget.num_prompts,
        num_points=run.budget.num_evaluation_points,
    )


def _shared_job(
    run: RunSpec, kind: str, spec: JobSpec, inputs: Mapping[str, str], needs: Mapping[str, Job], work: Work
) -> Job:
    """An artifact: it lies in the cache under its identity, for this sweep and later ones."""
    file = _job_file(run, kind, kind, spec, inputs, needs)
    folder = Path(file.cache_dir) / "artifacts" / kind / file.identity[:16]
    return Job(folder, run_folder(run) / "shared" / kind, file, _labels(needs), kind, work)


def _own_job(
    run: RunSpec, kind: str, spec: JobSpec, inputs: Mapping[str, str], needs: Mapping[str, Job], work: Work
) -> Job:
    """An arm's training, its evaluation, or the pairs that it learns from alone."""
    label = label_of(run) if kind == "arm" else f"{label_of(run)}/{kind}"
    file = _job_file(run, kind, label, spec, inputs, needs)
    folder = run_folder(run) / label
    return Job(folder, folder, file, _labels(needs), run.arm.algorithm if kind == "arm" else kind, work)


def _judge_jobs(runs: Sequence[RunSpec], jobs: Sequence[Job]) -> list[Job]:
    """One job for each judge that is configured; none by default."""
    run = runs[0]
    evaluations = {job.label: job for job in jobs if job.kind == "evaluation"}
    shared = {job.kind: job for job in jobs if job.kind in {"base_evaluation", "reward_model"}}
    base = {"base_model": shared["base_evaluation"].file.inputs["base_model"]}
    judged = tuple(JudgedRun(arm=one.arm.name, algorithm=one.arm.algorithm, seed=one.seed) for one in runs)
    found = []
    for name, judge in (("endpoint", run.judge.endpoint), ("reward_model", run.judge.reward_model)):
        if judge is None:
            continue
        its = TEMPLATE_SHA256 if isinstance(judge, EndpointJudge) else _fingerprint_of_judge(judge.path)
        if run.rules.win_rate.primary_judge == name and not isinstance(judge, EndpointJudge):
            _refuse_training_reward(run, Path(judge.path).expanduser(), shared["reward_model"].folder)
        spec = JudgementJobSpec(task=run.data.task, model=run.model, judge=judge, runs=judged)
        needs = shared | evaluations
        file = _job_file(run, "judgement", f"judges/{name}", spec, base | {"judge": its}, needs)
        folder = run_folder(run) / "judges" / name
        found.append(Job(folder, folder, file, _labels(needs), "judgement", Work()))
    return found


def _fingerprint_of_judge(path: str) -> str:
    try:
        return reward_model_fingerprint(path)
    except InputError as error:
        raise InputError(listing([Problem("", str(error))])) from None


def _refuse_training_reward(run: RunSpec, judge: Path, reward: Path) -> None:
    """The judge that decides must not be the reward that PPO trains on, if that one is in the cache already.

    Weights are compared: a copy may have another specification beside them.
    """
    others = [card.name for card in run.scores if card.role in {"measure", "secondary"}] + ["endpoint"]
    both_ours = is_our_reward_model(judge) and is_our_reward_model(reward)
    if both_ours and weights_sha256(judge) == weights_sha256(reward):
        _refuse(
            [
                Problem(
                    "",
                    "rules.win_rate.primary_judge=reward_model: judge.reward_model.path holds the training reward's "
                    f"weights, which must not decide who is better; {', '.join(others)} or another folder can",
                )
            ]
        )


def _report_job(run: RunSpec, jobs: Sequence[Job], judges: Sequence[Job]) -> Job:
    """It reads plan.json, so its inputs are the rules there; an arm that is trained again must end before it."""
    read = {"arm", "base_evaluation", "evaluation", "judgement"}
    needs = {job.label: job for job in (*jobs, *judges) if job.kind in read}
    folder = run_folder(run) / "report"
    inputs = {"rules": digest(run.rules.model_dump(mode="json"))}
    return Job(
        folder, folder, _job_file(run, "report", "report", None, inputs, needs), _labels(needs), "report", Work()
    )


def _job_file(
    run: RunSpec, kind: str, label: str, spec: JobSpec | None, inputs: Mapping[str, str], needs: Mapping[str, Job]
) -> JobFile:
    own = kind in {"arm", "evaluation", "fresh_pairs"}
    return JobFile(
        kind=kind,
        label=label,
        sweep=run.name,
        arm=run.arm.name if own else None,
        seed=run.seed if own else None,
        spec=spec,
        inputs=dict(inputs),
        needs={role: Need(folder=str(job.folder), identity=job.identity) for role, job in needs.items()},
        identity=identity_of(kind, spec, inputs, {role: job.identity for role, job in needs.items()}),
        cache_dir=str(Path(run.cache_dir).expanduser().absolute()),
        tracker=run.tracker,
    )


def _labels(needs: Mapping[str, Job]) -> dict[str, str]:
    return {role: job.label for role, job in needs.items()}


def _comparisons(run: RunSpec) -> tuple[Literal["all", "best_worst"], Literal["all", "best_worst"]]:
    """Which pairs the reward model and DPO learn from."""
    chosen = run.data.comparisons
    return ("all", "best_worst") if chosen == "per_arm" else (chosen, chosen)


def _reward_tokens(run: RunSpec) -> int:
    """Response tokens that the reward model trains on: a prompt's samples once an epoch, for all their comparisons."""
    prompts = round(run.budget.num_ranking_prompts * (1 - run.reward_model.held_out_fraction))
    return prompts * run.data.samples_per_prompt * run.data.max_new_tokens * run.reward_model.num_epochs


def _evaluated_tokens(run: RunSpec) -> int:
    """Response tokens of one evaluation point."""
    return run.budget.num_evaluation_prompts * run.budget.samples_per_evaluation_prompt * run.data.max_new_tokens


def _base_evaluation_work(run: RunSpec) -> Work:
    """Two sets of random numbers, for the noise floor, and the further samples."""
    further = run.budget.num_evaluation_prompts * run.budget.further_base_samples_per_prompt * run.data.max_new_tokens
    return Work(sampled=2 * _evaluated_tokens(run) + further)


def _arm_work(run: RunSpec) -> Work:
    start, tokens = start_of(run.arm), run.data.max_new_tokens
    rest = 1 - (start.share if start else 0)
    rollouts = round(run.budget.num_prompts * rest) * tokens
    if run.arm.algorithm == "ppo":
        return Work(sampled=rollouts, trained=rollouts * run.arm.num_epochs)
    return Work() if run.arm.algorithm == "interpolation" else Work(trained=2 * rollouts)


def _fairness(runs: Sequence[RunSpec], arms: Sequence[Mapping[str, Job]]) -> tuple[Check, ...]:
    identities = {
        label_of(run): {kind: arm[kind].identity for kind in SHARED} for run, arm in zip(runs, arms, strict=True)
    }
    fingerprints = {label_of(run): arm["arm"].file.inputs["base_model"] for run, arm in zip(runs, arms, strict=True)}
    return fairness_checks({label_of(run): run for run in runs}, fingerprints, identities)


# ------------------------------------------------------------------------------------------------------ what is refused
def _listed_twice(runs: Sequence[RunSpec]) -> list[Problem]:
    labels = [label_of(run) for run in runs]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    return [Problem(label, "is listed more than once; each arm and seed has one folder") for label in twice]


def _reserved_names(runs: Sequence[RunSpec]) -> list[Problem]:
    names = sorted({run.arm.name for run in runs})
    taken = [name for name in names if name in RESERVED or NUMBERED_REPORT.fullmatch(name)]
    return [Problem("", f"arm.name={name}: the sweep's folder or its report uses this name already") for name in taken]


def _disagreements(runs: Sequence[RunSpec]) -> list[Problem]:
    """Settings that a sweep has once."""
    contents = {label_of(run): run.model_dump(include=set(ONE_PER_SWEEP)) for run in runs}
    return [Problem("", f"a sweep has one value for all arms: {difference}") for difference in differences(contents)]


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise InputError(listing(problems))


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


def _arm_entry(run: RunSpec) -> dict[str, Any]:
    label = label_of(run)
    return {
        "arm": run.arm.name,
        "algorithm": run.arm.algorithm,
        "seed": run.seed,
        "folder": label,
        "evaluation": f"{label}/evaluation",
        "knobs": run.arm.model_dump(mode="json"),
    }
