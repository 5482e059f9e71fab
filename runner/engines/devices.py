"""What this machine has to hand out: GPUs, cores and free memory.

A GPU has several names (an index, a UUID, any unique beginning of the UUID); a MIG device has a UUID of its own. Jobs
are handed the name as it was inherited, and two runners agree on who owns the device by its full UUID, which
``nvidia-smi`` knows. Where there is no ``nvidia-smi``, names are taken as they are: two runners then have to use the
same ones. torch is never imported for this: counting GPUs would take memory on each of them.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from experiments.errors import InputError

MIB = 2**20
ASK_SECONDS = 3.0
CGROUP = Path("/sys/fs/cgroup")  # version 2, as it looks from within a container


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG device."""

    token: str  # what a process finds in CUDA_VISIBLE_DEVICES
    key: str  # the same for every name of the device: its full UUID, or the token where that is not known


@dataclass(frozen=True)
class Gpu:
    """A line of ``nvidia-smi -L``, with those below it."""

    index: str
    model: str
    uuid: str
    mig_uuids: tuple[str, ...] = ()


def visible_devices(environment: Mapping[str, str]) -> list[Device]:
    """GPUs to hand out: those of the inherited CUDA_VISIBLE_DEVICES, else all that ``nvidia-smi`` lists.

    As in CUDA itself, an empty list means none and a ``-1`` ends the list.

    Raises:
        InputError: a name stands for no GPU, for several, for the same as another one, or for one that is cut into MIG
            devices; or indices mean one thing to CUDA and another to ``nvidia-smi``.
    """
    installed = installed_gpus()
    inherited = environment.get("CUDA_VISIBLE_DEVICES")
    if inherited is None:
        return [Device(uuid, uuid) for gpu in installed for uuid in gpu.mig_uuids or (gpu.uuid,)]
    tokens = [token.strip() for token in inherited.split(",")]
    tokens = [token for token in tokens[: tokens.index("-1") if "-1" in tokens else None] if token]
    if not installed:
        return [Device(token, token) for token in dict.fromkeys(tokens)]
    if any(token.isdigit() for token in tokens):
        _check_order(installed, environment, inherited)
    devices = [Device(token, _key(token, installed)) for token in tokens]
    for number, device in enumerate(devices):
        if twin := next((other for other in devices[:number] if other.key == device.key), None):
            raise InputError(f"CUDA_VISIBLE_DEVICES={inherited}: {twin.token} and {device.token} are the same device")
    return devices


def installed_gpus() -> list[Gpu]:
    """What ``nvidia-smi -L`` lists; nothing where it is missing or its driver does not answer."""
    gpus: list[Gpu] = []
    for line in _nvidia_smi("-L"):
        if gpu := re.match(r"GPU (\d+): (.*?) \(UUID: (GPU-[^)]+)\)", line):
            gpus.append(Gpu(gpu[1], gpu[2], gpu[3]))
        elif gpus and (mig := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)):
            last = gpus.pop()
            gpus.append(Gpu(last.index, last.model, last.uuid, (*last.mig_uuids, mig[1])))
    return gpus


class FreeMemory:
    """How much memory a device has left, asked at most every few seconds: ``nvidia-smi`` may take one."""

    def __init__(self) -> None:
        self._gpus: dict[str, int] = {}
        self._asked = -math.inf

    def __call__(self, key: str) -> int | None:
        """Bytes free on the device with this key, or of main memory for ""; None where nobody knows."""
        if not key:
            return free_memory_bytes()
        if time.monotonic() - self._asked > ASK_SECONDS:
            self._gpus, self._asked = free_gpu_bytes(), time.monotonic()
        return self._gpus.get(key)


def free_gpu_bytes() -> dict[str, int]:
    """UUID → free memory of every whole GPU, bytes. ``nvidia-smi`` does not say it of MIG devices."""
    found = {}
    for line in _nvidia_smi("--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"):
        uuid, _, free = line.partition(",")
        if free.strip().isdigit():
            found[uuid.strip()] = int(free) * MIB
    return found


def free_memory_bytes() -> int:
    """Main memory that a new process could take without swapping, within the limit of the container, bytes."""
    free = int(psutil.virtual_memory().available)
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(0, limit - used + _reclaimable_bytes()))


def available_cores() -> int:
    """Cores that this process may use: its affinity, and no more than the processor time its container gets."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return cores


def _key(token: str, installed: Sequence[Gpu]) -> str:
    """The full UUID of the one device that ``token`` names."""
    by_name = [gpu for gpu in installed if (gpu.index == token if token.isdigit() else gpu.uuid.startswith(token))]
    migs = [uuid for gpu in installed for uuid in gpu.mig_uuids if uuid.startswith(token)]
    if len(by_name) + len(migs) != 1:
        if token.startswith("MIG-") and not migs:
            return token  # MIG-GPU-<uuid>/<instance>/<instance>, as drivers before 470 name them
        count = "several GPUs begin" if by_name or migs else "no GPU begins"
        what = "there is no such GPU" if token.isdigit() else f"{count} with it"
        raise InputError(f"CUDA_VISIBLE_DEVICES: {token}: {what}; nvidia-smi lists {_listing(installed)}")
    if by_name and by_name[0].mig_uuids:
        raise InputError(
            f"CUDA_VISIBLE_DEVICES: {token} is cut into MIG devices; name those: {', '.join(by_name[0].mig_uuids)}"
        )
    return by_name[0].uuid if by_name else migs[0]


def _check_order(installed: Sequence[Gpu], environment: Mapping[str, str], inherited: str) -> None:
    """CUDA counts the fastest GPU first unless told otherwise, nvidia-smi by bus; among equals both agree."""
    models = sorted({gpu.model for gpu in installed})
    if len(models) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise InputError(
            f"CUDA_VISIBLE_DEVICES={inherited}: with GPUs of different models ({', '.join(models)}) an index means one "
            "GPU to CUDA and another to nvidia-smi; set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID: "
            + _listing(installed)
        )


def _listing(installed: Sequence[Gpu]) -> str:
    return ", ".join(f"{gpu.index} = {gpu.uuid}" for gpu in installed)


def _nvidia_smi(*arguments: str) -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return None


def _reclaimable_bytes() -> int:
    """Memory that counts as the container's but is given up when somebody needs it: files read and not in use."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, StopIteration, IndexError):
        return 0
