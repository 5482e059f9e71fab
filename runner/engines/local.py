"""Processes on this machine: one slot per GPU (or several), or a few CPU slots that divide the cores.

One owner hands out the slots, so two jobs never reach for the same one. A process gets its device and its threads in
its environment before Python starts, a session of its own, and its log as output. Thread counts depend on the slots
alone, never on what else runs: with other thread counts, sums are rounded differently.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments import spec
from runner.engines import Outcome, Task
from runner.engines.process import Process, slot_environment


@dataclass(frozen=True)
class Slot:
    """Room for one process."""

    device: str  # a token of CUDA_VISIBLE_DEVICES, or "" for the CPU
    threads: int


@dataclass(frozen=True)
class _Running:
    slots: list[Slot]
    process: Process


class LocalEngine:
    """A pool of slots. See `make_local_engine` for the usual one."""

    def __init__(self, slots: Sequence[Slot], num_cores: int) -> None:
        self._num_cores = num_cores
        self._slots = tuple(slots)
        self._free = list(slots)
        self._running: dict[str, _Running] = {}

    def describe(self) -> str:
        """Slots, devices and threads."""
        devices = [slot.device for slot in self._slots if slot.device]
        where = f"GPUs {', '.join(dict.fromkeys(devices))}" if devices else "the CPU"
        return f"{len(self._slots)} jobs at a time on {where}, threads each: {self._slots[0].threads}"

    def open(self) -> None:
        """Nothing to connect to."""

    def can_take(self, task: Task) -> bool:
        """Whether enough slots are free."""
        return len(self._free) >= self._num_slots(task)

    def start(self, task: Task) -> None:
        """Start the process on the first free slot, or on all of them."""
        slots = [self._free.pop(0) for _ in range(self._num_slots(task))]
        threads = self._num_cores if self._takes_all(task) else slots[0].threads
        process = Process(task, {**os.environ, **slot_environment(slots[0].device, threads)})
        self._running[task.name] = _Running(slots, process)

    def poll(self) -> list[Outcome]:
        """Collect what has ended and free its slots."""
        ended = [outcome for running in self._running.values() if (outcome := running.process.poll())]
        for outcome in ended:
            self._free += self._running.pop(outcome.name).slots
        self._free.sort(key=self._slots.index)
        return ended

    def cancel(self, name: str) -> None:
        """Ask the process group to end."""
        if name in self._running:
            self._running[name].process.end("cancelled")

    def stop(self) -> None:
        """Ask every process group to end, wait, and kill what is left; a second Ctrl-C cuts the waiting short."""
        processes = [running.process for running in self._running.values()]
        for process in processes:
            process.end("cancelled")
        with contextlib.suppress(KeyboardInterrupt):
            for process in processes:
                process.wait()
        for process in processes:
            process.kill()
            process.wait()
        self.poll()

    def _takes_all(self, task: Task) -> bool:
        return task.wide and not self._slots[0].device

    def _num_slots(self, task: Task) -> int:
        return len(self._slots) if self._takes_all(task) else 1


def make_local_engine(settings: spec.LocalEngine, devices: Sequence[str] | None = None) -> LocalEngine:
    """The engine for this machine.

    Args:
        settings: slots per GPU, or on the CPU.
        devices: tokens for CUDA_VISIBLE_DEVICES; by default those of this machine.
    """
    devices = visible_devices(os.environ) if devices is None else devices
    tokens = [device for device in devices for _ in range(settings.slots_per_device)] or [""] * settings.cpu_slots
    cores = available_cores()
    return LocalEngine([Slot(token, max(1, cores // len(tokens))) for token in tokens], cores)


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """GPUs to hand out: the inherited CUDA_VISIBLE_DEVICES as opaque tokens, else what ``nvidia-smi`` lists.

    As in CUDA itself, an empty list means none and a ``-1`` ends the list.
    """
    inherited = environment.get("CUDA_VISIBLE_DEVICES")
    if inherited is None:
        return _installed_devices()
    tokens = [token.strip() for token in inherited.split(",")]
    return [token for token in tokens[: tokens.index("-1") if "-1" in tokens else None] if token]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _installed_devices() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.splitlines() if line.strip()]
