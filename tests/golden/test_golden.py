"""A change that should not alter numbers does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("traces", HERE / "traces.py")
assert spec is not None
assert spec.loader is not None
traces = importlib.util.module_from_spec(spec)
spec.loader.exec_module(traces)


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_twenty_updates_are_what_they_were(algorithm: str) -> None:
    expected = json.loads((HERE / f"{algorithm}.json").read_text())
    rows = traces.trace(algorithm)
    assert len(rows) == len(expected) == traces.NUM_UPDATES
    for number, (row, before) in enumerate(zip(rows, expected, strict=True), start=1):
        assert row == pytest.approx(before, rel=1e-9, abs=1e-12), f"{algorithm}, update {number}: see traces.py"


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_the_trace_is_of_a_policy_that_learns(algorithm: str) -> None:
    """A trace in which nothing moves would hold whatever is broken."""
    rows = json.loads((HERE / f"{algorithm}.json").read_text())
    name = {"ppo": "ppo/kl", "dpo": "dpo/reward_margin"}[algorithm]
    assert rows[0][name] == pytest.approx(0, abs=1e-6)
    assert rows[-1][name] > 0.05
    assert any(row["train/gradient_norm"] > traces.ARMS[algorithm].max_gradient_norm for row in rows)
    if algorithm == "ppo":
        assert any(row["ppo/clip_fraction"] > 0 for row in rows)
