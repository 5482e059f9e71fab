"""The same prompts answered by every arm."""

from __future__ import annotations

from analysis.report.section import MAIN, Section

SECTION = Section("Samples side by side", MAIN, 70)
