"""A job that ran out of memory is started once more, with smaller passes through its model.

The results stay the same, and so does the job's identity. `retry.json` beside its specification says how much smaller
the passes are and why. A job that is started again later finds it as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.engines import Outcome
from runner.ledger.files import timestamp, write_json
from runner.ledger.reader import read_small_json, read_status
from runner.planning.graph import Job

DIVISOR = 4  # there is one retry, so it must help
# Kinds with passes to make smaller.
DIVISIBLE = {"ranking_data", "fresh_pairs", "reward_model", "base_evaluation", "arm", "evaluation"}


def retry_smaller(job: Job, outcome: Outcome) -> str:
    """Prepare the second start of a job that has run out of memory for the first time.

    Returns:
        What ran out, in one line. "" if the job has not run out of memory, or has been started again before.
    """
    status = read_status(job.folder) or {}
    own = status.get("identity") == job.identity and status.get("state") == "failed" and status.get("out_of_memory")
    killed = outcome.cause == "out_of_memory"
    if not (own or killed) or job.kind not in DIVISIBLE or read_retry(job.folder, job.identity):
        return ""
    reason = str(status.get("error")) if own else "killed by the system for want of memory"
    content = {"identity": job.identity, "pass_divisor": DIVISOR, "because": reason, "time": timestamp()}
    write_json(job.folder / "retry.json", content)
    return reason


def read_retry(folder: Path, identity: str) -> dict[str, Any] | None:
    """What ``retry.json`` says of the job with this identity, or None."""
    content = read_small_json(folder / "retry.json") or {}
    divisor = content.get("pass_divisor")
    return content if content.get("identity") == identity and isinstance(divisor, int) and divisor > 1 else None
