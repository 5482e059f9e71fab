import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from experiments.spec import RunSpec
from runner.__main__ import compose
from runner.driving import execute as driver
from runner.driving.execute import execute
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot
from runner.planning import checks
from runner.planning.plan import Plan, make_plan
from runner.watching.display import Display

FAKE_JOB = Path(__file__).parent / "fake_job.py"


@pytest.fixture(scope="session", autouse=True)
def _asked_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """What passes of the packaged texts and the tiny model is asked once; each answer takes a process.

    A sweep remembers it in its cache, but nearly every test has a cache of its own. Files of a test are always read.
    """
    passed: dict[tuple[str, ...], subprocess.CompletedProcess[str]] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        question = json.loads(options["input"])
        question["run"] |= {"runs_dir": "", "cache_dir": "", "name": ""}
        key = (*command, json.dumps(question))
        if key in passed:
            return passed[key]
        done = subprocess.run([*request.getfixturevalue("forked"), *command[1:]], **options)
        if done.returncode == 0 and tempfile.gettempdir() not in key[-1]:
            passed[key] = done
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "subprocess", SimpleNamespace(run=run, CompletedProcess=subprocess.CompletedProcess))
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_waits() -> Iterator[None]:
    """The fake jobs take moments, so their driver looks more often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "POLL_SECONDS", 0.02)
        patch.setattr(driver, "LISTEN_SECONDS", 0.1)
        yield


@cache
def smoke(*overrides: str) -> tuple[RunSpec, ...]:
    """The smoke sweep as Hydra composes it; composing takes most of a second, so each variant is composed once."""
    return tuple(compose(["+sweep=smoke", "tracker=none", *overrides]))


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., list[RunSpec]]:
    """The smoke sweep with overrides, in a folder of its own; with its staged arm where that is asked for."""
    folders = {"runs_dir": f"{tmp_path}/runs", "cache_dir": f"{tmp_path}/cache"}

    def make(*overrides: str, staged: bool = False) -> list[RunSpec]:
        runs = smoke(*overrides) if staged else smoke("+arm=ppo,dpo", *overrides)
        return [run.model_copy(update=folders) for run in runs]

    return make


@pytest.fixture
def planned(composed: Callable[..., list[RunSpec]]) -> Callable[..., Plan]:
    def make(*overrides: str, staged: bool = False) -> Plan:
        return make_plan(composed(*overrides, staged=staged))

    return make


class Sweep:
    """Runs plans with the fake job and remembers what was seen."""

    def __init__(self, plan: Plan, devices: tuple[str, ...] = ("", "")) -> None:
        self.plan = plan
        self.devices = devices
        self.text = ""

    def run(self, **behaviour: str) -> int:
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        (self.plan.folder / "behaviour.json").write_text(json.dumps(behaviour))
        (self.plan.folder / "trace.jsonl").unlink(missing_ok=True)
        output = io.StringIO()
        engine = LocalEngine([Slot(device, 1) for device in self.devices], num_cores=2)
        display = Display(Console(file=output, width=200, highlight=False, markup=False))
        code = execute(self.plan, engine, display, (sys.executable, str(FAKE_JOB), str(self.plan.folder)))
        self.text = output.getvalue()
        return code

    def trace(self) -> list[dict[str, Any]]:
        path = self.plan.folder / "trace.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def started(self) -> list[str]:
        return [entry["label"] for entry in self.trace() if entry["event"] == "start"]


@pytest.fixture
def sweep_of() -> type[Sweep]:
    return Sweep
