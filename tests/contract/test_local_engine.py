"""What only the local engine does (the rest is in engines/test_contract.py): real processes, invented devices."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.spec import LocalEngine as Settings
from runner.engines import Outcome, Task
from runner.engines.devices import Device
from runner.engines.local import LocalEngine, make_local_engine
from runner.engines.slots import Slot

SAY = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'], flush=True)"
NAP = "import time; time.sleep(60)"


def task(folder: Path, name: str, code: str, wide: bool = False) -> Task:
    return Task(name, (sys.executable, "-c", code), folder / name / "log.txt", wide)


def settings(**changes: int) -> Settings:
    base = {"kind": "local", "slots_per_device": 1, "cpu_slots": 2}
    return Settings.model_validate(base | {"artifacts_in_one_process": False, "time_limit_minutes": None} | changes)


def drain(engine: LocalEngine, number: int, seconds: float = 20) -> dict[str, int]:
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + seconds
    while len(outcomes) < number and time.monotonic() < deadline:
        outcomes += engine.poll()
        time.sleep(0.02)
    return {outcome.name: outcome.exit_code for outcome in outcomes}


def wait_for(path: Path, text: str = "") -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and text in (content := path.read_text()) and content:
            return content
        time.sleep(0.02)
    raise AssertionError(f"{path} never appeared")


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pid: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still alive"
        time.sleep(0.05)


def test_each_slot_has_its_own_device_and_threads(tmp_path: Path) -> None:
    engine = LocalEngine([Slot("GPU-a", 3), Slot("MIG-b", 3)], num_cores=6)
    for name in ("one", "two"):
        engine.start(task(tmp_path, name, SAY))

    assert drain(engine, 2) == {"one": 0, "two": 0}
    logs = [(tmp_path / name / "log.txt").read_text().split() for name in ("one", "two")]
    assert logs == [["GPU-a", "3"], ["MIG-b", "3"]]


def test_slots_limit_how_many_run_at_once_and_come_back(tmp_path: Path) -> None:
    engine = make_local_engine(settings(slots_per_device=2), devices=[Device("7", "7")])
    tasks = [task(tmp_path, name, SAY) for name in ("one", "two", "three")]
    engine.start(tasks[0])
    engine.start(tasks[1])

    assert not engine.can_take(tasks[2])
    drain(engine, 2)
    assert engine.can_take(tasks[2])


def test_wide_task_takes_all_cpu_slots_and_all_threads(tmp_path: Path) -> None:
    engine = LocalEngine([Slot("", 2), Slot("", 2)], num_cores=5)
    wide = task(tmp_path, "wide", SAY, wide=True)
    engine.start(task(tmp_path, "narrow", SAY))
    assert not engine.can_take(wide)
    drain(engine, 1)

    engine.start(wide)
    assert not engine.can_take(task(tmp_path, "other", SAY))
    drain(engine, 1)

    assert (tmp_path / "narrow" / "log.txt").read_text().split() == ["2"]
    assert (tmp_path / "wide" / "log.txt").read_text().split() == ["5"]


def test_wide_task_takes_one_gpu(tmp_path: Path) -> None:
    engine = LocalEngine([Slot("0", 2), Slot("1", 2)], num_cores=4)
    engine.start(task(tmp_path, "narrow", SAY))

    assert engine.can_take(task(tmp_path, "wide", SAY, wide=True))
    engine.stop()


def test_what_a_killed_task_leaves_behind_is_ended(tmp_path: Path) -> None:
    engine = LocalEngine([Slot("", 1)], num_cores=1)
    code = (
        "import os, signal, subprocess, sys\n"
        f"print(subprocess.Popen([sys.executable, '-c', {NAP!r}]).pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    engine.start(task(tmp_path, "family", code))
    drain(engine, 1)

    wait_until_dead(int((tmp_path / "family" / "log.txt").read_text()))


def test_task_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engines.process.GRACE_SECONDS", 0.3)
    engine = LocalEngine([Slot("", 1)], num_cores=1)
    stubborn = (
        f"import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); {NAP}"
    )
    engine.start(task(tmp_path, "stubborn", stubborn))
    pid = int(wait_for(tmp_path / "stubborn" / "log.txt", "\n"))
    engine.stop()

    wait_until_dead(pid, seconds=2)


def test_job_ends_when_its_driver_is_killed(tmp_path: Path) -> None:
    """A driver that is killed can end nothing; `runner.job` itself notices that it is gone."""
    job = "import os, time, runner.working.life as j; j.watch_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    driver = (
        "import sys, time; from pathlib import Path\n"
        "from runner.engines import Task; from runner.engines.local import LocalEngine\n"
        "from runner.engines.slots import Slot\n"
        f"LocalEngine([Slot('', 1)], 1).start(Task('job', (sys.executable, '-c', {job!r}), Path(sys.argv[1])))\n"
        "time.sleep(60)"
    )
    log = tmp_path / "log.txt"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, "-c", driver, str(log)], env=environment)
    pid = int(wait_for(log, "\n"))
    process.kill()
    process.wait()

    wait_until_dead(pid)
