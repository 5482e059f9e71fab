"""Has an arm collapsed? Detectors at every evaluation point, each with value, threshold, reply and why.

from_samples   what the responses show
from_training  what the training metrics show

No threshold is a published constant; they are registered before training (experiments/rules.py). A detector that is
silent proves nothing about what it does not look at.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.collapse.from_samples import SampleDetectors
from analysis.collapse.from_training import TrainingDetectors, flags
from analysis.collapse.readings import Detection
from analysis.ledger import Ledger
from analysis.statistics.bootstrap import Resamples

__all__ = ["Collapse", "collapse_of"]


@dataclass(frozen=True)
class Collapse:
    """One arm.

    Attributes:
        detections: of every detector.
        flags: what training itself flagged: rows with the flag up, and rows in all.
    """

    detections: tuple[Detection, ...]
    flags: dict[str, tuple[int, int]]


def collapse_of(ledger: Ledger, arm: str, resamples: Resamples) -> Collapse:
    """All detectors of one arm."""
    rules = ledger.rules.collapse
    seen = SampleDetectors(ledger, arm, resamples, rules).all()
    recorded = TrainingDetectors(ledger, arm, resamples, rules).all()
    return Collapse((*seen, *recorded), flags(ledger, arm))
