from __future__ import annotations

import pytest

from analysis.report import cells

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("value", "unit", "signed", "expected"),
    [
        (61.234, "percent", False, f"61.2{NBSP}%"),
        (12.0, "percent", True, f"+12.0{NBSP}points"),
        (-3.16, "points", True, "−3.2"),
        (-0.001, "base SD", True, f"0.00{NBSP}SD"),
        (0.683, "share", False, f"68.3{NBSP}%"),
        (41.2, "seconds", False, f"41{NBSP}s"),
        (738.0, "seconds", False, f"12.3{NBSP}min"),
        (9000.0, "seconds", False, f"2.5{NBSP}h"),
        (2.5 * 2**30, "bytes", False, f"2.50{NBSP}GiB"),
        (1234567.0, "count", False, "1\u202f234\u202f567"),
    ],
)
def test_numbers_read_well(value, unit, signed, expected):
    assert cells.figure(value, unit, signed) == expected


def test_interval_has_the_precision_of_its_number():
    number = {"value": 0.5, "low": 0.448, "high": 0.553, "unit": "share", "n": 64}
    assert cells.cell(number) == cells.Cell(f"50.0{NBSP}%", "44.8 to 55.3")


def test_number_that_is_not_there_says_so():
    assert cells.cell(None).remark == "not recorded"
