"""The sweep that is run once for all of these tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORKED = (sys.executable, "-m", "tests.chaos.forked")


@pytest.fixture(scope="session")
def forked_runner() -> tuple[str, ...]:
    """As ``python -m runner``, but its jobs are forked: for sweeps of another checkout, whose folder it starts in."""
    return FORKED


@pytest.fixture(scope="session")
def smoke_runner(forked: tuple[str, ...]) -> tuple[str, ...]:
    """The command of the runner for tests of whole sweeps: it is forked, as its jobs are. `test_smoke.py` starts all
    anew."""
    return *forked, "-m", "runner"


@pytest.fixture(scope="session")
def finished_sweep(once: Callable[..., Path]) -> Path:
    """A folder with the runs and the cache of `+sweep=smoke` that has come to its end. Not to be written in."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "tests.chaos", "--interruptions", "0", "--undisturbed", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return once("finished_sweep", build)


@pytest.fixture
def with_artifacts(finished_sweep: Path, tmp_path: Path) -> Path:
    """The test's folder, whose cache holds what the finished sweep has built: a sweep begins with its arms."""
    shutil.copytree(finished_sweep / "cache", tmp_path / "cache")
    return tmp_path
