"""Count what a job has spent so far: the shared axes."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field

import torch

from experiments.records import Axes


@dataclass
class Meter:
    """Counts up while a job works; `axes` is a snapshot."""

    prompts_seen: int = 0
    tokens_generated: int = 0
    tokens_trained: int = 0
    optimizer_steps: int = 0
    _start: float = field(default_factory=time.monotonic)
    _earlier: Axes = field(default_factory=Axes)  # of the attempt that this one resumes

    def resume_from(self, axes: Axes) -> None:
        """Continue counting from what an earlier attempt had spent."""
        self.prompts_seen, self.tokens_generated = axes.prompts_seen, axes.tokens_generated
        self.tokens_trained, self.optimizer_steps = axes.tokens_trained, axes.optimizer_steps
        self._earlier = axes

    def axes(self) -> Axes:
        """The shared axes now."""
        wall = time.monotonic() - self._start
        devices = 1 if torch.cuda.is_available() else torch.get_num_threads()
        return Axes(
            prompts_seen=self.prompts_seen,
            tokens_generated=self.tokens_generated,
            tokens_trained=self.tokens_trained,
            optimizer_steps=self.optimizer_steps,
            wall_seconds=self._earlier.wall_seconds + wall,
            device_seconds=self._earlier.device_seconds + wall * devices,
            peak_memory_bytes=max(_peak_memory_bytes(), self._earlier.peak_memory_bytes),
        )


def peak_memory() -> dict[str, int]:
    """This process's peak memory, bytes: GPU memory as "gpu", or main memory as "cpu" if there is no GPU.

    GPU memory is what torch reserved. That is more than `Axes.peak_memory_bytes`, the part that torch allocated.
    """
    if torch.cuda.is_available():
        return {"gpu": int(torch.cuda.max_memory_reserved())}
    return {"cpu": _peak_memory_bytes()}


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes
