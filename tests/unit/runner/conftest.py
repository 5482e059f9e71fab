from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from experiments.spec import RunSpec, start_of
from runner.__main__ import compose
from runner.plan import Plan, make_plan


@cache
def smoke(*overrides: str) -> tuple[RunSpec, ...]:
    """The smoke sweep as Hydra composes it; composing takes most of a second, so each variant is composed once."""
    return tuple(compose(["+sweep=smoke", "tracker=none", *overrides]))


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., list[RunSpec]]:
    """The smoke sweep with overrides, in a folder of its own; with its staged arm where that is asked for."""
    folders = {"runs_dir": f"{tmp_path}/runs", "cache_dir": f"{tmp_path}/cache"}

    def make(*overrides: str, staged: bool = False) -> list[RunSpec]:
        runs = [run for run in smoke(*overrides) if staged or start_of(run.arm) is None]
        return [run.model_copy(update=folders) for run in runs]

    return make


@pytest.fixture
def planned(composed: Callable[..., list[RunSpec]]) -> Callable[..., Plan]:
    def make(*overrides: str, staged: bool = False) -> Plan:
        return make_plan(composed(*overrides, staged=staged))

    return make
