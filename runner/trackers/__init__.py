"""Trackers are sinks: the ledger feeds them each row after it is on disk, and nothing depends on them.

`Tracker` does nothing and is what ``tracker=none`` means; each back end is one module with one subclass. A tracker
that fails says so once, in one line, and is not asked again: training goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.records import Axes, SampleRow
from experiments.spec import WandbTracker
from runner.ledger.tracker import Tracker

if TYPE_CHECKING:
    from runner.ledger.jobfile import JobFile


class Guarded(Tracker):
    """A tracker whose failure is reported once and never reaches the job."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._inner = Tracker()
        self._attempt(lambda: setattr(self, "_inner", make()))

    def metrics(self, values: Mapping[str, float], axes: Axes, point: int | None) -> None:
        """Pass it on."""
        self._attempt(lambda: self._inner.metrics(values, axes, point))

    def samples(self, point: int, rows: Sequence[SampleRow]) -> None:
        """Pass it on."""
        self._attempt(lambda: self._inner.samples(point, rows))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._attempt(lambda: self._inner.summary(values))

    def close(self, exit_code: int) -> None:
        """Pass it on."""
        self._attempt(lambda: self._inner.close(exit_code))

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # whatever a client raises: the ledger has the row, the run goes on
            reason = str(error).partition("\n")[0]
            print(
                f"tracker switched off, the ledger goes on: {type(error).__name__}: {reason}",
                file=sys.stderr,
                flush=True,
            )
            self._inner = Tracker()


def make_tracker(job: JobFile, folder: Path, commit: str | None) -> Tracker:
    """The tracker that ``job.tracker`` asks for. Never raises.

    Args:
        job: what is tracked.
        folder: the job's folder; the tracker's files go below it.
        commit: of the code, if it is known.
    """
    settings = job.tracker
    if not isinstance(settings, WandbTracker):
        return Tracker()

    def start() -> Tracker:
        from runner.trackers.wandb import WandbRun  # the client takes most of a second to import

        return WandbRun(settings, job, folder, commit)

    return Guarded(start)
