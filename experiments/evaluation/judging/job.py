"""The job of one judge: its pairs, its preferences, and its independence of the training reward."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from experiments.errors import InputError
from experiments.evaluation.judging.independence import Independence, Origin, compare, reward_model_origin
from experiments.evaluation.judging.judgement import IDENTICAL, Judgement
from experiments.evaluation.judging.pairs import BASE, final_samples, make_pairs
from experiments.model_spec import Model
from experiments.records import Axes, PreferenceRow, Recorder
from experiments.spec import JudgementJobSpec
from experiments.tasks import TASKS


def build(spec: JudgementJobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder) -> None:
    """Judge the final models of all evaluations that exist."""
    start = time.monotonic()
    runs = [run for run in spec.runs if run.role in needs]
    folders = {BASE: needs["base_evaluation"]} | {run.role: needs[run.role] for run in runs}
    samples = {role: final_samples(path, spec.judge.max_samples_per_prompt) for role, path in folders.items()}
    odd = [role for role, frame in samples.items() if not frame.index.equals(samples[BASE].index)]
    if odd:
        raise InputError(f"{', '.join(odd)}: other prompts or samples than the base's evaluation")
    pairs = make_pairs(samples, runs, spec.contests)
    work = import_module(spec.judge.module)
    independence = relation_to_reward(work.origin(spec.judge), spec.model, needs["reward_model"], cache_dir)
    judgement: Judgement = work.judge_pairs(spec.judge, pairs, cache_dir, recorder, TASKS[spec.task], samples)
    _record(judgement, independence, folder, recorder, time.monotonic() - start)


def relation_to_reward(judge: Origin, model: Model, reward_folder: Path, cache_dir: Path) -> Independence:
    """Compare the judge's origin with that of the training reward."""
    return compare(judge, reward_model_origin(reward_folder, base_config(model, cache_dir) if judge.shape else {}))


def base_config(model: Model, cache_dir: Path) -> dict[str, object]:
    """config.json of the base; empty if it cannot be read."""
    from transformers import AutoConfig

    from experiments.inputs.models import prepare_model

    try:
        config = AutoConfig.from_pretrained(prepare_model(model, cache_dir), trust_remote_code=False)
    except (OSError, ValueError):
        return {}
    return dict(config.get_text_config().to_dict())


def _record(
    judgement: Judgement, independence: Independence, folder: Path, recorder: Recorder, wall_seconds: float
) -> None:
    recorder.preferences(judgement.rows)
    facts = asdict(independence) | judgement.facts
    (folder / "judge.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    values = judgement.values | summarise(judgement.rows)
    recorder.metrics("artifact", values, Axes(wall_seconds=wall_seconds))


def summarise(rows: Sequence[PreferenceRow]) -> dict[str, float]:
    """Counts of pairs, and each contest's mean score over the pairs that have a score."""
    missing = Counter(row["note"] for row in rows if math.isnan(row["score"]))
    contests: dict[str, list[float]] = {}
    for row in rows:
        if not math.isnan(row["score"]):
            contests.setdefault(f"{row['arm']}_vs_{row['opponent']}", []).append(row["score"])
    return {
        "judge/num_pairs": len(rows),
        "judge/num_missing": sum(missing.values()),
        "judge/num_identical": sum(row["note"] == IDENTICAL for row in rows),
        **{f"judge/num_missing_{(reason or 'unknown').replace(' ', '_')}": count for reason, count in missing.items()},
        **{f"judge/preference_{name}": sum(scores) / len(scores) for name, scores in contests.items()},
    }
