from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from analysis.ledger import Ledger
from analysis.report import schema
from analysis.report.build import build_report
from analysis.report.files import ReportError, parse_report


@pytest.fixture
def report(make_ledger: Callable[..., Ledger]) -> dict[str, Any]:
    return build_report(make_ledger())


def test_the_page_says_what_the_schema_says() -> None:
    """Else: python -m analysis.report.schema > analysis/report/SCHEMA.md."""
    assert (Path(schema.__file__).parent / "SCHEMA.md").read_text(encoding="utf-8") == schema.page()


def test_a_report_comes_back_as_it_was_written(report: dict[str, Any]) -> None:
    assert parse_report(json.dumps(report).encode()) == report


def missing(report: dict[str, Any]) -> None:
    del report["arms"][0]["measure"]["unit"]


def unknown(report: dict[str, Any]) -> None:
    report["arms"][0]["gold"] = 1.0


def mistyped(report: dict[str, Any]) -> None:
    report["decision"]["headline"] = 7


@pytest.mark.parametrize(
    ("damage", "key"), [(missing, "arms.0.measure.unit"), (unknown, "arms.0.gold"), (mistyped, "decision.headline")]
)
def test_a_report_of_another_form_is_refused_by_its_key(
    report: dict[str, Any], damage: Callable[[dict[str, Any]], None], key: str
) -> None:
    other = deepcopy(report)
    damage(other)
    with pytest.raises(ReportError, match=rf"^report\.json: {key}: "):
        parse_report(json.dumps(other).encode())


def test_a_report_of_an_older_schema_is_refused_in_one_sentence(report: dict[str, Any]) -> None:
    with pytest.raises(ReportError, match=r"^report\.json is no report with schema 2, which this version reads$"):
        parse_report(json.dumps(report | {"schema": 1}).encode())
