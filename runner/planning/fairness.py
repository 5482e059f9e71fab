"""Whether arms are compared under equal conditions. The plan refuses a sweep in which one of these checks fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.spec import PPOThenDPO, RunSpec, start_of
from experiments.tasks import task_of
from runner.ledger.plan_file import Check

# Each shared artifact and the keys of conf/ that it is made from, beyond those of the artifacts that it needs.
MADE_FROM: dict[str, dict[str, Any]] = {
    "ranking_data": {"data": True, "budget": {"num_ranking_prompts"}},
    "reward_model": {"reward_model": True},
    "base_evaluation": {
        "evaluation": True,
        "budget": {"num_evaluation_prompts", "samples_per_evaluation_prompt", "further_base_samples_per_prompt"},
    },
}


def fairness_checks(
    runs: Mapping[str, RunSpec], fingerprints: Mapping[str, str], identities: Mapping[str, Mapping[str, str]]
) -> tuple[Check, ...]:
    """What must not differ between arms. Cost may differ, since it is recorded and reported.

    Args:
        runs: label -> arm x seed.
        fingerprints: label -> fingerprint of its base model.
        identities: label -> kind of shared artifact -> its identity.
    """
    first = next(iter(runs))
    model, budget = runs[first].model, runs[first].budget
    bases = {
        label: {"model": run.model.model_dump(), "fingerprint": fingerprints[label]} for label, run in runs.items()
    }
    presentations = {label: {"budget.num_prompts": run.budget.num_prompts} for label, run in runs.items()}
    points = {label: {"budget.num_evaluation_points": run.budget.num_evaluation_points} for label, run in runs.items()}
    return (
        _check("base model", f"{model.path}, {model.dtype}, {fingerprints[first][:19]}", bases),
        *(_artifact_check(kind, runs, identities) for kind in MADE_FROM),
        _check("prompt presentations", f"{budget.num_prompts}{_divided(runs.values())}", presentations),
        Check(check=f"{task_of(runs[first].data).measure} labels", value=_labels(runs.values()), ok=True),
        _check("evaluation points", str(budget.num_evaluation_points), points),
        _seed_check(runs.values()),
    )


def num_fresh_labels(run: RunSpec) -> int:
    """Labels of a staged arm's own samples: as many for a prompt presentation as a DPO arm from the base has."""
    if not isinstance(run.arm, PPOThenDPO):
        return 0
    num_prompts = max(1, round(run.budget.num_ranking_prompts * (1 - run.arm.start.share)))
    return num_prompts * run.data.samples_per_prompt


def differences(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The keys in which arms differ, each with every arm's value. ``facts``: label -> nested mapping of keys."""
    flat = {label: flatten(fact) for label, fact in facts.items()}
    keys = dict.fromkeys(key for fact in flat.values() for key in fact)
    values = {key: {label: fact.get(key) for label, fact in flat.items()} for key in keys}
    return [
        f"{key} is " + ", ".join(f"{value} ({label})" for label, value in by_label.items())
        for key, by_label in values.items()
        if len(set(map(str, by_label.values()))) > 1
    ]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {prefix + key: inner}
    return flat


def _divided(runs: Iterable[RunSpec]) -> str:
    """How arms that start from a checkpoint divide the same total."""
    starts = {run.arm.name: start for run in runs if (start := start_of(run.arm))}
    return "".join(f"; {name}: the first {100 * start.share:g} % as {start.arm}" for name, start in starts.items())


def _labels(runs: Iterable[RunSpec]) -> str:
    """How many each arm uses, which may differ: a staged arm's second stage needs new labels."""
    listed = list(runs)
    shared = listed[0].budget.num_ranking_prompts * listed[0].data.samples_per_prompt
    fresh = {run.arm.name: number for run in listed if (number := num_fresh_labels(run))}
    return f"{shared} shared by all" + "".join(f"; {name}: {number} more" for name, number in fresh.items())


def _check(name: str, value: str, facts: Mapping[str, Mapping[str, Any]]) -> Check:
    found = differences(facts)
    return Check(check=name, value="; ".join(found) or value, ok=not found)


def _artifact_check(kind: str, runs: Mapping[str, RunSpec], identities: Mapping[str, Mapping[str, str]]) -> Check:
    facts = {
        label: run.model_dump(include=MADE_FROM[kind]) | {"identity": identities[label][kind][:12]}
        for label, run in runs.items()
    }
    name = "shared evaluation" if kind == "base_evaluation" else kind.replace("_", " ")
    return _check(name, next(iter(identities.values()))[kind][:12], facts)


def _seed_check(runs: Iterable[RunSpec]) -> Check:
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.arm.name, []).append(run.seed)
    lists = {arm: ", ".join(map(str, sorted(values))) for arm, values in seeds.items()}
    return _check("seeds", next(iter(lists.values())), {arm: {"seed": shown} for arm, shown in lists.items()})
