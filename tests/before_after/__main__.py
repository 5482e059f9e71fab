"""``python -m tests.before_after BEFORE AFTER [TABLE]``: does a change move a number that it should not?

BEFORE and AFTER are folders of the same sweep, made by two versions of the program on one machine in float32. The exit
code is 1 if a difference is not in the table, `one_address.yaml` unless another is given.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.before_after.compare import Table, compare_sweeps

MOST_FAULTS = 60
TABLE = Path(__file__).with_name("one_address.yaml")


def main(before: str, after: str, table: str = str(TABLE)) -> int:
    """Compare, and print what was found."""
    comparison = compare_sweeps(Path(before), Path(after), Table.read(Path(table)))
    for reason, number in sorted(comparison.excused.items()):
        print(f"{number:6d} differ: {reason}")
    print(f"{comparison.compared:6d} equal")
    for fault in comparison.faults[:MOST_FAULTS]:
        print(f"  {fault}")
    if comparison.faults:
        print(f"{len(comparison.faults)} differences that no rule names")
    return bool(comparison.faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
