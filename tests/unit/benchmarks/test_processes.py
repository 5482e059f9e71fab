from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks import processes


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_last_line_counts_and_the_environment_says_how_many_threads(tmp_path: Path) -> None:
    code = "import os; print('noise'); print('{\"threads\": ' + os.environ['OMP_NUM_THREADS'] + '}')"
    measured = processes.run(python(code), tmp_path / "log", threads=3)
    assert measured["threads"] == 3
    assert measured["others_cores"] >= 0


def test_a_failure_carries_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(processes.MeasurementError, match="ValueError: too large"):
        processes.run(python("raise ValueError('too large')"), tmp_path / "log", threads=1)


def test_a_silent_failure_says_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(processes.MeasurementError, match="ended with 3"):
        processes.run(python("raise SystemExit(3)"), tmp_path / "log", threads=1)


@pytest.mark.parametrize(("cores", "said"), [(0.05, ""), (0.9, "; DISTURBED: other processes took 0.9 cores")])
def test_a_busy_machine_is_said(cores: float, said: str) -> None:
    assert processes.disturbance({"others_cores": cores}) == said
