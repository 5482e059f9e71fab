"""From specifications to a plan: what a sweep does, in one object that can be written down and executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.spec import Engine, RunSpec
from runner.ledger.files import timestamp, write_json
from runner.ledger.jobfile import digest
from runner.ledger.plan_file import PLAN_SCHEMA
from runner.ledger.reader import read_json
from runner.planning.fairness import Check, fairness_checks
from runner.planning.graph import ORDER, SHARED, Job, jobs_of_all, judge_jobs, report_job, run_folder
from runner.planning.problems import Problem
from runner.planning.refusals import disagreements, listed_twice, refuse, reserved_names
from runner.planning.specifications import pinned_with_inputs
from runner.planning.starts import label_of, start_problems

SETTINGS = ("model", "data", "reward_model", "evaluation", "budget")


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
            "scores": [asdict(card) for card in self.runs[0].scores],
            "shared": {job.kind: str(job.ledger.relative_to(self.folder)) for job in self.jobs if job.kind in SHARED},
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
        plan = {"schema": PLAN_SCHEMA, "sweep": self.name} | first | {"rules": rules} | self.content()
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
    refuse(listed_twice(runs) + reserved_names(runs) + disagreements(runs) + start_problems(runs))
    runs, inputs = pinned_with_inputs(runs)
    arms = jobs_of_all(runs, inputs)
    fairness = _fairness(runs, arms)
    refuse(
        [Problem("", f"the comparison is not fair: {check.check}: {check.value}") for check in fairness if not check.ok]
    )
    jobs = list({job.label: job for arm in arms for job in arm.values()}.values())
    judges = judge_jobs(runs, jobs)
    jobs += [*judges, report_job(runs[0], jobs, judges)]
    jobs.sort(key=lambda job: ORDER.index(job.rank))
    return Plan(runs[0].name, run_folder(runs[0]), runs[0].engine, tuple(runs), fairness, tuple(jobs), tuple(arguments))


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
