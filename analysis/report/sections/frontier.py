"""What each arm bought for how far it moved, as a picture."""

from __future__ import annotations

from analysis.report.section import MAIN, Section

SECTION = Section("Gold for distance: the frontier", MAIN, 40)
