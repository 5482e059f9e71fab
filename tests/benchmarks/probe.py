"""What one measurement says, as its last line. Both environments import this: the standard library and torch only."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def emit(seconds: Sequence[float], items: int, stages: Mapping[str, Sequence[float]], **facts: Any) -> None:
    """Print the line.

    Args:
        seconds: of each repeat; the warm-up is left out.
        items: what one repeat produced (samples, pairs or tokens).
        stages: seconds of the parts of each repeat.
        facts: whatever else should stand in the results.
    """
    line = {"seconds": list(seconds), "items": items, "peak_bytes": peak_bytes(), "stages": dict(stages), **facts}
    print(json.dumps(line), flush=True)


def peak_bytes() -> int:
    """Peak memory of this process: the GPU's where there is one, otherwise resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes


def now() -> float:
    """Seconds on a clock that waits for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def dtypes(model: torch.nn.Module) -> dict[str, str]:
    """The precisions really in use: of frozen and of trained parameters."""
    kinds: dict[str, set[str]] = {"frozen": set(), "trained": set()}
    for parameter in model.parameters():
        kinds["trained" if parameter.requires_grad else "frozen"].add(str(parameter.dtype).removeprefix("torch."))
    return {kind: "+".join(sorted(names)) or "none" for kind, names in kinds.items()}


def device() -> str:
    """`cuda` where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
