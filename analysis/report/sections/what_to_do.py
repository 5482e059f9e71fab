"""What to do now, and what to run next."""

from __future__ import annotations

from analysis.report.section import FIRST, Section

SECTION = Section("What to do", FIRST, 10)
