"""What the driver sees of its jobs while they run: shown to a person, and kept in ``driver.json`` for others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.ledger.driver import DriverFile
from runner.ledger.reader import read_status
from runner.planning.graph import Job
from runner.watching.display import Display, Row, summary_line
from runner.watching.estimate import Left, Load, sweep_time_left, units_of

LOOK_SECONDS = 1.0
ESTIMATE_SECONDS = 10.0


class ProgressMonitor:
    """Looks at the running jobs now and then."""

    def __init__(self, display: Display, driver: DriverFile) -> None:
        self._display, self._driver = display, driver
        self._looked = self._estimated = float("-inf")
        self._most_at_once = 1  # an engine has at least as many slots as jobs that ran side by side
        self._left: Left | None = None

    def look(self, jobs: Mapping[str, Job], results: Mapping[str, Row], running: Sequence[Job]) -> None:
        """Show how it goes, unless that was done just now.

        Args:
            jobs: all, by label, in the plan's order.
            results: of those that have ended.
            running: those that are worked on, one of each process.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._most_at_once = max(self._most_at_once, len(running))
        statuses = {job.label: _current_status(job) for job in running}
        if self._looked - self._estimated >= ESTIMATE_SECONDS:
            self._estimated = self._looked
            loads = [_load(job, results.get(job.label), statuses.get(job.label)) for job in jobs.values()]
            self._left = sweep_time_left(loads, self._most_at_once)
        rows = [*results.values()]
        rows += [Row.of_status(label, status) for label, status in statuses.items()]
        rows += [Row(label, "waiting") for label in jobs if label not in results and label not in statuses]
        self._display.show(rows, summary_line(rows, self._left))
        self._driver.update(records(jobs, results, statuses), self._left.seconds if self._left else None)


def records(
    jobs: Mapping[str, Job], results: Mapping[str, Row], running: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """What ``driver.json`` says of the jobs that do not wait."""
    told = {
        label: {"state": result.state, "reason": result.text, "seconds": result.seconds}
        for label, result in results.items()
    }
    return told | {label: {"state": "running", "folder": str(jobs[label].folder)} for label in running}


def _current_status(job: Job) -> Mapping[str, Any]:
    """The status of this job's attempt; empty before it has written any."""
    status = read_status(job.folder)
    return status if status and (status.get("state"), status.get("identity")) == ("running", job.identity) else {}


def _load(job: Job, result: Row | None, status: Mapping[str, Any] | None) -> Load:
    units = units_of(job.rank, job.work.sampled, job.work.trained)
    needs = tuple(job.needs.values())
    if result is not None:
        worked = result.seconds if result.state in {"finished", "reused"} else None
        return Load(job.label, job.rank, needs, units, job.wide, worked, ended=True)
    seconds = None if status is None else float(status.get("seconds") or 0.0)
    return Load(job.label, job.rank, needs, units, job.wide, seconds, status=status)
