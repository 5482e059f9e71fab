from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.before_after.compare import Comparison, Rule, Table, same

TABLE = Path(__file__).parents[1] / "before_after" / "one_address.yaml"


def rule(names: str, to: str = "") -> Rule:
    return Rule(re.compile(names), "because", to)


def compare(before: dict[str, object], after: dict[str, object], **rules: tuple[Rule, ...]) -> Comparison:
    comparison = Comparison(Table(**rules))
    comparison.add(before, after)
    return comparison


def test_a_renamed_number_is_equal_only_if_its_value_is() -> None:
    renamed = (rule("(.*)/gold", r"\1/measure"),)
    assert compare({"arm/gold": 0.5}, {"arm/measure": 0.5}, renamed=renamed).faults == []
    moved = compare({"arm/gold": 0.5}, {"arm/measure": 0.5000001}, renamed=renamed)
    assert moved.faults == ["arm/measure: 0.5 before, 0.5000001 after"]


def test_a_renamed_word_is_equal_only_if_the_table_translates_it_so() -> None:
    renamed = (Rule(re.compile("(.*)/status"), "because", r"\1/reply", {"ok": "no"}),)
    assert compare({"x/status": "ok"}, {"x/reply": "no"}, renamed=renamed).faults == []
    assert len(compare({"x/status": "ok"}, {"x/reply": "yes"}, renamed=renamed).faults) == 1


@pytest.mark.parametrize(
    ("before", "after", "kind"), [({"x": 1}, {}, "removed"), ({}, {"x": 1}, "added"), ({"x": 1}, {"x": 2}, "changed")]
)
def test_a_difference_is_excused_by_a_rule_of_its_kind_alone(
    before: dict[str, object], after: dict[str, object], kind: str
) -> None:
    assert len(compare(before, after).faults) == 1
    assert compare(before, after, **{kind: (rule("x"),)}).faults == []
    others = {"removed", "added", "changed"} - {kind}
    assert len(compare(before, after, **{other: (rule("x"),) for other in others}).faults) == 1
    assert len(compare(before, after, **{kind: (rule("x/y"),)}).faults) == 1  # a rule matches whole names


def test_two_old_names_must_not_become_one() -> None:
    merged = compare({"a": 1, "b": 2}, {"c": 2}, renamed=(rule("a|b", "c"),))
    assert merged.faults == ["two old names have one new name"]


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [(0.1, 0.1 + 1e-17, True), (float("nan"), float("nan"), True), (1.0, 1.0 + 1e-9, False), (None, 0.0, False)],
)
def test_numbers_are_equal_to_twelve_digits(before: object, after: object, equal: bool) -> None:
    assert same(before, after) is equal


def test_the_committed_table_can_be_read() -> None:
    table = Table.read(TABLE)
    assert table.renamed_leaf("samples/ppo/seed0/evaluation/point_1/p/1/0/gold", 0.5)[0].endswith("/score/gold")
    gain = table.renamed_leaf("report/arms/ppo/gold_difference/value", 0.5)
    assert gain == ("report/arms/ppo/measure_difference/value", 0.5)
    gate = table.renamed_leaf("report/gates/ppo/Gold/outcome", "pass")
    assert gate == ("report/gates/ppo/Measure/reply", "yes")
