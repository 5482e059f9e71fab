"""Every engine on this machine: the local one, a Ray cluster of two nodes, and a Slurm with pretended GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from experiments import spec
from runner.engines import Engine, Outcome, Task, make_engine
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot

ROOT = Path(__file__).parents[3]
RAY_MEMORY = {"object_store_memory": 80 * 2**20, "include_dashboard": False, "memory": 2**30}
RAY_NOTICES_SOON = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}  # that a node is lost
SLURM_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
SLURM_CONF = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={next_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=5
GresTypes=gpu
NodeName=localhost CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES State=UP
"""


class Bench:
    """One kind of engine, with two places that have a device each, and what a test does with it."""

    def __init__(self, kind: str, folder: Path, **fixed: Any) -> None:
        self.kind = kind
        self.folder = folder
        self.fixed = fixed
        self.engines: list[Engine] = []

    def settings(self, **changes: Any) -> Any:
        content = yaml.safe_load((ROOT / "conf" / "engine" / f"{self.kind}.yaml").read_text())
        return TypeAdapter(spec.Engine).validate_python(content | self.fixed | changes)

    def engine(self, **changes: Any) -> Engine:
        """An open engine."""
        settings = self.settings(**changes)
        engine: Engine = make_engine(settings, self.folder)
        if self.kind == "local":
            engine = LocalEngine([Slot("GPU-a", 2), Slot("GPU-b", 2)], num_cores=4)
        self.engines.append(engine)
        engine.open()
        return engine

    def task(self, name: str, code: str, **changes: Any) -> Task:
        """A task that runs Python code, in a folder of its own; `WAIT` and `SAY` may be used in it."""
        return Task(name, (sys.executable, "-c", f"{PRELUDE}\n{code}"), self.log(name), **changes)

    def log(self, name: str) -> Path:
        return self.folder / name / "log.txt"

    def run(self, engine: Engine, tasks: Sequence[Task]) -> dict[str, Outcome]:
        """Start each in turn as soon as there is room, and wait for all."""
        found: list[Outcome] = []
        for task in tasks:
            while not engine.can_take(task):
                found += engine.poll()
                time.sleep(0.05)
            engine.start(task)
        return {outcome.name: outcome for outcome in found} | self.drain(engine, len(tasks) - len(found))

    def drain(self, engine: Engine, number: int) -> dict[str, Outcome]:
        found: list[Outcome] = []
        _wait_until(lambda: found.extend(engine.poll()) or len(found) >= number, "not all tasks ended")
        return {outcome.name: outcome for outcome in found}

    def wait_for_log(self, engine: Engine, name: str, text: str, times: int = 1) -> None:
        def seen() -> bool:
            assert engine.poll() == []
            return self.log(name).exists() and self.log(name).read_text().count(text) >= times

        _wait_until(seen, f"{name} never said {text}")


# What every task of these tests can use: say something at once; wait for a file, and not for ever.
PRELUDE = """
import os, pathlib, signal, subprocess, sys, time
def say(*words): print(*words, flush=True)
def wait(path):
    end = time.monotonic() + 60
    while not pathlib.Path(path).exists() and time.monotonic() < end: time.sleep(0.05)
    assert pathlib.Path(path).exists(), path
"""


def _wait_until(condition: Callable[[], object], complaint: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """What workers on other nodes inherit: this source tree, and no token in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def ray_cluster(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes: one with two pretended GPUs, one without."""
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (pip install '.[ray]')")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", short)  # not pytest's folder: paths of sockets must be short
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path_factory.mktemp("ray") / "token"))
        head = {"num_cpus": 2, "num_gpus": 2, "_system_config": RAY_NOTICES_SOON, **RAY_MEMORY}
        cluster = utils.Cluster(initialize_head=True, head_node_args=head)
        cluster.second = cluster.add_node(num_cpus=1, **RAY_MEMORY)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def slurm_cluster(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real munged, slurmctld and slurmd. Two character devices that every machine has play the GPUs."""
    if missing := [program for program in SLURM_PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"Slurm is not installed (Debian: slurm-wlm, munge); missing: {', '.join(missing)}")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons are started as root here: run the tests as root, in a container for example")
    pytest.importorskip("submitit", reason="submitit is not installed (pip install '.[slurm]')")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    port = 20_000 + 2 * (os.getpid() % 6_000)  # two of its own for each test worker, none that the system hands out
    (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder, port=port, next_port=port + 1))
    devices = "".join(f"NodeName=localhost Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
    (folder / "gres.conf").write_text(devices)
    munged = ["munged", "--force", f"--socket={folder}/munge.sock", f"--key-file={key}", f"--seed-file={folder}/seed"]
    munged += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", "--foreground"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        processes = [subprocess.Popen(munged, stderr=subprocess.DEVNULL)]
        try:
            _wait_until((folder / "munge.sock").exists, "munged does not start")
            for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
                log = (folder / f"{command[0]}.out").open("wb")
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            _wait_until(_slurm_is_idle, f"Slurm does not start; see {folder}")
            yield folder
        finally:
            subprocess.run(["scancel", "--user=root"], check=False, capture_output=True)
            with suppress(AssertionError):  # a step without its controller would stay for ever
                _wait_until(lambda: not _slurm_says("squeue", "-h"), "jobs do not end", seconds=20)
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _slurm_is_idle() -> bool:
    return _slurm_says("sinfo", "-h", "-o", "%T") == "idle"


def _slurm_says(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module", params=["local", "ray", "slurm"])
def fixed(request: pytest.FixtureRequest, environment: None) -> tuple[str, dict[str, Any]]:
    """A kind of engine, and the settings that fit its cluster here. A cluster starts when the first test asks."""
    if request.param == "local":
        return "local", {}
    share = {"gpus_per_job": 1, "cpus_per_job": 1, "max_jobs": 8, "max_restarts": 0}
    if request.param == "ray":
        return "ray", share | {"address": request.getfixturevalue("ray_cluster").address}
    request.getfixturevalue("slurm_cluster")
    return "slurm", share | {"memory_gib_per_job": 1, "allocation_minutes": 5, "poll_seconds": 0.2}


@pytest.fixture
def bench(fixed: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Stops what the test has opened."""
    monkeypatch.setattr("runner.engines.process.GRACE_SECONDS", 3.0)
    bench = Bench(fixed[0], tmp_path, **fixed[1])
    yield bench
    for engine in bench.engines:
        engine.stop()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return _wait_until


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    return _is_alive
