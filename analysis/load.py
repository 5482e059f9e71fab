"""A sweep's ledger -> tidy frames. Reads JSON, JSON lines and Parquet only; refuses what cannot be compared, by name.

What has not finished is listed and left out; what has finished under other conditions than the rest is an error,
because a comparison of it would be wrong without looking wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.ledger_hash import Manifest, is_inside, manifest_of
from analysis.statistics import FloatArray
from runner.ledger.reader import PREFERENCES, read_json, read_metrics, read_status, sample_files

T = TypeVar("T")

PLAN_SCHEMA = 2
BASE = "base"
STREAM = 1  # the common random numbers that every arm and the base share
FLOOR_STREAM = 2  # the base's second, disjoint set
FURTHER_STREAM = 3  # the base's further samples, for best-of-n
BASE_ONLY = {"further_samples_per_prompt"}  # what the base's evaluation has beyond an arm's

SAMPLE_COLUMNS = {
    "prompt_id": "text", "sample_id": "number", "stream": "number", "prompt": "text", "response": "text",
    "num_tokens": "number", "finish_reason": "text", "logp_policy": "number", "logp_base": "number",
    "gold": "number", "proxy": "number", "vader": "number",
}  # fmt: skip
MAY_BE_MISSING = {"proxy"}  # NaN where a sweep has no reward model


PREFERENCE_COLUMNS = (
    "arm", "opponent", "seed", "prompt_id", "sample_id", "score", "ours_first", "ours_second", "note",
)  # fmt: skip


class LedgerError(ValueError):
    """The run folder cannot be reported on. The message says why, for people."""


@dataclass(frozen=True)
class Run:
    """One trained arm x seed that was evaluated to its end."""

    arm: str
    algorithm: str
    seed: int
    label: str
    folder: Path
    evaluation: Path


@dataclass(frozen=True)
class Missing:
    """A run of the plan that the report has to do without."""

    run: str
    reason: str


@dataclass(frozen=True)
class RuleChange:
    """A rule that was another one before training."""

    key: str
    registered: Any
    in_use: Any


@dataclass(frozen=True)
class Judge:
    """A judge that was asked about the final models, beyond the scores that every sample has.

    Attributes:
        name: "endpoint" or "reward_model".
        settings: of ``conf/judge/``.
        relation: to the training reward: "INDEPENDENT", "SAME FAMILY" or "IS THE TRAINING REWARD".
        evidence: what the relation rests on.
        numbers: the last value of each of its metrics.
        contests: (arm, opponent) -> one row per pair of responses, columns of `PREFERENCE_COLUMNS`.
    """

    name: str
    settings: dict[str, Any]
    relation: str
    evidence: str
    numbers: dict[str, float]
    contests: dict[tuple[str, str], pd.DataFrame] = field(repr=False)


@dataclass(frozen=True)
class Ledger:
    """Everything a report is made from.

    Attributes:
        plan: plan.json.
        runs: the finished arms x seeds, in the plan's order.
        missing: the others.
        samples: one row per response: arm, algorithm, seed, point and the columns of `SAMPLE_COLUMNS`; the base is arm
            "base", point 0.
        metrics: one row per line of any metrics.jsonl: label and kind of the job, then the line's own keys.
        ranking: the samples that the arms learned from, the columns of `SAMPLE_COLUMNS`; None in sweeps that did not
            record them.
        specs: spec.json by job label.
        provenance: provenance.json by job label.
        folder: of the sweep.
        judges: those that were asked beyond the scores in the samples, by name.
        missing_judges: the others of the plan.
    """

    plan: dict[str, Any]
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]
    samples: pd.DataFrame
    metrics: pd.DataFrame
    specs: Mapping[str, dict[str, Any]]
    provenance: Mapping[str, dict[str, Any]]
    folder: Path
    ranking: pd.DataFrame | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    missing_judges: tuple[Missing, ...] = ()
    _arrays: dict[tuple[Any, ...], npt.NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def manifest(self) -> Manifest:
        """The files that all this was read from, with their hashes."""
        return manifest_of(self.folder, self.plan)

    @property
    def arms(self) -> list[str]:
        """Arms with at least one finished seed, in the plan's order."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    @cached_property
    def prompt_ids(self) -> list[str]:
        """The shared evaluation prompts, in the order of every array's prompt axis."""
        return sorted(self.samples["prompt_id"].unique())

    @cached_property
    def _positions(self) -> Mapping[Any, Any]:
        """(arm, point, stream) -> rows of `samples`, which are sorted by seed, prompt and sample."""
        return self.samples.groupby(["arm", "point", "stream"], sort=False).indices

    @property
    def final_point(self) -> int:
        """The evaluation point of the final models."""
        return int(self.samples["point"].max())

    def rules(self, section: str, kind: type[T]) -> T:
        """A section of the rules in use, as the dataclass of the module that reads it.

        Raises:
            LedgerError: plan.json has other keys.
        """
        try:
            return kind(**self.plan["rules"][section])
        except (KeyError, TypeError) as error:
            raise LedgerError(f"plan.json: the rules of {section!r} are not those of this version ({error})") from None

    @property
    def changed_rules(self) -> list[RuleChange]:
        """What is judged by other rules than those registered before training."""
        registered = self.plan["registered_rules"]["values"]
        return [RuleChange(*change) for change in _differences(registered, self.plan["rules"])]

    def algorithm(self, arm: str) -> str:
        """The algorithm of a finished arm."""
        return next(run.algorithm for run in self.runs if run.arm == arm)

    def seeds(self, arm: str) -> list[int]:
        """The finished seeds of an arm."""
        return sorted(run.seed for run in self.runs if run.arm == arm)

    def common_seeds(self, arm: str, opponent: str) -> list[int]:
        """Seeds that both have finished; the base goes with every seed."""
        if opponent == BASE:
            return self.seeds(arm)
        return sorted(set(self.seeds(arm)) & set(self.seeds(opponent)))

    @property
    def planned_judges(self) -> list[str]:
        """Names of the judges that were to be asked, whether they have finished or not."""
        return [*self.judges, *(item.run.rpartition("/")[2] for item in self.missing_judges)]

    def array(
        self, arm: str, column: str, point: int | None = None, stream: int = STREAM, seeds: Sequence[int] | None = None
    ) -> npt.NDArray[Any]:
        """One column as `[S, P, M]`: finished seeds, prompts, samples. The base has one "seed" and only point 0.

        Args:
            arm: an arm, or "base".
            column: of `SAMPLE_COLUMNS`.
            point: evaluation point; the final one if not given. Point 0 of any arm is the base.
            stream: which common random numbers.
            seeds: leave out the other seeds.
        """
        point = self.final_point if point is None else point
        if arm == BASE or point == 0:
            arm, point = BASE, 0
        key = (arm, column, point, stream)
        if key not in self._arrays:
            values = self.samples[column].take(self._positions[arm, point, stream]).to_numpy()
            num_seeds = 1 if arm == BASE else len(self.seeds(arm))
            self._arrays[key] = values.reshape(num_seeds, len(self.prompt_ids), -1)
        values = self._arrays[key]
        if seeds is None or arm == BASE:
            return values
        return values[[self.seeds(arm).index(seed) for seed in seeds]]

    def numbers(
        self, arm: str, column: str, point: int | None = None, stream: int = STREAM, seeds: Sequence[int] | None = None
    ) -> FloatArray:
        """`array` of a numeric column."""
        return self.array(arm, column, point, stream, seeds).astype(np.float64)

    def curve(self, arm: str, column: str) -> FloatArray:
        """Mean over samples of a numeric column at every evaluation point, the base first, `[S, C, P]`."""
        num_seeds = len(self.seeds(arm))
        base_SP = np.repeat(self.numbers(BASE, column).mean(axis=2), num_seeds, axis=0)
        later = [self.numbers(arm, column, point).mean(axis=2) for point in range(1, self.final_point + 1)]
        return np.stack([base_SP, *later], axis=1)

    def spent(self, arm: str, columns: Sequence[str]) -> list[float | None]:
        """Sum of some shared axes at every evaluation point, mean over seeds; None where one was not recorded.

        Args:
            arm: an arm; the base, point 0, has spent nothing.
            columns: of `experiments.records.Axes`.
        """
        labels = [f"{run.label}/evaluation" for run in self.runs if run.arm == arm]
        rows = self.metrics[self.metrics["label"].isin(labels) & (self.metrics["phase"] == "evaluation")]
        points = (rows[rows["point"] == point] for point in range(1, self.final_point + 1))
        return [0.0, *(_mean_sum(here, columns) for here in points)]

    def preferences(self, judge: str, arm: str, opponent: str) -> FloatArray | None:
        """What a judge of `judges` made of two final models: `[S, P, M]`, or None where it was not asked about them.

        1 where it prefers the arm, 0 where the opponent, quarters between; NaN where a verdict is missing. S are the
        seeds that both have, P all evaluation prompts, M the judged samples of a prompt, which may be fewer than there
        are.
        """
        contests = self.judges[judge].contests
        for pair, sign in (((arm, opponent), 1.0), ((opponent, arm), -1.0)):
            if pair in contests:
                rows = contests[pair]
                seeds = self.common_seeds(arm, opponent)
                return self._by_sample(rows.assign(value=0.5 + sign * (rows["score"] - 0.5)), seeds)
        return None

    def swap_agreement(self, judge: str, arm: str, opponent: str) -> FloatArray | None:
        """1 where both orders of a pair name the same response or a tie, 0 where not; NaN where one has no verdict."""
        rows = self.judges[judge].contests.get((arm, opponent))
        if rows is None:
            return None
        mirrored = rows["ours_first"].map({"A": "B", "B": "A", "tie": "tie"})
        known = mirrored.notna() & rows["ours_second"].isin(["A", "B", "tie"])
        agrees = (mirrored == rows["ours_second"]).where(known).astype("float64")
        return self._by_sample(rows.assign(value=agrees), self.common_seeds(arm, opponent))

    def _by_sample(self, rows: pd.DataFrame, seeds: Sequence[int]) -> FloatArray:
        """The column `value` as `[S, P, M]`, of these seeds."""
        rows, num_samples = rows[rows["seed"].isin(seeds)], int(rows["sample_id"].max()) + 1
        values = np.full((len(seeds), len(self.prompt_ids), num_samples), np.nan)
        of_prompt = pd.Index(self.prompt_ids).get_indexer(pd.Index(rows["prompt_id"]))
        values[np.searchsorted(seeds, rows["seed"]), of_prompt, rows["sample_id"]] = rows["value"]
        return values

    def has(self, column: str) -> bool:
        """Whether a score was computed for every sample."""
        return bool(self.samples[column].notna().all())


def load_ledger(runs_dir: Path) -> Ledger:
    """Read one sweep.

    Args:
        runs_dir: the folder with plan.json.

    Raises:
        LedgerError: there is no plan, nothing has finished, a file is broken, or the runs were not made under the same
            conditions.
    """
    plan = _read_plan(runs_dir)
    base_folder = runs_dir / relative(plan["shared"].get("base_evaluation", "shared/base_evaluation"))
    runs, missing = _finished_runs(runs_dir, plan)
    reason = _unfinished(base_folder)
    if reason:
        raise LedgerError(
            f"the base model's own evaluation is needed for every comparison, but it {reason} ({base_folder})"
        )
    if not runs:
        raise LedgerError("no arm has finished: " + "; ".join(f"{item.run} {item.reason}" for item in missing))

    folders = dict(_job_folders(runs_dir, plan, runs))
    specs = {label: _json(folder / "spec.json") for label, folder in folders.items()}
    _raise_if_any([*_identity_problems(plan, specs, folders), *_condition_problems(plan, specs, runs)])
    samples = _read_samples(base_folder, runs, plan)
    judges, missing_judges = _read_judges(runs_dir, plan, specs, set(samples["prompt_id"]))
    return Ledger(
        plan=plan,
        runs=tuple(runs),
        missing=tuple(missing),
        samples=samples,
        metrics=_read_metrics(folders, specs),
        specs=specs,
        provenance={label: _optional_json(folder / "provenance.json") for label, folder in folders.items()},
        folder=runs_dir,
        ranking=_read_ranking(folders),
        judges=judges,
        missing_judges=missing_judges,
    )


def relative(path: str) -> Path:
    """A path of the plan, which must stay inside the run folder."""
    if not is_inside(path):
        raise LedgerError(f"plan.json names {path!r}, which is outside the run folder")
    return Path(path)


def _mean_sum(rows: pd.DataFrame, columns: Sequence[str]) -> float | None:
    """Mean over rows of the sum of the columns, or None where one is missing."""
    if rows.empty or not all(name in rows and rows[name].notna().all() for name in columns):
        return None
    return float(rows[list(columns)].sum(axis=1).mean())


# ------------------------------------------------------------------------------------------------------- plan and state
def _read_plan(runs_dir: Path) -> dict[str, Any]:
    path = runs_dir / "plan.json"
    if not path.is_file():
        raise LedgerError(f"{runs_dir} is not the folder of a sweep: it has no plan.json")
    plan = _json(path)
    if plan.get("schema") != PLAN_SCHEMA:
        raise LedgerError(f"{path} has schema {plan.get('schema')!r}; this version reads {PLAN_SCHEMA}")
    lacking = [
        key for key in ("sweep", "arms", "shared", "settings", "rules", "registered_rules", "jobs") if key not in plan
    ]
    if lacking:
        raise LedgerError(f"{path} lacks {', '.join(lacking)}")
    if any(arm["arm"] == BASE for arm in plan["arms"]):
        raise LedgerError(f"an arm is called {BASE!r}, which is the name of the model that all arms start from")
    return plan


def _finished_runs(runs_dir: Path, plan: dict[str, Any]) -> tuple[list[Run], list[Missing]]:
    runs, missing = [], []
    for arm in plan["arms"]:
        folder, evaluation = runs_dir / relative(arm["folder"]), runs_dir / relative(arm["evaluation"])
        reasons = [
            f"{what} {reason}"
            for what, path in (("training", folder), ("evaluation", evaluation))
            if (reason := _unfinished(path))
        ]
        if reasons:
            missing.append(Missing(arm["folder"], reasons[0]))
        else:
            runs.append(Run(arm["arm"], arm["algorithm"], int(arm["seed"]), arm["folder"], folder, evaluation))
    return runs, missing


def _unfinished(folder: Path) -> str | None:
    """Why a job's folder cannot be used, or None."""
    if not folder.is_dir():
        return "has not started"
    status = read_status(folder)
    if status is None:
        return "has not started"
    state = status.get("state")
    if state == "finished":
        return None
    words = {
        "running": "has not finished",
        "failed": "failed",
        "interrupted": "was interrupted",
        "stopped": "was stopped",
        "skipped": "was skipped",
    }.get(str(state), f"is {state}")
    return f"{words} ({status['error']})" if status.get("error") else words


def _job_folders(runs_dir: Path, plan: dict[str, Any], runs: list[Run]) -> Iterator[tuple[str, Path]]:
    """Label and folder of every job that the report reads."""
    for kind, path in plan["shared"].items():
        folder = runs_dir / relative(path)
        if kind == "base_evaluation" or (folder / "spec.json").is_file():
            yield kind, folder
    for run in runs:
        yield run.label, run.folder
        yield f"{run.label}/evaluation", run.evaluation


# ----------------------------------------------------------------------------------------------------- equal conditions
def _identity_problems(
    plan: dict[str, Any], specs: Mapping[str, dict[str, Any]], folders: Mapping[str, Path]
) -> Iterator[str]:
    """A folder whose specification is not the one its status, or the plan, was written for."""
    planned = {job["label"]: job["identity"] for job in plan["jobs"]}
    for label, spec in specs.items():
        status = read_status(folders[label]) or {}
        if status.get("identity", spec["identity"]) != spec["identity"]:
            yield f"{label}: status.json belongs to another specification than spec.json"
        if planned.get(spec.get("label", label), spec["identity"]) != spec["identity"]:
            yield f"{label}: the folder belongs to another specification than plan.json"


def _condition_problems(plan: dict[str, Any], specs: Mapping[str, dict[str, Any]], runs: list[Run]) -> Iterator[str]:
    """Whatever makes a comparison of the finished runs unfair (architecture, decision 7)."""
    yield from _seed_problems(plan)
    base, first = specs["base_evaluation"], specs[runs[0].label]
    for run in runs:
        evaluation, arm = specs[f"{run.label}/evaluation"], specs[run.label]
        shared = {key: value for key, value in base["spec"].items() if key not in BASE_ONLY}
        for key, ours, theirs in _differences(evaluation["spec"], shared):
            yield f"{run.label}: evaluated with {key} = {ours!r}, the base with {theirs!r}"
        yield from _need_problems(run.label, evaluation, base, ("gold", "reward_model"), "the base's evaluation")
        for job, spec in (("trained", arm), ("evaluated", evaluation)):
            for key, ours, theirs in _differences(spec["inputs"], base["inputs"]):
                yield f"{run.label}: {job} with another {key} ({_short(ours)}) than the base's ({_short(theirs)})"
        for part in ("model", "data", "num_prompts", "num_points"):
            for key, ours, theirs in _differences({part: arm["spec"][part]}, {part: first["spec"][part]}):
                yield f"{run.label}: trained with {key} = {ours!r}, {runs[0].label} with {theirs!r}"
        yield from _need_problems(run.label, arm, first, ("ranking_data",), runs[0].label)


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


def _differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, by dotted key."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from _differences(ours.get(key), theirs.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif ours != theirs:
        yield prefix, ours, theirs


def _short(identity: object) -> str:
    return str(identity)[:12]


def _raise_if_any(problems: Sequence[str]) -> None:
    if problems:
        raise LedgerError("these runs cannot be compared: " + "; ".join(problems))


# -------------------------------------------------------------------------------------------------------------- samples
def _read_samples(base_folder: Path, runs: list[Run], plan: dict[str, Any]) -> pd.DataFrame:
    base = _sample_frame(base_folder, 0, BASE, BASE, 0)
    reference = _keys(base[base["stream"] == STREAM])
    num_points = int(plan["settings"]["budget"]["num_evaluation_points"])
    frames, problems = [base], list(_base_problems(base, reference))
    for run in runs:
        for point in range(1, num_points):
            frame = _sample_frame(run.evaluation, point, run.arm, run.algorithm, run.seed)
            if _keys(frame) != reference:
                problems.append(
                    f"{run.label}: other prompts or samples at evaluation point {point} than the base's evaluation"
                )
            frames.append(frame)
    _raise_if_any(problems)
    samples = pd.concat(frames, ignore_index=True)
    return samples.sort_values(["arm", "seed", "point", "stream", "prompt_id", "sample_id"], ignore_index=True)


def _base_problems(base: pd.DataFrame, reference: list[tuple[str, int, int]]) -> Iterator[str]:
    floor = _keys(base[base["stream"] == FLOOR_STREAM])
    if [key[:2] for key in floor] != [key[:2] for key in reference]:
        yield "base_evaluation: the second set of random numbers does not cover the same prompts as the first"
    prompts = {key[0] for key in reference}
    further = Counter(key[0] for key in _keys(base[base["stream"] == FURTHER_STREAM]))
    if further and (set(further) != prompts or len(set(further.values())) > 1):
        yield "base_evaluation: the further samples are not equally many for every prompt"
    if len(reference) % max(1, len(prompts)) or len(set(reference)) != len(reference):
        yield "base_evaluation: prompts have different numbers of samples"
    if len(prompts) < 2:
        yield "base_evaluation: fewer than two prompts"


def _read_ranking(folders: Mapping[str, Path]) -> pd.DataFrame | None:
    """The ranking data's samples in the order of prompts, where the job has recorded them."""
    folder = folders.get("ranking_data")
    if folder is None or not sample_files(folder):
        return None
    rows = _sample_frame(folder, 0, BASE, BASE, 0)
    if rows.groupby("prompt_id").size().nunique() != 1:
        raise LedgerError("ranking_data: prompts have different numbers of samples")
    return rows.sort_values(["prompt_id", "sample_id"], ignore_index=True)


def _sample_frame(folder: Path, point: int, arm: str, algorithm: str, seed: int) -> pd.DataFrame:
    path = sample_files(folder).get(point)
    if path is None:
        raise LedgerError(f"{folder} has finished without samples of evaluation point {point}")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise LedgerError(f"{path} cannot be read as Parquet: {error}") from error
    lacking = [column for column in SAMPLE_COLUMNS if column not in frame]
    if lacking:
        raise LedgerError(f"{path} lacks the columns {', '.join(lacking)}")
    frame = frame[list(SAMPLE_COLUMNS)]
    for column, kind in SAMPLE_COLUMNS.items():
        if (
            kind == "number"
            and column not in MAY_BE_MISSING
            and not np.isfinite(frame[column].to_numpy(np.float64)).all()
        ):
            raise LedgerError(f"{path} has values of {column} that are missing or not finite")
    return frame.assign(arm=arm, algorithm=algorithm, seed=seed, point=point)


def _keys(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    columns = [frame[column].tolist() for column in ("prompt_id", "sample_id", "stream")]
    return sorted(zip(*columns, strict=True))


# --------------------------------------------------------------------------------------------------------------- judges
def _read_judges(
    runs_dir: Path, plan: dict[str, Any], specs: Mapping[str, dict[str, Any]], prompt_ids: set[str]
) -> tuple[dict[str, Judge], tuple[Missing, ...]]:
    """The judges of the plan. One that has not finished is listed, and the report does without it."""
    judges, missing = {}, []
    for job in (job for job in plan["jobs"] if job["kind"] == "judgement"):
        folder = runs_dir / relative(job["folder"])
        reason = _unfinished(folder) or _judged_others(_json(folder / "spec.json"), specs)
        if reason:
            missing.append(Missing(job["label"], reason))
        else:
            name = job["label"].rpartition("/")[2]
            judges[name] = _read_judge(name, folder, prompt_ids)
    return judges, tuple(missing)


def _judged_others(judge: dict[str, Any], specs: Mapping[str, dict[str, Any]]) -> str | None:
    """Why what a judge has seen is not what this report is about, or None."""
    seen = {label: need["identity"] for label, need in judge.get("needs", {}).items()}
    evaluations = {label: spec["identity"] for label, spec in specs.items() if label.endswith("evaluation")}
    other = [label for label, identity in evaluations.items() if seen.get(label) != identity]
    return f"has not judged the results of {', '.join(sorted(other))}; the sweep's command asks it" if other else None


def _read_judge(name: str, folder: Path, prompt_ids: set[str]) -> Judge:
    facts, path = _json(folder / "judge.json"), folder / PREFERENCES
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path} cannot be read as Parquet: {error}") from error
    if list(rows.columns) != list(PREFERENCE_COLUMNS):
        raise LedgerError(f"{path} must have the columns {', '.join(PREFERENCE_COLUMNS)}")
    if not rows["score"].dropna().between(0, 1).all() or not set(rows["prompt_id"]) <= prompt_ids:
        raise LedgerError(f"{path} has scores outside 0 to 1, or prompts that were not evaluated")
    numbers = {key: value for row in read_metrics(folder) for key, value in row.items() if key.startswith("judge/")}
    return Judge(
        name=name,
        settings=_json(folder / "spec.json")["spec"]["judge"],
        relation=str(facts.get("relation")),
        evidence=str(facts.get("evidence")),
        numbers={key: float(value) for key, value in numbers.items() if value is not None},
        contests={(str(arm), str(opponent)): part for (arm, opponent), part in rows.groupby(["arm", "opponent"])},
    )


# ---------------------------------------------------------------------------------------------------------- other files
def _read_metrics(folders: Mapping[str, Path], specs: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {"label": label, "kind": specs[label].get("kind"), **row}
        for label, folder in folders.items()
        for row in read_metrics(folder)
    ]
    return pd.DataFrame(rows)


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error


def _optional_json(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}
