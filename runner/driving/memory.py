"""How much memory a job will take, as far as earlier jobs of its kind have shown.

A finished job's status says how much its process had taken at most. The cache keeps that under a digest of the settings
that decide about memory, so that later sweeps know it too. Learning rates, seeds and the length of training do not
matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.ledger.files import write_json
from runner.ledger.jobfile import digest
from runner.ledger.reader import read_small_json, read_status
from runner.planning.fairness import flatten
from runner.planning.graph import Job

DECIDING = {
    "arm.algorithm",
    "arm.prompts_per_update",
    "arm.num_minibatches",
    "arm.tokens_per_microbatch",
    "arm.pairs_per_step",
    "arm.pairs_per_microbatch",
    "data.max_prompt_words",
    "data.max_new_tokens",
    "data.samples_per_prompt",
    "evaluation.rows_per_batch",
    "reward_model.comparisons_per_step",
}
CUDA_BYTES = 600 * 2**20  # what CUDA itself takes for each process on a GPU, beside what torch reserves


def needed_bytes(jobs: Sequence[Job], device: str) -> int:
    """Memory that a process will take for these jobs, one after the other. 0 if it is unknown.

    Args:
        jobs: of one process.
        device: "gpu" for its memory, "cpu" for main memory if there is no GPU.
    """
    peak = max(_peak(_kept(_record(job)), device) for job in jobs)
    return peak + CUDA_BYTES if device == "gpu" and peak else peak


def learn(job: Job) -> None:
    """Keep what a finished job took, if that is more than any of its kind has taken before."""
    took, path = (read_status(job.folder) or {}).get("peak_memory") or {}, _record(job)
    known = _kept(path)
    more = {device: _peak(took, device) for device in ("cpu", "gpu") if _peak(took, device) > _peak(known, device)}
    if more:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, known | more | {"kind": job.kind})


def _record(job: Job) -> Path:
    spec = flatten(job.file.spec.model_dump(mode="json"))
    deciding = {key: value for key, value in spec.items() if key in DECIDING or key.startswith(("model.", "measure."))}
    key = digest({"kind": job.kind, "settings": deciding})
    return Path(job.file.cache_dir) / "memory" / f"{key[:16]}.json"


def _kept(path: Path) -> dict[str, Any]:
    return read_small_json(path) or {}


def _peak(record: Mapping[str, Any], device: str) -> int:
    """Bytes, from a file that anybody may have changed."""
    value = record.get(device)
    return value if isinstance(value, int) and value > 0 else 0
