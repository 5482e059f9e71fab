"""The committed list of faults still fits the code and its tests; `python -m tests.planted_faults` tries them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.planted_faults import Fault, faults

ROOT = Path(__file__).parents[2]


def test_there_are_enough_of_them() -> None:
    assert len({fault.fault for fault in faults()}) == len(faults()) >= 20


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.fault)
def test_its_place_and_its_tests_are_there(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.text) == 1
    assert fault.instead != fault.text
    for test in fault.tests:
        file, name = re.fullmatch(r"(.+?)::(?:\w+::)?(\w+)(?:\[.+\])?", test).groups()  # type: ignore[union-attr]
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), test
