"""Plant each fault in a copy of the project, run the tests that must notice it, and say which were not caught.

``python -m tests.planted_faults [--tree FOLDER] [--only WORD]``; some minutes. The tests must pass without the fault.
Exit codes: 0 every fault is caught; 1 one is not, or a test fails without any.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.planted_faults import Fault, faults

ROOT = Path(__file__).parents[2]
PROJECT = ("Makefile", "README.md", "pyproject.toml", "analysis", "conf", "experiments", "runner", "tests")
OURS = ("analysis", "conftest", "experiments", "runner", "tests")
HEAVY = ("pandas", "peft", "scipy.stats", "sklearn.linear_model", "torch", "transformers", "trl.trainer.dpo_trainer")


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted_faults", description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the project whose code and tests are tried")
    parser.add_argument("--only", default="", help="only faults with this word in them")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # a process with threads must not fork
    for name in HEAVY:  # once, and not for every fault
        importlib.import_module(name)
    chosen = [fault for fault in faults() if options.only in fault.fault]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        clean = _copy(options.tree, Path(folder) / "clean")
        if failed := _failed(clean, sorted({test for fault in chosen for test in fault.tests})):
            print("these fail without any fault:", *sorted(failed), sep="\n  ")
            return 1
        missed = [fault for fault in chosen if not _is_caught(fault, _copy(clean, Path(folder) / "faulty"))]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults are caught")
    return 1 if missed else 0


def _copy(tree: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in PROJECT:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(tree / name, folder / name)
    return folder


def _is_caught(fault: Fault, tree: Path) -> bool:
    fault.plant(tree)
    failed = _failed(tree, fault.tests)
    silent = [test for test in fault.tests if not any(node.startswith(test) for node in failed)]
    said = f"NOT CAUGHT by {', '.join(silent)}" if silent else f"caught by {min(failed)}"
    print(f"{fault.fault}: {said}", flush=True)
    return not silent


def _failed(tree: Path, tests: Sequence[str]) -> list[str]:
    """Node ids of the tests that fail in a process of their own, which has imported nothing of ours yet."""
    found = tree / "failed.json"
    sys.stdout.flush()
    if pid := os.fork():
        os.waitpid(pid, 0)
        return json.loads(found.read_text(encoding="utf-8")) if found.exists() else list(tests)
    try:
        os.chdir(tree)
        sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path) != ROOT)]
        os.environ["PYTHONPATH"] = str(tree)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        with (tree / "log.txt").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        failures = Failures()
        pytest.main(["-q", "-p", "no:cacheprovider", "--timeout=120", *tests], plugins=[failures])
        found.write_text(json.dumps(failures.nodes), encoding="utf-8")
    finally:
        os._exit(0)


class Failures:
    """A pytest plugin that remembers what failed, and what could not even be collected."""

    def __init__(self) -> None:
        self.nodes: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.nodes.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.nodes.append(report.nodeid)


if __name__ == "__main__":
    sys.exit(main())
