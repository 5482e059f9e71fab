from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from experiments.spec import RunSpec
from runner.__main__ import compose
from runner.plan import Plan, make_plan


@cache
def smoke(*overrides: str) -> tuple[RunSpec, ...]:
    """The smoke sweep as Hydra composes it; composing takes most of a second, so each variant is composed once."""
    return tuple(compose(["+sweep=smoke", "tracker=none", *overrides]))


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., list[RunSpec]]:
    """The smoke sweep with overrides, in a folder of its own."""
    folders = {"runs_dir": f"{tmp_path}/runs", "cache_dir": f"{tmp_path}/cache"}

    def make(*overrides: str) -> list[RunSpec]:
        return [run.model_copy(update=folders) for run in smoke(*overrides)]

    return make


@pytest.fixture
def planned(composed: Callable[..., list[RunSpec]]) -> Callable[..., Plan]:
    def make(*overrides: str) -> Plan:
        return make_plan(composed(*overrides))

    return make
