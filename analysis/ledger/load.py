"""A sweep's ledger -> tidy frames. Reads JSON, JSON lines and Parquet only; refuses what cannot be compared, by name.

What has not finished is listed and left out; what has finished under other conditions than the rest is an error,
because a comparison of it would be wrong without looking wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.ledger import (
    BASE,
    FLOOR_STREAM,
    FURTHER_STREAM,
    PREFERENCE_COLUMNS,
    STREAM,
    AskedJudge,
    Ledger,
    LedgerError,
    Missing,
    Run,
    cards_of,
)
from analysis.ledger.conditions import condition_problems, identity_problems
from analysis.ledger.manifest import is_inside
from analysis.ledger.parquet import MAX_REASON_LENGTH, read_rows, require_plain_rows
from experiments.foreign import ForeignFileError, read_object
from experiments.records import SAMPLE_COLUMNS, SCORE_PREFIX, ScoreCard
from experiments.rules import Rules
from runner.ledger.plan_file import PLAN_SCHEMA, PlanFile
from runner.ledger.reader import PREFERENCES, embeddings_file, read_metrics, read_status, sample_files

METRICS = "metrics.jsonl"
MAX_RULE = 100_000  # a rule's number may be a count of what is drawn or listed; a level may decide such a count
MAX_MEMORY_SHARE = 0.5  # of this machine's, for the samples of all evaluations together
KEYS = ("prompt_id", "sample_id", "stream")  # of a response within one evaluation
HIGHER_ONLY = ("measure", "training_reward")  # roles of scores that gains are taken of


def load_ledger(runs_dir: Path) -> Ledger:
    """Read one sweep.

    Args:
        runs_dir: the folder with plan.json.

    Raises:
        LedgerError: there is no plan, nothing has finished, a file is broken, or the runs were not made under the same
            conditions.
    """
    try:
        return _load(runs_dir)
    except LedgerError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON_LENGTH]
        raise LedgerError(
            f"{runs_dir} holds a plan, specification or table of another form than this version writes "
            f"({type(error).__name__}: {reason})"
        ) from error


def _load(runs_dir: Path) -> Ledger:
    plan, rules = _read_plan(runs_dir)
    base_folder = runs_dir / relative(plan["shared"]["base_evaluation"])
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
    identities = {label: (read_status(folder) or {}).get("identity") for label, folder in folders.items()}
    labels = [run.label for run in runs]
    _raise_if_any([*identity_problems(plan, specs, identities), *condition_problems(plan, specs, labels)])
    samples = _read_samples(base_folder, runs, plan)
    judges, missing_judges = _read_judges(runs_dir, plan, specs, samples[samples["stream"] == STREAM])
    return Ledger(
        plan=plan,
        rules=rules,
        runs=tuple(runs),
        missing=tuple(missing),
        samples=samples,
        metrics=_read_metrics(folders, specs),
        specs=specs,
        provenance={label: _optional_json(folder / "provenance.json") for label, folder in folders.items()},
        folder=runs_dir,
        ranking=_read_ranking(folders, cards_of(plan["scores"])),
        judges=judges,
        missing_judges=missing_judges,
        embeddings=_read_embeddings(base_folder, runs, samples) if _has_embedder(specs) else None,
    )


def relative(path: str) -> Path:
    """A path of the plan, which must stay inside the run folder."""
    if not is_inside(path):
        raise LedgerError(f"plan.json names {path!r}, which is outside the run folder")
    return Path(path)


# ------------------------------------------------------------------------------------------------------- plan and state
def _read_plan(runs_dir: Path) -> tuple[dict[str, Any], Rules]:
    """plan.json, and the rules in use."""
    path = runs_dir / "plan.json"
    if not path.is_file():
        raise LedgerError(f"{runs_dir} is not the folder of a sweep: it has no plan.json")
    plan = _json(path)
    if plan.get("schema") != PLAN_SCHEMA:
        raise LedgerError(f"{path} has schema {plan.get('schema')!r}; this version reads {PLAN_SCHEMA}")
    try:
        known = PlanFile.from_json(plan, "plan")
    except ValueError as error:
        raise LedgerError(f"{path} is no plan of this version: {error}") from None
    _require_cards(path, known.scores)
    _require_sane_rules(path, plan["rules"])
    if any(arm.arm == BASE for arm in known.arms):
        raise LedgerError(f"an arm is called {BASE!r}, which is the name of the model that all arms start from")
    return plan, known.rules


def _require_sane_rules(path: Path, rules: dict[str, Any]) -> None:
    """The sizes of rules are bounded, because some of them say how much is drawn or listed."""
    absurd = [str(number)[:20] for number in _numbers(rules) if abs(number) > MAX_RULE or 0 < number < 1 / MAX_RULE]
    if absurd:
        raise LedgerError(f"{path} has rules with absurd numbers: {', '.join(absurd[:3])}")


def _require_cards(path: Path, cards: Sequence[ScoreCard]) -> None:
    """One card measures, at most one is the training reward, and each is named once."""
    names, roles = Counter(card.name for card in cards), Counter(card.role for card in cards)
    if roles["measure"] != 1 or roles["training_reward"] > 1 or max(names.values()) > 1:
        said = ", ".join(f"{card.name} ({card.role})"[:MAX_REASON_LENGTH] for card in cards)
        raise LedgerError(
            f"{path} has the scores {said}; exactly one must have the role measure, at most one training_reward, "
            "the others secondary or judge, and no name may stand twice"
        )
    down = [card.name for card in cards if card.role in HIGHER_ONLY and card.direction != "higher is better"]
    if down:
        raise LedgerError(f"{path} has the score {down[0]} of which lower is better; only a secondary one may be so")


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value that is not deep."""
    if isinstance(value, int | float):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(part)


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


def _raise_if_any(problems: Sequence[str]) -> None:
    if problems:
        raise LedgerError("these runs cannot be compared: " + "; ".join(problems))


# -------------------------------------------------------------------------------------------------------------- samples
def _read_samples(base_folder: Path, runs: list[Run], plan: dict[str, Any]) -> pd.DataFrame:
    scores = cards_of(plan["scores"])
    base = _sample_frame(base_folder, scores, 0, BASE, BASE, 0)
    reference = _keys(base[base["stream"] == STREAM])
    num_points = int(plan["settings"]["budget"]["num_evaluation_points"])
    frames, problems = [base], list(_base_problems(base, reference))
    left = MAX_MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for run in runs:
        for point in range(1, num_points):
            frame = _sample_frame(run.evaluation, scores, point, run.arm, run.algorithm, run.seed)
            left -= frame.memory_usage(index=False).sum()
            if left < 0:
                raise LedgerError(f"the samples up to {run.label} fill {MAX_MEMORY_SHARE:.0%} of this machine's memory")
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


def _read_ranking(folders: Mapping[str, Path], scores: Sequence[ScoreCard]) -> pd.DataFrame | None:
    """The ranking data's samples in the order of prompts, if the job has recorded them."""
    folder = folders.get("ranking_data")
    if folder is None or not sample_files(folder):
        return None
    rows = _sample_frame(folder, scores, 0, BASE, BASE, 0)
    if rows.groupby("prompt_id").size().nunique() != 1:
        raise LedgerError("ranking_data: prompts have different numbers of samples")
    return rows.sort_values(["prompt_id", "sample_id"], ignore_index=True)


def _sample_frame(
    folder: Path, scores: Sequence[ScoreCard], point: int, arm: str, algorithm: str, seed: int
) -> pd.DataFrame:
    path = sample_files(folder).get(point)
    if path is None:
        raise LedgerError(f"{folder} has finished without samples of evaluation point {point}")
    frame = _table(path)
    of_scores = {
        SCORE_PREFIX + card.name: card.role == "training_reward" for card in scores
    }  # -> whether NaN may stand
    lacking = [column for column in (*SAMPLE_COLUMNS, *of_scores) if column not in frame]
    if lacking:
        raise LedgerError(f"{path} lacks the columns {', '.join(lacking)}")
    frame = frame[[*SAMPLE_COLUMNS, *of_scores]]
    for column in (*SAMPLE_COLUMNS, *of_scores):
        if SAMPLE_COLUMNS.get(column) is str:
            if not (pd.api.types.is_string_dtype(frame[column]) and frame[column].notna().all()):
                raise LedgerError(f"{path} has values of {column} that are missing or no text")
        elif not _are_numbers(frame[column], of_scores.get(column, False)):
            raise LedgerError(f"{path} has values of {column} that are missing or not finite")
    return frame.assign(arm=arm, algorithm=algorithm, seed=seed, point=point)


def _are_numbers(values: pd.Series[Any], may_be_missing: bool) -> bool:
    if not pd.api.types.is_numeric_dtype(values):
        return may_be_missing and bool(values.isna().all())
    return may_be_missing or bool(np.isfinite(values.to_numpy(np.float64)).all())


def _has_embedder(specs: Mapping[str, dict[str, Any]]) -> bool:
    return specs["base_evaluation"]["spec"]["evaluation"].get("embedder") is not None


def _read_embeddings(base_folder: Path, runs: Sequence[Run], samples: pd.DataFrame) -> pd.DataFrame:
    """Of the base and of every final model; each must cover the responses that are compared, and no others."""
    final = int(samples["point"].max())
    places = [(BASE, 0, base_folder, 0), *((run.arm, run.seed, run.evaluation, final) for run in runs)]
    found = pd.concat(
        [_embedding_frame(embeddings_file(folder, point), arm, seed) for arm, seed, folder, point in places],
        ignore_index=True,
    )
    compared = samples[(samples["point"].isin([0, final])) & (samples["stream"] != FURTHER_STREAM)]
    identity = ["arm", "seed", *KEYS]
    if sorted(found[identity].itertuples(index=False)) != sorted(compared[identity].itertuples(index=False)):
        raise LedgerError("the embeddings are of other responses than the samples")
    if len({len(row) for row in found["embedding"]}) != 1:
        raise LedgerError("the embeddings of the evaluations have different lengths")
    return found


def _embedding_frame(path: Path, arm: str, seed: int) -> pd.DataFrame:
    frame = _table(path)
    if list(frame.columns) != [*KEYS, "embedding"]:
        raise LedgerError(f"{path} must have the columns {', '.join(KEYS)} and embedding")
    try:
        vectors = np.array(frame["embedding"].tolist(), dtype=np.float32)
    except (ValueError, TypeError):
        vectors = np.array([])
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise LedgerError(f"{path} has embeddings of different lengths, or with what is no finite number")
    return frame.assign(arm=arm, seed=seed, embedding=list(vectors))


def _keys(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    columns = [frame[column].tolist() for column in KEYS]
    return sorted(zip(*columns, strict=True))


# --------------------------------------------------------------------------------------------------------------- judges
def _read_judges(
    runs_dir: Path, plan: dict[str, Any], specs: Mapping[str, dict[str, Any]], compared: pd.DataFrame
) -> tuple[dict[str, AskedJudge], tuple[Missing, ...]]:
    """The judges of the plan. One that has not finished is listed, and the report does without it."""
    judges, missing = {}, []
    for job in (job for job in plan["jobs"] if job["kind"] == "judgement"):
        folder = runs_dir / relative(job["folder"])
        reason = _unfinished(folder) or _judged_others(_json(folder / "spec.json"), specs)
        if reason:
            missing.append(Missing(job["label"], reason))
        else:
            name = job["label"].rpartition("/")[2]
            judges[name] = _read_judge(name, folder, compared)
    return judges, tuple(missing)


def _judged_others(judge: dict[str, Any], specs: Mapping[str, dict[str, Any]]) -> str | None:
    """Why what a judge has seen is not what this report is about, or None."""
    seen = {label: need["identity"] for label, need in judge.get("needs", {}).items()}
    evaluations = {label: spec["identity"] for label, spec in specs.items() if label.endswith("evaluation")}
    other = [label for label, identity in evaluations.items() if seen.get(label) != identity]
    return f"has not judged the results of {', '.join(sorted(other))}; the sweep's command asks it" if other else None


def _read_judge(name: str, folder: Path, compared: pd.DataFrame) -> AskedJudge:
    facts, path = _json(folder / "judge.json"), folder / PREFERENCES
    rows = _table(path)
    if list(rows.columns) != list(PREFERENCE_COLUMNS):
        raise LedgerError(f"{path} must have the columns {', '.join(PREFERENCE_COLUMNS)}")
    if not pd.api.types.is_numeric_dtype(rows["score"]) or not rows["score"].dropna().between(0, 1).all():
        raise LedgerError(f"{path} has scores outside 0 to 1")
    if any(not set(rows[key]) <= set(compared[key]) for key in ("prompt_id", "sample_id")):
        raise LedgerError(f"{path} has samples or prompts that were not evaluated")
    numbers = {key: value for row in _metrics(folder) for key, value in row.items() if key.startswith("judge/")}
    return AskedJudge(
        name=name,
        settings=_json(folder / "spec.json")["spec"]["judge"],
        relation=str(facts.get("relation")),
        evidence=str(facts.get("evidence")),
        numbers={key: float(value) for key, value in numbers.items() if isinstance(value, int | float)},
        contests={(str(arm), str(opponent)): part for (arm, opponent), part in rows.groupby(["arm", "opponent"])},
    )


# ---------------------------------------------------------------------------------------------------------- other files
def _read_metrics(folders: Mapping[str, Path], specs: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {"label": label, "kind": specs[label].get("kind"), **row}
        for label, folder in folders.items()
        for row in _metrics(folder)
    ]
    return pd.DataFrame(rows)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / METRICS
    try:
        rows = read_metrics(folder)
        require_plain_rows(rows)
    except (OSError, ValueError, RecursionError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from None
    return rows


def _table(path: Path) -> pd.DataFrame:
    try:
        return read_rows(path)
    except ForeignFileError as error:
        raise LedgerError(str(error)) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error


def _optional_json(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}
