"""The flags that an arm raises while it trains. `experiments.training_signs` says what each means.

A flag asks people to look at the curve; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.training_signs import WINDOW, Sign, raised


class TrainingFlags:
    """Raises flags, and keeps the rows of an arm that they depend on: the first and the latest."""

    def __init__(self, signs: Sequence[Sign]) -> None:
        self._signs = signs
        self.rows: list[dict[str, float]] = []

    def with_flags(self, values: Mapping[str, float]) -> dict[str, float]:
        """The new row with its flags."""
        self.rows.append(dict(values))
        del self.rows[WINDOW:-WINDOW]
        return {**values, **raised(self._signs, self.rows)}
