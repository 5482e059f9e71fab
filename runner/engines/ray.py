"""Tasks of a Ray cluster (Ray core, no Tune): each worker starts the same command as every other engine.

Torch lives in the child process, so a worker stays small and gives GPU memory back. A lost node or worker is Ray's to
repeat (`max_retries`): the job then goes on from its last checkpoint. An exit code is an answer and never repeated.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from experiments import spec
from experiments.errors import InputError
from runner.engines import GIB, LATE_SECONDS, PATIENCE_VARIABLE, Outcome, Task
from runner.engines.process import GRACE_SECONDS, POLL_SECONDS, Process, slot_environment

OBJECT_STORE_BYTES = 80 * 2**20  # of a cluster that we start; only small messages pass through it
CONNECT_SECONDS = 10.0
ASK_AGAIN_SECONDS = 5.0  # a request to cancel may be lost while a worker is just beginning
PROBE_SECONDS = 60.0
OF_THE_MACHINE = ("RAY_", "CUDA_VISIBLE_DEVICES", "HOSTNAME", "TMPDIR")  # not taken from the driver's environment


class RayEngine:
    """Tasks of one cluster, in the order in which they were started as far as Ray has room."""

    late_seconds = LATE_SECONDS

    def __init__(self, settings: spec.RayEngine, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._running: dict[str, ray.ObjectRef[Outcome]] = {}
        self._marks: dict[str, Path] = {}  # by task: a file that asks its worker to end it
        self._asked: dict[str, float] = {}  # when a running task was last asked to end

    def describe(self) -> str:
        """The cluster, and each job's share of it."""
        its = self._settings
        where = f"the Ray cluster at {its.address}" if its.address else "a Ray cluster on this machine"
        share = f"CPUs each: {its.cpus_per_job}, GPUs: {its.gpus_per_job:g}"
        return f"at most {its.max_jobs} jobs at a time on {where}, {share}"

    def open(self) -> None:
        """Connect, and make sure that every node with room for a job sees the sweep's folder."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        address = self._settings.address
        try:
            if address and ":" in address:  # Ray itself would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else own))
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise InputError(f"engine.address={address}: no Ray cluster answers: {_first_line(error)}") from None
        self._check_nodes()

    def can_take(self, task: Task) -> bool:
        """Whether fewer than `max_jobs` are with the cluster."""
        return len(self._running) < self._settings.max_jobs

    def start(self, task: Task) -> None:
        """Hand the task to Ray."""
        remote = ray.remote(work).options(
            name=task.name,
            num_cpus=self._settings.cpus_per_job,
            num_gpus=self._settings.gpus_per_job,
            memory=self._memory(task) or None,
            max_retries=self._settings.max_restarts,
        )
        self._marks[task.name] = _mark(task)
        _remove(self._marks[task.name])
        environment = {key: value for key, value in os.environ.items() if not key.startswith(OF_THE_MACHINE)}
        self._running[task.name] = remote.remote(task, environment, str(Path.cwd()), self._settings.cpus_per_job)

    def poll(self) -> list[Outcome]:
        """Collect what has ended, each by itself: one lost task says nothing of the others."""
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running.values()), num_returns=len(self._running), timeout=0)
        ended = [name for name, reference in self._running.items() if reference in ready]
        outcomes = [_outcome(name, self._running.pop(name)) for name in ended]
        for name in ended:
            _remove(self._marks.pop(name))
        for name, when in list(self._asked.items()):
            if name not in self._running:
                del self._asked[name]
            elif time.monotonic() - when > ASK_AGAIN_SECONDS:
                self.cancel(name)
        return outcomes

    def cancel(self, name: str) -> None:
        """Interrupt the worker, which then ends its process; a file says so too, because Ray may lose a request."""
        if name in self._running:
            self._asked[name] = time.monotonic()
            with suppress(OSError):
                self._marks[name].touch()
            ray.cancel(self._running[name], force=False)

    def stop(self) -> None:
        """Cancel everything, wait, and leave the cluster; one that we started ends with it."""
        if not ray.is_initialized():
            return
        for name in self._running:
            self.cancel(name)
        deadline = time.monotonic() + 2 * GRACE_SECONDS
        with suppress(KeyboardInterrupt):
            while self._running and time.monotonic() < deadline:
                self.poll()
                time.sleep(0.1)
        self._running.clear()
        ray.shutdown()

    def _memory(self, task: Task) -> int:
        """To reserve, bytes: as set, or as measured, which is not done beside a GPU.

        A task that wants more than any node has would wait for ever, so it gets all that the largest has.
        """
        its = self._settings
        asked = its.memory_gib_per_job * GIB if its.memory_gib_per_job else 0 if its.gpus_per_job else task.needed_bytes
        return min(asked, max((int(node["Resources"].get("memory", 0)) for node in self._nodes()), default=0))

    def _nodes(self) -> list[dict[str, Any]]:
        """Those with room for a job."""
        return [node for node in ray.nodes() if node["Alive"] and self._fits(node["Resources"])]

    def _check_nodes(self) -> None:
        nodes, its = self._nodes(), self._settings
        if not nodes:
            raise InputError(
                "no node of the Ray cluster has room for a job with "
                f"engine.cpus_per_job={its.cpus_per_job} engine.gpus_per_job={its.gpus_per_job:g} "
                f"engine.memory_gib_per_job={its.memory_gib_per_job or 'null'}"
            )
        nonce = self._folder / f".ray_{uuid.uuid4().hex}"
        nonce.touch()
        try:
            blind = [node["NodeManagerHostname"] for node in nodes if not _sees(node["NodeID"], nonce)]
        finally:
            nonce.unlink()
        if blind:
            raise InputError(
                f"{self._folder} is not to be seen on {', '.join(blind)}, or this program is not installed there: "
                "a Ray cluster needs both on a file system that its nodes share"
            )

    def _fits(self, resources: Mapping[str, float]) -> bool:
        its = self._settings
        share = {"CPU": its.cpus_per_job, "GPU": its.gpus_per_job, "memory": (its.memory_gib_per_job or 0) * GIB}
        return all(resources.get(name, 0) >= amount for name, amount in share.items())


def work(task: Task, environment: Mapping[str, str], folder: str, threads: int) -> Outcome:
    """What a worker does. Ray has put the task's GPUs, if any, into its environment.

    Args:
        task: what to start.
        environment: the driver's.
        folder: the driver's working folder, which relative paths are meant from.
        threads: for the task.
    """
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "") if ray.get_gpu_ids() else ""
    own = slot_environment({**os.environ, **environment}, device, threads) | {PATIENCE_VARIABLE: str(LATE_SECONDS)}
    mark, process = _mark(task), Process(task, own, folder)
    while True:
        try:
            while (outcome := process.poll()) is None:
                if _is_there(mark):
                    process.end("cancelled")
                time.sleep(POLL_SECONDS)
            return outcome
        except KeyboardInterrupt:  # this is how `ray.cancel` reaches a worker, more than once where it asks again
            process.end("cancelled")


def _mark(task: Task) -> Path:
    return task.log.with_name(f".{task.log.name}.cancel")


def _is_there(mark: Path) -> bool:
    with suppress(OSError):  # a share may fail for a moment, which is no reason to leave the process alone
        return mark.exists()
    return False


def _remove(mark: Path) -> None:
    with suppress(OSError):
        mark.unlink()


def _sees(node: str, path: Path) -> bool:
    """Whether a worker on the node can be started and finds the path; a node that is lost meanwhile is no obstacle."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        asked = ray.remote(_exists).options(num_cpus=0, scheduling_strategy=here).remote(path)
        return bool(ray.get(asked, timeout=PROBE_SECONDS))
    except (RayTaskError, GetTimeoutError):
        return False
    except RayError:
        return True


def _exists(path: Path) -> bool:
    return path.exists()


def _outcome(name: str, reference: ray.ObjectRef[Outcome]) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
        return outcome
    except TaskCancelledError:
        return Outcome(name, None, "cancelled")
    except RayTaskError as error:
        return Outcome(name, None, "not_started", _last_line(error))
    except OutOfMemoryError as error:  # its node was short of memory, and Ray killed the worker
        return Outcome(name, None, "out_of_memory", _first_line(error))
    except RayError as error:
        return Outcome(name, None, "node_lost", f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
