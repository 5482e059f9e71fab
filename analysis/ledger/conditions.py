"""Whether runs were made under conditions in which a comparison of them means something (architecture, decision 7).

Pure functions of the plan and of the jobs' specifications; each problem is one phrase for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

EVALUATION_ONLY = {"embedder"}  # inputs that no training has
BASE_ONLY = {"further_samples_per_prompt"}  # what the base's evaluation has beyond an arm's


def identity_problems(
    plan: dict[str, Any], specs: Mapping[str, dict[str, Any]], finished: Mapping[str, str | None]
) -> Iterator[str]:
    """A folder whose specification is not the one its status, or the plan, was written for.

    Args:
        plan: plan.json.
        specs: spec.json by label.
        finished: the identity in status.json by label; None if it has none.
    """
    planned = {job["label"]: job["identity"] for job in plan["jobs"]}
    for label, spec in specs.items():
        if (finished[label] or spec["identity"]) != spec["identity"]:
            yield f"{label}: status.json belongs to another specification than spec.json"
        if planned.get(spec.get("label", label), spec["identity"]) != spec["identity"]:
            yield f"{label}: the folder belongs to another specification than plan.json"


def condition_problems(plan: dict[str, Any], specs: Mapping[str, dict[str, Any]], runs: Sequence[str]) -> Iterator[str]:
    """Whatever makes a comparison of the finished runs unfair.

    Args:
        plan: plan.json.
        specs: spec.json by label, those of the base's evaluation and of each run's included.
        runs: labels of the finished runs.
    """
    yield from _seed_problems(plan)
    first_run = runs[0]
    plain = next((run for run in runs if start_of(plan, _arm_of(run)) is None), first_run)
    base, first = specs["base_evaluation"], specs[first_run]
    for run in runs:
        evaluation, arm = specs[f"{run}/evaluation"], specs[run]
        shared = {key: value for key, value in base["spec"].items() if key not in BASE_ONLY}
        for key, ours, theirs in differences(evaluation["spec"], shared):
            yield f"{run}: evaluated with {key} = {ours!r}, the base with {theirs!r}"
        yield from _need_problems(run, evaluation, base, ("measure", "reward_model"), "the base's evaluation")
        for job, spec in (("trained", arm), ("evaluated", evaluation)):
            unused = EVALUATION_ONLY if spec is arm else set()
            inputs = {key: value for key, value in base["inputs"].items() if key not in unused}
            for key, ours, theirs in differences(spec["inputs"], inputs):
                yield f"{run}: {job} with another {key} ({_short(ours)}) than the base's ({_short(theirs)})"
        for part in ("model", "data", "num_prompts", "num_points"):
            for key, ours, theirs in differences({part: arm["spec"][part]}, {part: first["spec"][part]}):
                yield f"{run}: trained with {key} = {ours!r}, {first_run} with {theirs!r}"
        if start := start_of(plan, _arm_of(run)):
            other = start["arm"] + run.removeprefix(_arm_of(run))
            yield from _start_problems(run, arm, other, specs.get(other))
        else:
            yield from _need_problems(run, arm, specs[plain], ("ranking_data",), plain)


def start_of(plan: Mapping[str, Any], arm: str) -> dict[str, Any] | None:
    """`arm` and `share` of the checkpoint that an arm starts from; None for the base."""
    knobs = next(item["knobs"] for item in plan["arms"] if item["arm"] == arm)
    found: dict[str, Any] | None = knobs.get("start")
    return found


def _arm_of(run: str) -> str:
    """The arm of a run's label, ARM/seedN."""
    return run.rpartition("/")[0]


def _seed_problems(plan: dict[str, Any]) -> Iterator[str]:
    seeds: dict[str, list[int]] = {}
    for arm in plan["arms"]:
        seeds.setdefault(arm["arm"], []).append(int(arm["seed"]))
    first = next(iter(seeds), "")
    for arm, values in seeds.items():
        if sorted(values) != sorted(seeds[first]):
            yield f"{arm}: planned with seeds {sorted(values)}, {first} with {sorted(seeds[first])}"


def _need_problems(
    label: str, spec: dict[str, Any], reference: dict[str, Any], roles: Sequence[str], name: str
) -> Iterator[str]:
    for role in roles:
        ours, theirs = (need.get("needs", {}).get(role, {}).get("identity") for need in (spec, reference))
        if ours != theirs:
            yield f"{label}: another {role} ({_short(ours)}) than {name} ({_short(theirs)})"


def _start_problems(label: str, arm: dict[str, Any], other: str, spec: dict[str, Any] | None) -> Iterator[str]:
    """The checkpoint must be that of the arm in this sweep, whose own conditions are checked."""
    if spec is None:
        yield f"{label}: starts from {other}, which this sweep has not finished"
    elif (theirs := arm.get("needs", {}).get("start", {}).get("identity")) != spec["identity"]:
        yield f"{label}: starts from another {other} ({_short(theirs)}) than this sweep's ({_short(spec['identity'])})"


def differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, by dotted key."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key), theirs.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif ours != theirs:
        yield prefix, ours, theirs


def _short(identity: object) -> str:
    return str(identity)[:12]
