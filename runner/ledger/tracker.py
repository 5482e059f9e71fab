"""What the ledger tells a tracker. The back ends are in `runner.trackers`; here is what they all are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.records import Axes, SampleRow


class Tracker:
    """A tracker that does nothing: it is what ``tracker=none`` means, and the base of the others."""

    def metrics(self, values: Mapping[str, float], axes: Axes, point: int | None) -> None:
        """One metrics row with its axes."""

    def samples(self, point: int, rows: Sequence[SampleRow]) -> None:
        """The samples of one evaluation point."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Numbers and texts that stand for the whole run."""

    def close(self, exit_code: int) -> None:
        """The job has ended."""
