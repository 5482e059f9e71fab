"""How the time and memory of `python -m analysis report` grow with the ledger: `make bench-report`, some minutes.

An invented sweep of 8 arms x 3 seeds x 10 evaluation points is written at three sizes, 1, 4 and 16 times the rows, the
last with 200 prompts x 4 samples, and reported on in a process of its own. Exit code 1 where the last one takes more
than 60 s or 2 GB, or where processor time grows faster than the rows.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.benchmarks.processes import ROOT, BusyCores, disturbance

MAKER = ROOT / "tests/unit/analysis/synthetic_sweep.py"
SIZES = ((50, 1), (100, 2), (200, 4))  # prompts, samples of each: 1, 4 and 16 times the rows
NUM_ARMS, SEEDS, NUM_POINTS = 8, (0, 1, 2), 10
MAX_SECONDS, MAX_BYTES = 60, 2e9
NOISE = 1.5  # how much steeper than linear still passes: processor time on a busy machine varies


@dataclass(frozen=True)
class Cost:
    """One report. `busy_seconds` is processor time, user and system, of all its threads."""

    num_rows: int
    wall_seconds: float
    busy_seconds: float
    peak_bytes: int
    remark: str = ""

    def __str__(self) -> str:
        return (
            f"{self.num_rows:>8,} rows  {self.wall_seconds:6.1f} s  {self.busy_seconds:6.1f} s of processor time  "
            f"{self.peak_bytes / 1e9:5.2f} GB{self.remark}"
        )


def main() -> int:
    """Measure all sizes, print a line each, say what is missed."""
    costs = []
    for num_prompts, num_samples in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_sweep(Path(folder), num_prompts, num_samples)
            costs.append(measure(Path(folder), num_prompts * num_samples))
        print(costs[-1], flush=True)
    print(f"growth from the middle to the last, over that before it: {steepening(costs):.2f} (1 is linear)")
    missed = failures(costs)
    print(*missed or ["all targets met"], sep="\n")
    return 1 if missed else 0


def write_sweep(folder: Path, num_prompts: int, num_samples: int) -> None:
    """An invented sweep, half PPO and half DPO."""
    maker = _maker()
    rises = [tuple(0.02 * point * (1 + arm / 10) for point in range(1, NUM_POINTS)) for arm in range(NUM_ARMS)]
    arms = {
        f"{name}_{arm}": maker.Arm(name, rises[arm], kl=2 + 3 * arm)
        for arm, name in enumerate(("ppo", "dpo") * (NUM_ARMS // 2))
    }
    maker.Sweep(folder, arms, num_prompts=num_prompts, num_samples=num_samples, seeds=SEEDS).write()


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_sweep", MAKER)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # its dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def measure(folder: Path, rows_per_point: int) -> Cost:
    """Run the report in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "analysis", "report", str(folder)]
    busy, start = BusyCores(), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # its own peak memory; `resource` knows only that of all children
    seconds = time.monotonic() - start
    if process_code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(process_code, command)
    num_rows = NUM_ARMS * len(SEEDS) * (NUM_POINTS - 1) * rows_per_point + 2 * rows_per_point
    remark = disturbance({"others_cores": busy.others()})
    return Cost(num_rows, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, remark)


def steepening(costs: Sequence[Cost]) -> float:
    """Processor seconds per row of the last step over those of the first: 1 if linear, 4 if quadratic."""
    small, middle, large = costs
    first, last = (
        max(1e-9, more.busy_seconds - less.busy_seconds) / (more.num_rows - less.num_rows)
        for less, more in ((small, middle), (middle, large))
    )
    return last / first


def failures(costs: Sequence[Cost]) -> list[str]:
    """The targets that are missed, in words."""
    last = costs[-1]
    checks = (
        (last.wall_seconds > MAX_SECONDS, f"missed: {last.wall_seconds:.0f} s, at most {MAX_SECONDS}"),
        (last.peak_bytes > MAX_BYTES, f"missed: {last.peak_bytes / 1e9:.2f} GB, at most {MAX_BYTES / 1e9:.0f}"),
        (steepening(costs) > NOISE, f"missed: time grows {steepening(costs):.1f} times as steeply as the rows"),
    )
    return [words for is_missed, words in checks if is_missed]


if __name__ == "__main__":
    sys.exit(main())
