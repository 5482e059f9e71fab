from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from analysis.ledger import Ledger
from analysis.ledger.load import load_ledger
from analysis.statistics.bootstrap import Resamples


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
