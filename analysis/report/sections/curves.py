"""Learning curves, at the axis that the reader chooses."""

from __future__ import annotations

from analysis.report.figures import recorded_axes
from analysis.report.section import MAIN, Section

SECTION = Section("Learning curves", MAIN, 50, lambda report, signed: {"axes": recorded_axes(report)})
