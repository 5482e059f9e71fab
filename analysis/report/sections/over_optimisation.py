"""Gold against proxy along training, as a picture."""

from __future__ import annotations

from analysis.report.section import MAIN, Section

SECTION = Section("Does the reward still mean what it should?", MAIN, 30)
