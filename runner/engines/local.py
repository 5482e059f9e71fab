"""Processes on this machine: one slot per GPU (or several), or a few CPU slots that divide the cores.

`slots` hands them out, so two jobs never reach for the same one, whichever runner started them. A process gets its
device and its threads in its environment before Python starts, a session of its own, and its log as output. Thread
counts depend on the slots alone, never on what else runs: with other thread counts, sums are rounded differently.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from experiments import spec
from runner.engines import Outcome, Task
from runner.engines.devices import Device, FreeMemory, available_cores, visible_devices
from runner.engines.process import Process, slot_environment
from runner.engines.slots import FreeBytes, Lease, Slot, SlotPool


class LocalEngine:
    """Processes in slots. See `make_local_engine` for the usual ones."""

    late_seconds = 0.0

    def __init__(
        self,
        slots: Sequence[Slot],
        num_cores: int,
        free_bytes: FreeBytes | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._num_cores = num_cores
        self._slots = tuple(slots)
        self._pool = SlotPool(slots, free_bytes or FreeMemory(), say)
        self._reserved: tuple[str, Lease] | None = None
        self._running: dict[str, tuple[Lease, Process]] = {}

    def describe(self) -> str:
        """Slots, devices and threads."""
        devices = [slot.device for slot in self._slots if slot.device]
        where = f"GPUs {', '.join(dict.fromkeys(devices))}" if devices else "the CPU"
        return f"{len(self._slots)} jobs at a time on {where}, threads each: {self._slots[0].threads}"

    def open(self) -> None:
        """Nothing to connect to."""

    def can_take(self, task: Task) -> bool:
        """Whether a slot is free and has the memory; it is kept for this task until another one asks."""
        if self._reserved is None or self._reserved[0] != task.name:
            self._let_go()
            needed = task.needed_gpu_bytes if self._slots[0].device else task.needed_bytes
            lease = self._pool.take(task.name, needed, self._takes_all(task))
            self._reserved = None if lease is None else (task.name, lease)
        return self._reserved is not None

    def start(self, task: Task) -> None:
        """Start the process in the slot that `can_take` found. Raises OSError where the system cannot."""
        if not self.can_take(task) or self._reserved is None:
            raise RuntimeError(f"no slot for {task.name}")
        (_, lease), self._reserved = self._reserved, None
        slot = lease.slots[0]
        threads = self._num_cores if self._takes_all(task) else slot.threads
        environment = slot_environment(os.environ, slot.device, threads)
        inherited = () if lease.lock is None else (lease.lock,)
        try:
            self._running[task.name] = lease, Process(task, environment, inherited=inherited)
        except OSError:
            self._pool.give_back(lease)
            raise

    def poll(self) -> list[Outcome]:
        """Collect what has ended and free its slots."""
        ended = [outcome for _, process in self._running.values() if (outcome := process.poll())]
        for outcome in ended:
            self._pool.give_back(self._running.pop(outcome.name)[0])
        return ended

    def cancel(self, name: str) -> None:
        """Ask the process group to end."""
        if name in self._running:
            self._running[name][1].end("cancelled")

    def stop(self) -> None:
        """Ask every process group to end, wait, and kill what is left; a second Ctrl-C cuts the waiting short."""
        processes = [process for _, process in self._running.values()]
        for process in processes:
            process.end("cancelled")
        with contextlib.suppress(KeyboardInterrupt):
            for process in processes:
                process.wait()
        for process in processes:
            process.kill()
            process.wait()
        self.poll()
        self._let_go()

    def _let_go(self) -> None:
        if self._reserved is not None:
            self._pool.give_back(self._reserved[1])
            self._reserved = None

    def _takes_all(self, task: Task) -> bool:
        return task.wide and not self._slots[0].device


def make_local_engine(settings: spec.LocalEngine, devices: Sequence[Device] | None = None) -> LocalEngine:
    """The engine for this machine.

    Args:
        settings: slots per GPU, or on the CPU, where there are never more of them than cores.
        devices: GPUs to use; by default those of this machine.

    Raises:
        InputError: CUDA_VISIBLE_DEVICES names something that is not there.
    """
    devices = visible_devices(os.environ) if devices is None else devices
    cores = available_cores()
    places = [device for device in devices for _ in range(settings.slots_per_device)]
    places = places or [Device("", "")] * min(settings.cpu_slots, cores)
    return LocalEngine([Slot(place.token, max(1, cores // len(places)), place.key) for place in places], cores)
