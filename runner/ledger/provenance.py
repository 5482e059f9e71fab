"""Where a result comes from: code, versions, inputs and hardware. Never the whole environment, never keys."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.ledger.reader import read_small_json

PROVENANCE = "provenance.json"  # in a job's folder
OF_A_START = ("time", "git", "versions", "python", "platform", "hardware")  # the rest is the same for all of a job's
NAME = "ppo-dpo-runner"
PROJECT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scikit-learn", "wandb")


def provenance() -> dict[str, Any]:
    """Code, versions and hardware of this process, as JSON values."""
    return {
        "git": git_state(),
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": {
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or None,
            "gpus": visible_gpu_names(),
        },
    }


def earlier_starts(folder: Path) -> list[dict[str, Any]]:
    """What each earlier start of a job that resumes from a checkpoint ran on, oldest first.

    One whose record cannot be read is empty.
    """
    last = read_small_json(folder / PROVENANCE)
    if last is None:
        return [{}]
    before = last.get("earlier_starts")
    return [*(before if isinstance(before, list) else []), {key: last[key] for key in OF_A_START if key in last}]


def git_state() -> dict[str, Any] | None:
    """Commit (None before the first) and whether tracked files differ from it; None if this is no git checkout."""
    root = _output("git", "-C", str(PROJECT), "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != PROJECT.resolve():
        return None
    changes = _output("git", "-C", str(PROJECT), "status", "--porcelain", "--untracked-files=no")
    return {"commit": _output("git", "-C", str(PROJECT), "rev-parse", "--verify", "-q", "HEAD"), "dirty": bool(changes)}


def visible_gpu_names() -> list[str]:
    """Names of the GPUs that this process was given, as ``nvidia-smi`` calls them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or shutil.which("nvidia-smi") is None:
        return []
    only = ["-i", visible] if visible and "MIG" not in visible else []
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *only)
    return names.splitlines() if names else []


def project_version() -> str:
    """Name and version of this program, as its own ``pyproject.toml`` says or, installed without it, its metadata."""
    file = PROJECT / "pyproject.toml"
    version = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"] if file.is_file() else None
    return f"{NAME} {version or _version(NAME) or 'of unknown version'}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _output(*command: str) -> str | None:
    """What a command prints, or None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
