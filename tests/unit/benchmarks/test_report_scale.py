from __future__ import annotations

import pytest

from tests.benchmarks.report_scale import Cost, failures, steepening


def costs(*seconds: float, peak_bytes: int = 10**9) -> list[Cost]:
    return [Cost(rows, took, took, peak_bytes) for rows, took in zip((1000, 4000, 16000), seconds, strict=True)]


def test_linear_growth_with_a_fixed_part_is_linear():
    assert steepening(costs(5 + 1, 5 + 4, 5 + 16)) == pytest.approx(1)
    assert failures(costs(5 + 1, 5 + 4, 5 + 16)) == []


def test_quadratic_growth_is_noticed():
    assert steepening(costs(5 + 0.1, 5 + 1.6, 5 + 25.6)) == pytest.approx(4)
    assert failures(costs(5 + 0.1, 5 + 1.6, 5 + 25.6)) == ["missed: time grows 4.0 times as steeply as the rows"]


def test_time_and_memory_of_the_largest_count():
    assert failures(costs(10, 25, 61)) == ["missed: 61 s, at most 60"]
    assert failures(costs(10, 25, 50, peak_bytes=2_100_000_000)) == ["missed: 2.10 GB, at most 2"]
