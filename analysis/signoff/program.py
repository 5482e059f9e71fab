"""Which program this is: what decides the bytes of a report besides its ledger."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from threadpoolctl import threadpool_info

PROJECT = Path(__file__).parents[2]
SOURCES = (  # all that builds a report
    "analysis",
    "runner/ledger",
    "experiments/foreign.py",
    "experiments/records.py",
    "experiments/rules.py",
    "experiments/strict.py",
    "experiments/training_signs.py",
)
SUFFIXES = {".py", ".j2", ".css"}
LIBRARIES = ("numpy", "pandas", "scipy", "scikit-learn", "evalica")  # they compute its numbers


@cache
def program() -> str:
    """Version, SHA-256 of the code, versions of the libraries, and kind of processor, which moves last digits."""
    libraries = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    kernels = {str(pool.get("architecture", "")) for pool in threadpool_info() if pool.get("user_api") == "blas"}
    processor = " ".join([platform.machine(), *sorted(kernels - {""})])
    python = ".".join(platform.python_version_tuple()[:2])
    return f"version {_version('ppo-dpo-runner')}, code {_code()}, Python {python}, {libraries}, {processor}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _code() -> str:
    """SHA-256 over name and content of every source file."""
    found = (path for source in SOURCES for path in ((PROJECT / source).rglob("*"), [PROJECT / source]))
    files = {path for paths in found for path in paths if path.suffix in SUFFIXES}
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(PROJECT).as_posix(), path) for path in files):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
