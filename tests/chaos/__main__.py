"""Interrupt `+sweep=smoke` hundreds of times at random, and see that nothing is lost and no number is wrong.

``make chaos``, or ``python -m tests.chaos [--interruptions N] [--seed N] [--minutes N]``. A few sweeps are struck many
times each and started again by the same command until they end well. Then every number of the report but times and
memory (`tests.chaos.outcome.NOT_COMPARED`), every metrics row, every weight and every sample must equal an undisturbed
sweep's, and no job that had finished may have been begun again. Exit codes: 0 all is well; 1 something is lost or
wrong, or the time did not suffice. A sweep that went wrong stays in a folder, which is named, as is the seed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos import forked, outcome
from tests.chaos.damage import damage
from tests.chaos.life import ANY_TIME, Life, live
from tests.chaos.strikes import BOTH, DRIVER, INT, INT_TWICE, JOB, TERM, WEIGHTS, Size, watch_files

PER_SWEEP = 30  # interruptions; then the sweep may end
SHARE_DAMAGED = 0.4  # of the interruptions, a file is damaged too before the sweep is started again
SHARE_AT_ONCE = 0.5  # of the others after which jobs live on for a moment, the sweep is started again at once
SIZES = "sizes.json"  # of an undisturbed sweep's processes
EXIT_CODES = {  # that a struck driver may end with: those of an interruption, or of a sweep that came to its end before
    None: {0},
    JOB: {0, 1},
    DRIVER: {-9, 0},
    BOTH: {-9, 0},
    TERM: {130, -15, 0},
    INT: {130, 0},
    INT_TWICE: {130, 0},
}


@dataclass
class Disturbed:
    """One sweep and all that was done to it."""

    root: Path
    strikes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, at what)
    damages: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interruptions", type=int, default=300, help="at least so many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of who is struck, how and when (%(default)s)")
    parser.add_argument("--minutes", type=float, default=45, help="then no new sweep begins (%(default)s)")
    parser.add_argument("--undisturbed", type=Path, help="folder of the undisturbed sweep; is made if it is empty")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what is buffered at a fork would be said twice
    began, console = time.monotonic(), Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    forked.load()
    forked.fork_jobs()
    watch_files()
    console.print(f"seed {options.seed}, in {folder}")
    expected, sizes = undisturbed(options.undisturbed or folder / "undisturbed")
    console.print(f"an undisturbed sweep: {sizes[''].seconds:.0f} s, {len(sizes) - 1} processes of jobs")
    sweeps: list[Disturbed] = []
    while (left := options.interruptions - _total(sweeps)) > 0 and time.monotonic() - began < 60 * options.minutes:
        sweep = disturb(folder / f"sweep_{len(sweeps)}", f"{options.seed}/{len(sweeps)}", left, sizes, expected)
        sweeps.append(sweep)
        console.print(
            f"sweep {len(sweeps)}: {sweep.strikes.total()} interruptions, {sweep.damages.total()} damaged files, "
            f"{sweep.starts} starts, {time.monotonic() - began:.0f} s: {'; '.join(sweep.wrong) or 'all equal'}",
            markup=False,
        )
        if not sweep.wrong:
            shutil.rmtree(sweep.root)
    return _sum_up(console, sweeps, options.interruptions, folder, time.monotonic() - began)


def undisturbed(root: Path) -> tuple[dict[str, Any], dict[str, Size]]:
    """A sweep's numbers, and how large its processes are.

    Raises:
        RuntimeError: it does not end well even so.
    """
    root.mkdir(exist_ok=True)
    if not (root / SIZES).exists():
        life = live(_overrides(root), root / "driver.log", None, "", {})
        if life.exit_code:
            log = root / "driver.log"
            raise RuntimeError(f"an undisturbed sweep ends with {life.exit_code}: {log}:\n{log.read_text()}")
        (root / SIZES).write_text(json.dumps({name: asdict(size) for name, size in life.sizes.items()}))
    sizes = json.loads((root / SIZES).read_text())
    return outcome.numbers(root), {name: Size(**size) for name, size in sizes.items()}


def disturb(root: Path, seed: str, left: int, sizes: dict[str, Size], expected: dict[str, Any]) -> Disturbed:
    """Strike one sweep again and again, start it again and again, and compare what it comes to."""
    root.mkdir()
    sweep, source = Disturbed(root), random.Random(seed)
    while not sweep.wrong:
        struck = sweep.strikes.total() < min(left, PER_SWEEP)
        kind = source.choices(list(WEIGHTS), list(WEIGHTS.values()))[0] if struck else None
        before = outcome.finished(root)
        harmed = source.random() < SHARE_DAMAGED
        wait = harmed or source.random() > SHARE_AT_ONCE
        try:
            life = live(_overrides(root), root / "driver.log", kind, f"{seed}/{sweep.starts}", sizes, wait)
        except TimeoutError as error:
            sweep.wrong.append(f"after {kind or 'no interruption'} {error}")
            break
        sweep.starts += 1
        sweep.strikes.update(life.strikes)
        sweep.wrong += _wrong(root, kind, life, before)
        if life.exit_code == 0:
            break
        if harmed and life.strikes:
            sweep.damages.update(filter(None, [damage(root, source)]))
    if not sweep.wrong:
        sweep.wrong += list(outcome.differences(outcome.numbers(root), expected))
    return sweep


def _wrong(root: Path, kind: str | None, life: Life, before: outcome.Finished) -> Iterator[str]:
    """What must not happen in one life."""
    if life.exit_code not in EXIT_CODES[kind]:
        yield f"after {kind or 'no interruption'} the driver ended with {life.exit_code}"
    yield from outcome.failures(root)
    yield from outcome.repeated(before, root)


def _overrides(root: Path) -> list[str]:
    return ["+sweep=smoke", "tracker=none", f"runs_dir={root / 'runs'}", f"cache_dir={root / 'cache'}"]


def _total(sweeps: list[Disturbed]) -> int:
    return sum(sweep.strikes.total() for sweep in sweeps)


def _sum_up(console: Console, sweeps: list[Disturbed], wanted: int, folder: Path, seconds: float) -> int:
    strikes = sum((sweep.strikes for sweep in sweeps), Counter[tuple[str, str]]())
    damages = sum((sweep.damages for sweep in sweeps), Counter[str]())
    wrong = [sweep for sweep in sweeps if sweep.wrong]
    table = Table("interruption", "at a file operation", "at any time", "in all", "outcome")
    verdict = "nothing lost, no wrong number" if not wrong else "see below"
    for kind in WEIGHTS:
        at_any_time = strikes[kind, ANY_TIME]
        total = sum(count for (struck, _), count in strikes.items() if struck == kind)
        table.add_row(kind, str(total - at_any_time), str(at_any_time), str(total), verdict)
    for what, count in sorted(damages.items()):
        table.add_row(f"damaged then: {what}", "", "", str(count), verdict)
    console.print(table)
    total, starts = strikes.total(), sum(sweep.starts for sweep in sweeps)
    console.print(f"{total} interruptions in {len(sweeps)} sweeps, {starts} starts, {seconds:.0f} s")
    for sweep in wrong:
        console.print(f"{sweep.root}: {len(sweep.wrong)} wrong, the first: {sweep.wrong[0]}", markup=False)
    if total < wanted:
        console.print(f"the time did not suffice for {wanted}")
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong or total < wanted else 0


if __name__ == "__main__":
    sys.exit(main())
