"""What the runner itself costs: `make bench-machinery`, about two minutes, no training.

Planning of 1,000 composed arms (validation, jobs and their order, checks, plan.json; Hydra's composition apart), and a
sweep of jobs that only sleep: how much longer it takes than the jobs do, and what the runner's process takes meanwhile.
Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import ROOT

NUM_ARMS = 1000
MAX_PLANNING_SECONDS = 5.0
MAX_OVERHEAD = 0.02  # of a sweep's wall time
MAX_BYTES = 150e6
MAX_STRETCH = 1.10  # wall time of N jobs on S slots over ceil(N / S) x one
NUM_JOBS, NUM_SLOTS, SECONDS = 7, 3, 20.0  # a job takes minutes in earnest
# Stands in for `runner.job`: sleeps, and says that it has finished. Starts no heavier library than json.
JOB = """
import json, sys, time
from pathlib import Path
time.sleep(float(sys.argv[1]))
folder = Path(sys.argv[2])
identity = json.loads((folder / "spec.json").read_text())["identity"]
(folder / "status.json").write_text(json.dumps({"state": "finished", "identity": identity}))
"""


def main() -> int:
    """Measure, print a line for each target, say what is missed."""
    with tempfile.TemporaryDirectory() as folder:
        planning = _child("plan", folder)
        print(
            f"Hydra: {planning['compose_seconds_per_arm']:.2f} s for each arm; our planning of {NUM_ARMS:,} arms: "
            + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in planning["seconds"].items()),
            flush=True,
        )
        sweep = _child("sweep", folder)
    ideal = math.ceil(NUM_JOBS / NUM_SLOTS) * sweep["one_job_seconds"]
    found = {
        f"planning of {NUM_ARMS:,} arms, s": (sum(planning["seconds"].values()), MAX_PLANNING_SECONDS),
        "the runner's processor time, share of the sweep's time": (
            sweep["busy_seconds"] / sweep["seconds"],
            MAX_OVERHEAD,
        ),
        "time beyond that of the jobs, share of the sweep's time": (1 - ideal / sweep["seconds"], MAX_OVERHEAD),
        f"{NUM_JOBS} jobs on {NUM_SLOTS} slots, times {math.ceil(NUM_JOBS / NUM_SLOTS)} x one": (
            sweep["seconds"] / ideal,
            MAX_STRETCH,
        ),
        "the runner's memory at most, MB": (sweep["peak_bytes"] / 1e6, MAX_BYTES / 1e6),
    }
    print(
        f"start-up before the first job: {sweep['start_up_seconds']:.1f} s; one job: {sweep['one_job_seconds']:.2f} s"
    )
    for name, (value, target) in found.items():
        print(f"{'ok    ' if value <= target else 'MISSED'} {name}: {value:.3f} (at most {target:g})")
    return 1 if any(value > target for value, target in found.values()) else 0


def _child(what: str, folder: str) -> dict[str, Any]:
    """A measurement in a process of its own, so that its memory is that of the runner and not of this benchmark."""
    command = [sys.executable, "-m", "tests.benchmarks.machinery", what, str(Path(folder) / what)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def plan(folder: Path) -> dict[str, Any]:
    """Seconds of each part of planning; at least `NUM_ARMS` arms, each with its own rate, of ten seeds."""
    from experiments.spec import RunSpec
    from runner.__main__ import compose
    from runner.planning.plan import Plan, check_folder, check_inputs, check_keys, make_plan

    began = time.perf_counter()
    composed = compose(["+sweep=smoke", "tracker=none", "seed=range(0,10)", *_folders(folder)])
    per_arm = (time.perf_counter() - began) / len(composed)
    contents = [run.model_dump(mode="json") for run in composed] * math.ceil(NUM_ARMS / len(composed))
    contents = [json.loads(json.dumps(content)) for content in contents]
    for number, content in enumerate(contents):
        variant = number // len(composed)
        arm = content["arm"]
        arm |= {"name": f"{arm['name']}{variant}", "learning_rate": 1e-4 * (1 + variant)}
        if arm.get("start"):
            arm["start"]["arm"] += str(variant)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    runs = timed("validation", lambda: [RunSpec.model_validate(content) for content in contents])
    made: Plan = timed("jobs and fairness", lambda: make_plan(runs))
    timed("writing plan.json", made.write)
    timed("checks", lambda: (check_folder(made), check_keys(made), check_inputs(made)))
    return {"compose_seconds_per_arm": per_arm, "seconds": seconds}


def sweep(folder: Path) -> dict[str, Any]:
    """Run sleeping jobs as `python -m runner` runs a sweep, in this process."""
    began = time.perf_counter()
    from runner.__main__ import compose
    from runner.driving.execute import Scheduler
    from runner.engines.local import LocalEngine
    from runner.engines.slots import Slot
    from runner.ledger.driver import DriverFile
    from runner.planning.plan import check_folder, check_inputs, check_keys, make_plan
    from runner.watching.display import Display

    runs = compose(["+sweep=smoke", "tracker=none", "+arm=dpo", f"seed=range(0,{NUM_JOBS})", *_folders(folder)])
    whole = make_plan(runs)
    check_folder(whole)
    check_keys(whole)
    check_inputs(whole)
    start_up = time.perf_counter() - began
    arms = tuple(replace(job, needs={}) for job in whole.jobs if job.kind == "arm")
    job = (sys.executable, "-S", "-c", JOB, str(SECONDS))
    console = Display()
    whole.folder.mkdir(parents=True)
    driver = DriverFile(whole.folder, "", "")
    arms[0].file.write(arms[0].folder)
    one = time.perf_counter()
    subprocess.run([*job, str(arms[0].folder)], check=True)
    one_job = time.perf_counter() - one
    (arms[0].folder / "status.json").unlink()
    before, start = os.times(), time.perf_counter()
    walk = Scheduler(replace(whole, jobs=arms), LocalEngine([Slot("", 1)] * NUM_SLOTS, NUM_SLOTS), console, driver, job)
    walk.run()
    seconds, after = time.perf_counter() - start, os.times()
    if bad := {label: result for label, result in walk.results.items() if result.state != "finished"}:
        raise RuntimeError(f"jobs that did not sleep to their end make every figure too good: {bad}")
    return {
        "start_up_seconds": start_up,
        "one_job_seconds": one_job,
        "seconds": seconds,
        "busy_seconds": after.user + after.system - before.user - before.system,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _folders(folder: Path) -> list[str]:
    return [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.machinery", description=__doc__)
    parser.add_argument("what", choices=["plan", "sweep"], help="one part, its figures as JSON")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    print(json.dumps({"plan": plan, "sweep": sweep}[chosen.what](chosen.folder)))
