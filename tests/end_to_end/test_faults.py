"""Faults of the machine: a full disk, a folder that is read-only, a clock that jumps, a job that does not listen.

`runner/FAULTS.md` says what each fault comes to. Disks are tmpfs and mounts in a namespace of their own, since root
may write anywhere; where namespaces are not permitted, the tests say so.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runner.__main__ import compose
from runner.ledger.reader import read_status
from runner.ledger.signs import Process, signs_of_life
from runner.planning.graph import Job
from runner.planning.plan import make_plan

ROOT = Path(__file__).parents[2]
# `runner.job`, with a stage of the test: Python code in the variable STAGE.
JOB = """
import os, sys, types
stages = types.ModuleType("experiments.stages")
def run_stage(kind, spec, needs, folder, cache_dir, recorder):
    exec(os.environ["STAGE"], globals() | locals())
stages.run_stage = run_stage
sys.modules["experiments.stages"] = stages
from runner.job import main
sys.exit(main(sys.argv[1:]))
"""
# A sweep of an arm and what it needs, of such jobs.
SWEEP = """
import sys
from dataclasses import replace
from pathlib import Path
from runner.__main__ import compose
from runner.watching.display import Display
from runner.engines import process
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot
from runner.driving.execute import execute
from runner.planning.plan import make_plan
class Lines(Display):
    def summary(self, plan, results, again): "There is no report to show."
def sweep(folder, *command):
    where = (f"runs_dir={folder}/runs", f"cache_dir={folder}/cache")
    plan = make_plan(compose(["+sweep=smoke", "+arm=dpo", "tracker=none", *where]))
    plan = replace(plan, jobs=tuple(job for job in plan.jobs if job.kind in {"measure", "ranking_data", "arm"}))
    return execute(plan, LocalEngine([Slot("", 1)], 1), Lines(), command)
"""
# In a namespace: a disk of six megabytes with one and a half left, until the ballast is thrown off.
SMALL_DISK = """
import subprocess
from pathlib import Path
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], check=True)
(disk / "ballast").write_bytes(bytes(4_500_000))
"""


@pytest.fixture
def in_namespace() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command where it may mount."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs Linux and the permission to mount in a namespace of its own (unshare)")

    def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
        return subprocess.run(
            [*namespace, *map(str, command)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


# ---------------------------------------------------------------------------------------------------------- a full disk
FILLING = {
    "ledger": """
for number in range(10_000):
    recorder.metrics("train", {"train/loss": number}, Axes())
""",
    "checkpoint": """
import torch
from experiments.arms.resume import Checkpoints, State
Checkpoints(folder, spec).save_if_due(lambda: State({"weights": torch.zeros(500_000)}, {}))
""",
}


@pytest.mark.parametrize("file", FILLING)
def test_disk_full_the_job_fails_the_driver_says_why_and_with_room_the_sweep_goes_on(
    in_namespace: Any, tmp_path: Path, file: str
) -> None:
    code = f"{SWEEP}{SMALL_DISK}" + (
        "first = sweep(disk, sys.executable, '-c', sys.argv[2])\n"
        "print('first ended with', first, flush=True)\n"
        "(disk / 'ballast').unlink()\n"
        "print('second ended with', sweep(disk, sys.executable, '-c', sys.argv[2]))\n"
    )
    lines = "".join(f"    {line}\n" for line in FILLING[file].splitlines())
    stage = f"from experiments.records import Axes\nif kind == 'arm':\n{lines}"
    done = in_namespace(sys.executable, "-c", code, tmp_path, JOB, STAGE=stage)
    first, _, second = done.stdout.partition("first ended with 1")

    assert second.rstrip().endswith("second ended with 0"), done.stdout + done.stderr
    assert re.search(r"dpo/seed0\s+failed: .*(No space left|the disk is full there)", first)
    assert "finished before, and taken as it is: measure, ranking_data" in second
    assert done.stderr == ""


def test_disk_full_a_report_is_there_whole_or_not_at_all(in_namespace: Any, tmp_path: Path) -> None:
    code = f"""
import json, sys
sys.path.insert(0, "tests/unit/analysis")
from synthetic_sweep import Arm, Sweep
from analysis.__main__ import main
{SMALL_DISK}
arms = {{"ppo": Arm("ppo", (0.1, 0.2)), "dpo": Arm("dpo", (0.05, 0.1))}}
sweep = Sweep(disk / "sweep", arms)
sweep.folder.mkdir()
sweep.write()
room = b"\\0" * 10_000
with (disk / "more").open("wb", buffering=0) as more:
    try:
        while more.write(room) == len(room): pass
    except OSError:
        more.truncate(more.tell() - 100_000)
full = main(["report", str(sweep.folder)])
left = [path for path in sweep.folder.glob("report/report.*")]
whole = [bool(json.loads(path.read_text())) for path in left if path.suffix == ".json"]
(disk / "ballast").unlink()
print(full, all(whole), main(["report", str(sweep.folder)]), (sweep.folder / "report/report.html").stat().st_size > 0)
"""
    done = in_namespace(sys.executable, "-c", code, tmp_path)

    assert done.stdout.splitlines()[-1:] == ["2 True 0 True"], done.stdout + done.stderr
    assert "error: [Errno 28] No space left on device" in done.stderr


# --------------------------------------------------------------------------------------------------- a read-only folder
@pytest.mark.parametrize(
    ("read_only", "code", "said"),
    [
        ("runs", 2, "runs/smoke cannot be written (Read-only file system); runs_dir=… chooses another place"),
        ("cache", 1, "could not be started: [Errno 30] Read-only file system"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_read_only_folder_is_said_in_one_line(
    in_namespace: Any, finished_sweep: Path, tmp_path: Path, read_only: str, code: int, said: str, there: bool
) -> None:
    """What the checks of texts and models say is in the cache: they come before, and take a quarter of a minute."""
    folder = tmp_path / read_only
    folder.mkdir()
    make = f"mkdir {folder}/smoke && " if there else ""
    keep = f"mkdir -p {tmp_path}/cache && cp -r {finished_sweep}/cache/checks {tmp_path}/cache"
    mount = f"mount -t tmpfs tmpfs {folder} && {keep} && {make}mount -o remount,ro {folder}"
    where = f"runs_dir={tmp_path}/runs cache_dir={tmp_path}/cache"
    done = in_namespace("sh", "-c", f"{mount} && exec {sys.executable} -m runner +sweep=smoke tracker=none {where}")

    assert done.returncode == code
    assert said in (done.stdout + done.stderr).replace("\n", " ")
    assert "Traceback" not in done.stdout + done.stderr


# --------------------------------------------------------------------------------------------------- a clock that jumps
@pytest.fixture
def gold(tmp_path: Path) -> Job:
    folders = (f"runs_dir={tmp_path}/runs", f"cache_dir={tmp_path}/cache")
    job = make_plan(compose(["+sweep=smoke", "tracker=none", *folders])).jobs[0]
    job.file.write(job.folder)
    return job


@pytest.mark.parametrize("days", [1, -1])
def test_clock_that_jumps_changes_no_duration_and_makes_nobody_dead(gold: Job, days: int) -> None:
    """Only what the job reads from the clock jumps: setting the machine's would be felt by everybody."""
    stage = f"""
import datetime, time
from experiments.records import Axes
from runner.ledger import files
class Jumped(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(days={days})
recorder.progress("counting", 1, 3, "steps")
files.datetime = Jumped
time.time = lambda: Jumped.now().timestamp()
recorder.metrics("train", {{"train/loss": 1.0}}, Axes())
recorder.progress("counting", 2, 3, "steps")
while not (folder / "go").exists():
    time.sleep(0.05)
recorder.progress("counting", 3, 3, "steps")
"""
    environment = os.environ | {"STAGE": stage, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", JOB, str(gold.folder)], env=environment) as process:
        while (status := read_status(gold.folder) or {}).get("done") != 2 and process.poll() is None:
            time.sleep(0.05)
        elsewhere = Process(lambda: (read_status(gold.folder) or {}) | {"host": "elsewhere"}, gold.folder / "job.lock")
        (sign,) = signs_of_life([elsewhere], wait=4.0)
        (gold.folder / "go").touch()
        assert process.wait(timeout=60) == 0
    age = (datetime.now(UTC) - datetime.fromisoformat(status["updated"])).total_seconds()
    ended = read_status(gold.folder) or {}

    assert abs(age + days * 86400) < 600
    assert sign.alive
    assert "its heartbeat moves, though the clocks differ" in sign.how
    assert ended["state"] == "finished"
    assert 0 <= status["counted_to"] <= status["seconds"] < ended["seconds"] < 600


# --------------------------------------------------------------------------------------------------------- Ctrl-C twice
def test_second_ctrl_c_does_not_wait_for_a_job_that_ignores_the_first(tmp_path: Path) -> None:
    """The grace is longer than the test may take."""
    pid, asked = tmp_path / "pid", tmp_path / "asked"
    deaf = f"""
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: open({str(asked)!r}, "w").close())
with open({str(pid)!r} + ".unfinished", "w") as file: file.write(str(os.getpid()))
os.rename({str(pid)!r} + ".unfinished", {str(pid)!r})
while True: time.sleep(60)
"""
    code = f"{SWEEP}process.GRACE_SECONDS = 3600.0\nsys.exit(sweep(sys.argv[1], sys.executable, '-c', sys.argv[2]))"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(tmp_path), deaf],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as driver:
        try:
            _wait_for(driver, pid)
            driver.send_signal(signal.SIGINT)
            _wait_for(driver, asked)
            driver.send_signal(signal.SIGINT)
            said, _ = driver.communicate(timeout=60)
        finally:
            driver.kill()
    assert driver.returncode == 130
    assert "interrupted; ending the jobs. The same command resumes" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    kept = json.loads((tmp_path / "runs" / "smoke" / "driver.json").read_text())
    assert (kept["state"], kept["exit_code"]) == ("ended", 130)


def _wait_for(process: subprocess.Popen[str], path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, path
        time.sleep(0.05)
