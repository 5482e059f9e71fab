"""Invented sweeps, and what is made of them once a test run: reports and their figures."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from analysis import signoff
from analysis.ledger import Ledger
from analysis.ledger.load import load_ledger
from analysis.report import build, figures, files, render
from analysis.statistics.bootstrap import Resamples

Report = dict[str, Any]


def once_a_ledger(build_report: Callable[[Ledger], Report]) -> Callable[[Ledger], Report]:
    """Build the report of one and the same ledger once, and give every test a copy: it takes seconds.

    One and the same: its files, all of which are in the manifest, and what a test has changed of it in memory. A test
    that changes how a report is built calls `build_report.__wrapped__`.
    """
    built: dict[tuple[str, str], Report] = {}

    @wraps(build_report)
    def build(ledger: Ledger) -> Report:
        content = pickle.dumps((ledger.plan, ledger.samples, ledger.metrics, ledger.ranking))
        key = ledger.manifest.sha256, hashlib.sha256(content).hexdigest()
        if key not in built:
            built[key] = build_report(ledger)
        return copy.deepcopy(built[key])

    return build


class Noted(Mapping[str, Any]):
    """A report that remembers which of its keys were read, and what was there."""

    def __init__(self, content: Report) -> None:
        self.content, self.read = content, dict[str, str | None]()

    def text(self, key: str) -> str | None:
        return json.dumps(self.content[key]) if key in self.content else None

    def __getitem__(self, key: str) -> Any:
        self.read[key] = self.text(key)
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        self.read |= {key: self.text(key) for key in self.content}
        return iter(self.content)

    def __len__(self) -> int:
        return len(list(self))


def drawn_once() -> Callable[[str], dict[str, Any]]:
    """Draw reports that differ in nothing the figures read once: drawing takes most of the time of a page."""
    drawn: list[tuple[dict[str, str | None], dict[str, Any]]] = []

    def pictures(report: str) -> dict[str, Any]:
        noted = Noted(json.loads(report))
        for read, found in drawn:
            if all(noted.text(key) == text for key, text in read.items()):
                return found
        drawn.append((noted.read, figures.pictures(noted)))
        return drawn[-1][1]

    return pictures


# Before any test module imports them by name.
build.build_report = files.build_report = signoff.build_report = once_a_ledger(build.build_report)
render._pictures = cache(drawn_once())  # in a run of the program, the last report's are enough


def load_synthetic() -> ModuleType:
    """The ledger-maker beside this file (tests are no package, so it cannot be imported by name)."""
    name = "synthetic_sweep"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return load_synthetic()


@pytest.fixture(scope="session")
def alpaca_eval() -> Path:
    """Real annotation files. They lie beside the checkout and are not part of it (their licence is non-commercial)."""
    folder = Path(__file__).parents[3].parent / "shared" / "data" / "alpaca_eval"
    if not folder.is_dir():
        pytest.skip(f"needs published AlpacaEval annotations in {folder}; their licence keeps them out of the project")
    return folder


@pytest.fixture
def annotation_row() -> Callable[..., dict[str, Any]]:
    """One comparison in AlpacaEval's form; keywords replace what it says."""

    def make(number: int = 0, **changes: Any) -> dict[str, Any]:
        row = {
            "instruction": f"prompt {number}",
            "generator_1": "baseline",
            "generator_2": "model",
            "output_1": f"{number} baseline " + "b" * (20 + 7 * number % 90),
            "output_2": f"{number} model " + "m" * (20 + 11 * number % 90),
            "preference": 1.0 + (number % 3) / 2,
        }
        return {**row, **changes}

    return make


@pytest.fixture(scope="session")
def write_sweep(synthetic: ModuleType) -> Callable[..., Any]:
    """write_sweep(folder, {name: Arm}, num_prompts=…) -> a Sweep; one PPO and one DPO arm if none are given."""

    def write(folder: Path, arms: dict[str, Any] | None = None, **options: Any) -> Any:
        arms = arms or {"ppo": synthetic.Arm("ppo", (0.1, 0.2)), "dpo": synthetic.Arm("dpo", (0.05, 0.1))}
        sweep = synthetic.Sweep(folder, arms, **options)
        sweep.folder.mkdir()
        sweep.write()
        return sweep

    return write


@pytest.fixture
def make_sweep(tmp_path: Path, write_sweep: Callable[..., Any]) -> Callable[..., Any]:
    """`write_sweep` in the test's own folder."""
    return partial(write_sweep, tmp_path / "sweep")


@pytest.fixture
def make_ledger(make_sweep: Callable[..., Any]) -> Callable[..., Ledger]:
    return lambda *args, **options: load_ledger(make_sweep(*args, **options).folder)


@pytest.fixture
def resamples_for() -> Callable[[Ledger], Resamples]:
    def draw(ledger: Ledger) -> Resamples:
        seeds = max(len(ledger.seeds(arm)) for arm in ledger.arms)
        return Resamples.draw(np.random.default_rng(0), len(ledger.prompt_ids), seeds, num_resamples=400)

    return draw
