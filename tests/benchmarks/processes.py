"""Run one measurement in a process of its own, and notice when the machine was busy with something else."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 1800  # of one measurement
LOG_LINES = 12
DISTURBED = 0.1  # cores taken by other processes, from which on a measurement says so


class MeasurementError(Exception):
    """A measurement did not end with its line."""


def run(command: Sequence[str], log: Path, threads: int) -> dict[str, Any]:
    """The JSON of the last line that `command` prints, and how busy other processes kept the machine.

    Raises:
        MeasurementError: with the end of what it printed, or because it took too long.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    busy = BusyCores()
    with log.open("w") as errors:
        try:
            process = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as timeout:
            raise MeasurementError(f"took longer than {TIMEOUT_SECONDS} s") from timeout
    if process.returncode:
        lines = (process.stdout + log.read_text()).splitlines() or [f"ended with {process.returncode}"]
        raise MeasurementError("\n".join(lines[-LOG_LINES:]))
    return {**json.loads(process.stdout.splitlines()[-1]), "others_cores": busy.others()}


class BusyCores:
    """How many cores other processes keep busy from now on."""

    def __init__(self) -> None:
        self.start = self._now()

    def others(self) -> float:
        """Mean over the time since the beginning."""
        wall, all_processes, children = (now - then for now, then in zip(self._now(), self.start, strict=True))
        return float(max(0.0, all_processes - children) / wall)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        machine, ours = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic(), machine.user + machine.nice + machine.system, ours.ru_utime + ours.ru_stime


def disturbance(measurement: Mapping[str, Any]) -> str:
    """A remark where the machine was not ours alone."""
    cores = measurement["others_cores"]
    return f"; DISTURBED: other processes took {cores:.1f} cores" if cores > DISTURBED else ""
