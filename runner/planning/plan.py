"""From specifications to a plan: the jobs of a sweep, whether its comparison is fair, and what plan.json says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.catalogue import described
from experiments.errors import InputError
from experiments.evaluation.judging.key import api_key
from experiments.judge_spec import EndpointJudge
from experiments.spec import Engine, JudgementJobSpec, RunSpec
from runner.ledger.files import timestamp, write_json
from runner.ledger.jobfile import digest
from runner.ledger.plan_file import PLAN_SCHEMA, Check
from runner.ledger.reader import is_finished, read_json
from runner.planning import checks
from runner.planning.contests import against_base, between_arms, contest_problems
from runner.planning.fairness import fairness_checks
from runner.planning.graph import ORDER, Job, jobs_of_all, judge_jobs, report_job, run_folder
from runner.planning.problems import Problem, refuse
from runner.planning.refusals import changes_of, disagreements, listed_twice, reserved_names
from runner.planning.specifications import SHARED, pinned_with_inputs
from runner.planning.starts import label_of, start_problems

SETTINGS = ("model", "data", "reward_model", "evaluation", "budget")


@dataclass(frozen=True)
class Plan:
    """A sweep. Its jobs are in the order in which they start when there is room."""

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
            "scores": [asdict(card) for card in self.runs[0].scores],
            "algorithms": {name: described(name) for name in dict.fromkeys(run.arm.algorithm for run in self.runs)},
            "contests": [one.model_dump() for one in (*against_base(self.runs), *between_arms(self.runs))],
            "shared": {job.kind: str(job.ledger.relative_to(self.folder)) for job in self.jobs if job.kind in SHARED},
            "settings": self.runs[0].model_dump(mode="json", include=set(SETTINGS)),
            "fairness": [check.model_dump() for check in self.fairness],
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
        """Write ``plan.json``. Resuming a sweep changes neither its date nor its registered rules.

        It is part of the ledger. So it keeps its command if nothing in it but the command would differ.
        """
        path = self.folder / "plan.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        rules = self.runs[0].rules.model_dump(mode="json")
        first = {"created": timestamp(), "registered_rules": {"sha256": digest(rules), "values": rules}}
        command = {"command": list(self.arguments)}
        there = read_json(path) if path.exists() else {}
        if there:
            first = {key: there[key] for key in first}
        plan = {"schema": PLAN_SCHEMA, "sweep": self.name} | first | {"rules": rules} | self.content()
        plan = json.loads(json.dumps(plan))  # as it comes back from the file: lists for tuples
        if "command" not in there or there != plan | {"command": there["command"]}:
            write_json(path, plan | command)


def make_plan(runs: Sequence[RunSpec], arguments: Sequence[str] = ()) -> Plan:
    """Plan a sweep.

    Args:
        runs: its arms x seeds, at least one.
        arguments: of the command that asks for them.

    Raises:
        InputError: an arm is listed twice, arms disagree on what a sweep has once, a model or data path cannot be
            used, or the comparison would not be fair. It lists everything that is wrong.
    """
    refuse(
        listed_twice(runs) + reserved_names(runs) + disagreements(runs) + start_problems(runs) + contest_problems(runs)
    )
    runs, inputs = pinned_with_inputs(runs)
    arms = jobs_of_all(runs, inputs)
    fairness = _fairness(runs, arms)
    refuse(
        [Problem("", f"the comparison is not fair: {check.check}: {check.value}") for check in fairness if not check.ok]
    )
    jobs = list({job.label: job for arm in arms for job in arm.values()}.values())
    judges = judge_jobs(runs, jobs)
    jobs += [*judges, report_job(runs, jobs, judges)]
    jobs.sort(key=lambda job: ORDER.index(job.rank))
    return Plan(runs[0].name, run_folder(runs[0]), runs[0].engine, tuple(runs), fairness, tuple(jobs), tuple(arguments))


def check_inputs(plan: Plan) -> str:
    """Make sure that texts and models can do what the sweep will ask of them, hours from now.

    Returns:
        How many rows of the texts are used and why others are not, in a sentence.

    Raises:
        InputError: one sentence for each thing that cannot work.
    """
    inputs: dict[str, str] = {}
    for job in plan.jobs:
        if not (isinstance(job.file.spec, JudgementJobSpec) and isinstance(job.file.spec.judge, EndpointJudge)):
            inputs |= job.file.inputs
    return checks.check_inputs(plan.runs[0], inputs)  # the fairness checks have made sure that all arms have the same


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
        changes = changes_of(there, plan.content())
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


def _fairness(runs: Sequence[RunSpec], arms: Sequence[Mapping[str, Job]]) -> tuple[Check, ...]:
    identities = {
        label_of(run): {kind: arm[kind].identity for kind in SHARED} for run, arm in zip(runs, arms, strict=True)
    }
    fingerprints = {label_of(run): arm["arm"].file.inputs["base_model"] for run, arm in zip(runs, arms, strict=True)}
    return fairness_checks({label_of(run): run for run in runs}, fingerprints, identities)


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
