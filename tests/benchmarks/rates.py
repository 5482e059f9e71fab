"""What this machine can do: matrix products on given shapes, and reading memory."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import probe

SECONDS_PER_SHAPE = 0.08
READ_BYTES = 2**30  # beyond any cache
TYPICAL = (512, 576, 1536)  # rows, inner, columns of a pass through a layer of SmolLM2-135M


def best_seconds(call: Any, budget: float = SECONDS_PER_SHAPE) -> float:
    """The fastest of as many calls as fit the budget, in groups that outlast the clock's resolution."""
    call()
    start = probe.now()
    call()
    group = max(1, round(0.002 / max(probe.now() - start, 1e-6)))
    best, began = float("inf"), probe.now()
    while probe.now() - began < budget:
        start = probe.now()
        for _ in range(group):
            call()
        best = min(best, (probe.now() - start) / group)
    return best


def product_seconds(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """[rows, inner] @ [inner, columns] with the weights in the layout that suits better."""
    device = probe.device()
    left = torch.randn(rows, inner, dtype=dtype, device=device)
    row_major = torch.randn(inner, columns, dtype=dtype, device=device)
    column_major = torch.randn(columns, inner, dtype=dtype, device=device).t()
    return min(best_seconds(lambda: left @ row_major), best_seconds(lambda: left @ column_major))


def read_bytes_per_second() -> float:
    """Memory bandwidth of a long read."""
    block = torch.ones(READ_BYTES // 4, dtype=torch.float32, device=probe.device())
    return READ_BYTES / best_seconds(block.sum, budget=1.0)


def measure(a: dict[str, Any]) -> None:
    """Seconds of each product in `products` (rows, inner, columns) and the bandwidth."""
    dtype = getattr(torch, a["dtype"])
    with torch.inference_mode():
        seconds = [product_seconds(*shape, dtype) for shape in a["products"]]
        probe.emit(seconds, len(seconds), {}, bytes_per_second=read_bytes_per_second())


def conditions() -> None:
    """On what everything was measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    probe.emit(
        [],
        0,
        {},
        device=probe.device(),
        name=gpu or _cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        gigaflops={name: round(_gigaflops(getattr(torch, name)), 1) for name in ("float32", "bfloat16")},
    )


def _gigaflops(dtype: torch.dtype) -> float:
    return 2e-9 * math.prod(TYPICAL) / product_seconds(*TYPICAL, dtype)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
