"""What keeps a sweep from being planned: arms that disagree, names that are taken, a folder of another sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.inputs.fingerprint import is_our_reward_model, weights_sha256
from experiments.spec import RunSpec
from runner.ledger.reader import NUMBERED_REPORT
from runner.planning.fairness import differences, flatten
from runner.planning.problems import Problem, refuse
from runner.planning.specifications import COMPARING
from runner.planning.starts import label_of

RESERVED = {"base", "shared", "report", "judges"}
ONE_PER_SWEEP = ("name", "runs_dir", "cache_dir", "keep_adapters", "engine", "tracker", "judge", "rules", "contests")


def listed_twice(runs: Sequence[RunSpec]) -> list[Problem]:
    """An arm and seed that stands more than once in the sweep."""
    labels = [label_of(run) for run in runs]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    return [Problem(label, "is listed more than once; each arm and seed has one folder") for label in twice]


def reserved_names(runs: Sequence[RunSpec]) -> list[Problem]:
    """Names of arms that the sweep's folder uses for something else."""
    names = sorted({run.arm.name for run in runs})
    taken = [name for name in names if name in RESERVED or NUMBERED_REPORT.fullmatch(name)]
    return [Problem("", f"arm.name={name}: the sweep's folder or its report uses this name already") for name in taken]


def disagreements(runs: Sequence[RunSpec]) -> list[Problem]:
    """Settings that a sweep has once."""
    contents = {label_of(run): run.model_dump(include=set(ONE_PER_SWEEP)) for run in runs}
    return [Problem("", f"a sweep has one value for all arms: {difference}") for difference in differences(contents)]


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


def changes_of(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Keys of two plans that differ, with both values. An arm is compared if both plans have it."""
    pairs = [("", there["settings"], here["settings"]), ("", _contests(there, here), _contests(here, there))]
    arms = {arm["folder"]: arm["knobs"] for arm in there["arms"]}
    pairs += [
        (f"{arm['folder']}: arm.", arms[arm["folder"]], arm["knobs"]) for arm in here["arms"] if arm["folder"] in arms
    ]
    lines = [f"{prefix}{line}" for prefix, old, new in pairs for line in _changed(flatten(old), flatten(new))]
    return lines or _changed_identities(there, here)


def _contests(plan: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """Who meets whom, of the arms that both plans have: it must not be chosen after the results are known."""
    both = {arm["arm"] for arm in plan["arms"]} & {arm["arm"] for arm in other["arms"]}
    met = sorted(sorted((one["arm"], one["opponent"])) for one in plan["contests"])
    return {"contests": ", ".join(f"{one} against {other}" for one, other in met if {one, other} <= both) or "none"}


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
