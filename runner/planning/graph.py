"""Which jobs there are, and what each needs.

    measure ──► ranking data ──► reward model ──► ppo arms ─┐
                   │               └──► base evaluation   ├──► evaluation of each arm ──► (judges) ──► report
                   └──► dpo arms ─────────────────────────┘

    An arm may start from another's checkpoint. It then waits for that arm to finish. Its evaluation waits for that of
    the other arm, since both share the points up to the checkpoint:

    ppo arm ──► fresh pairs, sampled from the checkpoint ──► dpo stage ──┬──► its evaluation
       └──► evaluation of the ppo arm ───────────────────────────────────┘

A base model that comes in a package is converted by a job of its own, before the ranking data is sampled.

A job's identity is the hash of what its result depends on. Equal identities are one job, so shared artifacts are
built once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.catalogue import CATALOGUE
from experiments.errors import InputError
from experiments.evaluation.judging.template import TEMPLATE_SHA256
from experiments.inputs.fingerprint import is_packaged, reward_model_fingerprint
from experiments.judge_spec import EndpointJudge, JudgeSettings, RewardModelJudge
from experiments.spec import (
    BaseModelJobSpec,
    JobSpec,
    JudgedRun,
    JudgementJobSpec,
    MeasureJobSpec,
    PPOThenDPO,
    RankingJobSpec,
    ReportJobSpec,
    RewardModelJobSpec,
    RunSpec,
    start_of,
    start_point,
)
from experiments.tasks import task_of
from runner.ledger.jobfile import JobFile, Need, identity_of
from runner.planning.contests import between_arms
from runner.planning.fairness import num_fresh_labels
from runner.planning.problems import Problem, listing
from runner.planning.refusals import refuse_training_reward
from runner.planning.specifications import (
    Work,
    arm_spec,
    arm_work,
    base_evaluation_spec,
    base_evaluation_work,
    comparisons,
    evaluated_tokens,
    evaluation_spec,
    fresh_pairs_spec,
    reward_tokens,
    without_embedder,
)
from runner.planning.starts import label_of, label_of_start

# Jobs that others wait for come first (first_stage: an arm that others start from). The shortest come last, so that no
# long job is left to run alone. Arms that need no reward model come before those that do, and can start beside it.
PLAIN = sorted(
    (name for name, record in CATALOGUE.items() if not record.described.staged),
    key=lambda name: len(CATALOGUE[name].needs),
)
STAGED = [name for name, record in CATALOGUE.items() if record.described.staged]
ORDER = (
    "base_model", "measure", "ranking_data", "reward_model", "first_stage", *PLAIN, "fresh_pairs", *STAGED,
    "evaluation", "base_evaluation", "judgement", "report",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One process's worth of work, in one folder."""

    folder: Path  # of its work; that of a shared artifact is in the cache
    ledger: Path  # of its record in RUNS_DIR: the same folder, or a copy without weights
    file: JobFile
    needs: Mapping[str, str]  # role → label of what it waits for
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
    def shared(self) -> bool:
        """Whether it is made once in the cache, for all arms and for later sweeps."""
        return self.folder != self.ledger

    @property
    def wide(self) -> bool:
        """Whether it gets the whole machine if there is no GPU. Everything else then waits for it."""
        return self.kind in {"measure", "ranking_data"}


def run_folder(run: RunSpec) -> Path:
    """The sweep's folder, RUNS_DIR."""
    return Path(run.runs_dir).expanduser().absolute() / run.name


def with_needs(job: Job, there: Mapping[str, Job]) -> Job:
    """A comparison of those jobs that are there, by label. Arms that failed are left out, and its identity says so."""
    needs = {role: label for role, label in job.needs.items() if label in there}
    files = {
        role: Need(folder=str(there[label].folder), identity=there[label].identity) for role, label in needs.items()
    }
    identity = identity_of(
        job.kind, job.file.spec, job.file.inputs, {role: need.identity for role, need in files.items()}
    )
    return replace(job, needs=needs, file=job.file.model_copy(update={"needs": files, "identity": identity}))


def jobs_of_all(runs: Sequence[RunSpec], inputs: Sequence[Mapping[str, str]]) -> list[dict[str, Job]]:
    """The jobs of each arm, by kind. An arm that starts from another one needs that arm's jobs."""
    started_from = set(filter(None, map(label_of_start, runs)))
    found: dict[str, dict[str, Job]] = {}
    for run, fingerprints in sorted(zip(runs, inputs, strict=True), key=lambda pair: start_of(pair[0].arm) is not None):
        start, label = label_of_start(run), label_of(run)
        found[label] = jobs = _jobs_of(run, fingerprints, found[start] if start else {})
        if label in started_from:
            jobs["arm"] = replace(jobs["arm"], rank="first_stage")
    return [found[label_of(run)] for run in runs]


def _jobs_of(run: RunSpec, inputs: Mapping[str, str], first: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs that one arm depends on and consists of, by kind.

    Args:
        run: the arm.
        inputs: fingerprints of base model and data and, for the evaluations alone, of the embedder if there is one.
        first: the jobs of the arm that it starts from, by kind; empty if that is the base.
    """
    shared, trained_on = _shared_jobs(run, inputs), without_embedder(inputs)
    artifacts = {kind: shared[kind] for kind in ("ranking_data", "measure", "reward_model")}
    roles, own = CATALOGUE[run.arm.algorithm].needs, {}
    there = artifacts | ({"start": first["arm"]} if first else {})
    needs = {role: job for role, job in there.items() if role in roles}
    if isinstance(run.arm, PPOThenDPO):
        needs["ranking_data"] = shared["ranking_data"]  # of the base, which must be the one that was sampled
        spec, work = fresh_pairs_spec(run, run.arm.start), Work(sampled=num_fresh_labels(run) * run.data.max_new_tokens)
        pairs = _own_job(run, "fresh_pairs", spec, trained_on, needs | {"measure": shared["measure"]}, work)
        own, needs = {"fresh_pairs": pairs}, needs | {"fresh_pairs": pairs}
    arm = _own_job(run, "arm", arm_spec(run), trained_on, needs, arm_work(run))
    before = {"start_evaluation": first["evaluation"]} if first else {}
    return shared | own | {"arm": arm, "evaluation": _evaluation_job(run, inputs, {"arm": arm} | before | artifacts)}


def _evaluation_job(run: RunSpec, inputs: Mapping[str, str], needs: Mapping[str, Job]) -> Job:
    """Of one arm; points that another arm's evaluation has are no work."""
    start, num_points = start_of(run.arm), run.budget.num_evaluation_points
    own_points = num_points - 1 - (start_point(start, num_points) if start else 0)
    work = Work(sampled=evaluated_tokens(run) * own_points)
    return _own_job(run, "evaluation", evaluation_spec(run), inputs, needs, work)


def _shared_jobs(run: RunSpec, inputs: Mapping[str, str]) -> dict[str, Job]:
    """The artifacts that every arm of the sweep uses."""
    data, budget = run.data, run.budget
    only_data, only_model = ({key: inputs[key]} for key in ("data", "base_model"))
    measure_spec = MeasureJobSpec(measure=task_of(data).measure_settings(data))
    measure = _shared_job(run, "measure", measure_spec, only_data, {}, Work())
    ranking_spec = RankingJobSpec(model=run.model, data=data, num_ranking_prompts=budget.num_ranking_prompts)
    sampled = Work(sampled=budget.num_ranking_prompts * data.samples_per_prompt * data.max_new_tokens)
    ranking = _shared_job(run, "ranking_data", ranking_spec, without_embedder(inputs), {"measure": measure}, sampled)
    reward_spec = RewardModelJobSpec(
        task=data.task,
        model=run.model,
        reward_model=run.reward_model,
        comparisons=comparisons(run, "all"),
        seed=data.seed,
    )
    trained = Work(trained=reward_tokens(run))
    reward = _shared_job(run, "reward_model", reward_spec, only_model, {"ranking_data": ranking}, trained)
    needs = {"measure": measure, "ranking_data": ranking, "reward_model": reward}
    base = _shared_job(run, "base_evaluation", base_evaluation_spec(run), inputs, needs, base_evaluation_work(run))
    shared = {job.kind: job for job in (measure, ranking, reward, base)}
    return shared | _conversion(run, only_model, ranking) if is_packaged(run.model.path) else shared


def _conversion(run: RunSpec, inputs: Mapping[str, str], ranking: Job) -> dict[str, Job]:
    """The job that converts a packaged base, and the first job that loads it, which now waits for the other.

    The conversion is in no job's identity: the package's fingerprint is there already.
    """
    conversion = _shared_job(run, "base_model", BaseModelJobSpec(model=run.model), inputs, {}, Work())
    waiting = replace(ranking, needs={**ranking.needs, "base_model": conversion.label})
    return {conversion.kind: conversion, ranking.kind: waiting}


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


def judge_jobs(runs: Sequence[RunSpec], jobs: Sequence[Job]) -> list[Job]:
    """One job for each judge that is configured; none by default."""
    run = runs[0]
    evaluations = {job.label: job for job in jobs if job.kind == "evaluation"}
    shared = {job.kind: job for job in jobs if job.kind in {"base_evaluation", "reward_model"}}
    base = {"base_model": shared["base_evaluation"].file.inputs["base_model"]}
    judged = tuple(JudgedRun(arm=one.arm.name, seed=one.seed) for one in runs)
    found = []
    for name, judge in run.judge.configured.items():
        its = _read_by(judge)
        if run.rules.win_rate.primary_judge == name and isinstance(judge, RewardModelJudge):
            refuse_training_reward(run, Path(judge.path).expanduser(), shared["reward_model"].folder)
        contests = between_arms(runs)
        spec = JudgementJobSpec(task=run.data.task, model=run.model, judge=judge, runs=judged, contests=contests)
        needs = shared | evaluations
        file = _job_file(run, "judgement", f"judges/{name}", spec, base | its, needs)
        folder = run_folder(run) / "judges" / name
        found.append(Job(folder, folder, file, _labels(needs), "judgement", Work()))
    return found


def _read_by(judge: JudgeSettings) -> dict[str, str]:
    """Hash of what a judge's verdicts depend on besides its settings, if anything."""
    if not isinstance(judge, RewardModelJudge):
        return {"judge": TEMPLATE_SHA256} if isinstance(judge, EndpointJudge) else {}
    try:
        return {"judge": reward_model_fingerprint(judge.path)}
    except InputError as error:
        raise InputError(listing([Problem("", str(error))])) from None


def report_job(runs: Sequence[RunSpec], jobs: Sequence[Job], judges: Sequence[Job]) -> Job:
    """Of the whole sweep. An arm that is trained again must end before it, so it waits for the arms as well."""
    run, read = runs[0], {"arm", "base_evaluation", "evaluation", "judgement"}
    needs = {job.label: job for job in (*jobs, *judges) if job.kind in read}
    folder = run_folder(run) / "report"
    spec = ReportJobSpec(rules=run.rules, contests=between_arms(runs))
    return Job(folder, folder, _job_file(run, "report", "report", spec, {}, needs), _labels(needs), "report", Work())


def _job_file(
    run: RunSpec, kind: str, label: str, spec: JobSpec, inputs: Mapping[str, str], needs: Mapping[str, Job]
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
