"""The flags of an arm, raised while it trains; what each means is in `experiments.training_signs`.

A flag asks for a look at the curve; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.training_signs import WINDOW, Sign, raised


class TrainingFlags:
    """Keeps as much of an arm's rows as its flags look at."""

    def __init__(self, signs: Sequence[Sign]) -> None:
        self._signs = signs
        self.rows: list[dict[str, float]] = []

    def with_flags(self, values: Mapping[str, float]) -> dict[str, float]:
        """A row and its flags."""
        self.rows.append(dict(values))
        del self.rows[WINDOW:-WINDOW]  # what came first, and what came last
        return {**values, **raised(self._signs, self.rows)}
