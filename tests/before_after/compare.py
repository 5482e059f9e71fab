"""Every sample, metric and number of report.json of one sweep, before and after a change that should move none.

A table says what may differ and why: renamed names, removed, added and changed numbers, and what varies from run to
run. Whatever else differs is a fault. A rule of the table that matches nothing is a fault as well, if it is meant for
the sweep: it may hide a number that went missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

TOLERANCE = 1e-12  # relative: both versions do the same arithmetic on the same machine
Leaves = dict[str, Any]
SIDES = ("arm", "opponent", "ppo", "dpo")  # of a contest, after and before
# Keys that say what an entry of a list in report.json is of.
TITLES = (
    "code",
    "metric",
    "arm",
    "name",
    "check",
    "artifact",
)


@dataclass(frozen=True)
class Rule:
    """Names that a regular expression matches as a whole, and why they may differ."""

    names: re.Pattern[str]
    reason: str
    to: str = ""  # the new name of a renamed one
    words: Mapping[str, str] = field(default_factory=dict)  # old -> new words of its value

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Rule:
        """From the table."""
        assert entry["reason"].strip(), f"{entry}: a rule needs a reason"
        return cls(re.compile(entry["names"]), entry["reason"], entry.get("to", ""), entry.get("words", {}))


@dataclass(frozen=True)
class Table:
    """What may differ."""

    renamed: tuple[Rule, ...] = ()
    removed: tuple[Rule, ...] = ()
    added: tuple[Rule, ...] = ()
    changed: tuple[Rule, ...] = ()
    varies: tuple[Rule, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Table:
        """Of a YAML file with one list a kind."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls(**{kind: tuple(Rule.of(entry) for entry in entries or ()) for kind, entries in content.items()})

    def renamed_leaf(self, name: str, value: Any) -> tuple[str, Any]:
        """What an old name, and a word under it, is called now: every renaming applies in turn."""
        for rule in self.renamed:
            if rule.names.fullmatch(name):
                name = rule.names.sub(rule.to, name)
                value = rule.words.get(value, value) if isinstance(value, str) else value
        return name, value


@dataclass
class Comparison:
    """What differs, and what did not need to."""

    table: Table
    faults: list[str] = field(default_factory=list)
    compared: int = 0
    excused: dict[str, int] = field(default_factory=dict)  # reason -> how many

    def add(self, before: Leaves, after: Leaves) -> None:
        """Compare the values of two flat dictionaries."""
        renamed = dict(self.table.renamed_leaf(*leaf) for leaf in before.items())
        if len(renamed) < len(before):
            self.faults.append("two old names have one new name")
        for name in sorted(renamed.keys() | after.keys()):
            if name not in after:
                self._excuse(name, self.table.removed, f"{name}: gone, was {_short(renamed[name])}")
            elif name not in renamed:
                self._excuse(name, self.table.added, f"{name}: new, {_short(after[name])}")
            elif not same(renamed[name], after[name]):
                told = f"{name}: {_short(renamed[name])} before, {_short(after[name])} after"
                self._excuse(name, self.table.changed, told)
            else:
                self.compared += 1

    def _excuse(self, name: str, rules: tuple[Rule, ...], fault: str) -> None:
        for rule in (*self.table.varies, *rules):
            if rule.names.fullmatch(name):
                self.excused[rule.reason] = self.excused.get(rule.reason, 0) + 1
                return
        self.faults.append(fault)


def same(before: Any, after: Any) -> bool:
    """Whether two values are equal; numbers to twelve digits, NaN and NaN."""
    if isinstance(before, float) and isinstance(after, float | int) and not isinstance(after, bool):
        both_missing = math.isnan(before) and math.isnan(after)
        return both_missing or math.isclose(before, after, rel_tol=TOLERANCE, abs_tol=1e-15)
    return bool(before == after)


def compare_sweeps(before: Path, after: Path, table: Table) -> Comparison:
    """Compare two sweep folders.

    Args:
        before: of the older version.
        after: of the newer one.
        table: what may differ.
    """
    comparison = Comparison(table)
    for read in (samples, metrics, report):
        comparison.add(read(before), read(after))
    return comparison


def samples(sweep: Path) -> Leaves:
    """Every cell of every sample: ``samples/FOLDER/POINT/PROMPT/STREAM/SAMPLE/COLUMN``."""
    found: Leaves = {}
    for path in sorted(sweep.rglob("samples/point_*.parquet")):
        name = f"samples/{path.parents[1].relative_to(sweep)}/{path.stem}"
        for row in pd.read_parquet(path).to_dict("records"):
            at = f"{name}/{row['prompt_id']}/{row['stream']}/{row['sample_id']}"
            found |= {f"{at}/{column}": value for column, value in row.items()}
    return found


def metrics(sweep: Path) -> Leaves:
    """Every number of every row: ``metrics/FOLDER/ROW/NAME``."""
    found: Leaves = {}
    for path in sorted(sweep.rglob("metrics.jsonl")):
        name = f"metrics/{path.parent.relative_to(sweep)}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            found |= {f"{name}/{number}/{key}": value for key, value in json.loads(line).items()}
    return found


def report(sweep: Path) -> Leaves:
    """Every leaf of report.json: ``report/KEY/KEY/…``; arms and other named things by their names."""
    content = json.loads((sweep / "report" / "report.json").read_text(encoding="utf-8"))
    return dict(_leaves(content, "report"))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}/{key}")
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, f"{name}/{_title(item, number)}")
    else:
        yield name, value


def _title(item: Any, number: int) -> str:
    """What an entry of a list is of, so that one more before it moves no other; else its place."""
    if not isinstance(item, dict):
        return str(number)
    sides = [item[key] for key in SIDES if isinstance(item.get(key), str)]
    if len(sides) > 1:
        return "_vs_".join(sides)
    entry = item["detector"] if isinstance(item.get("detector"), dict) else item
    named = next((key for key in TITLES if isinstance(entry.get(key), str)), None)
    return f"{number}" if named is None else str(entry[named])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
