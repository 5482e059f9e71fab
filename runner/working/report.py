"""The report as a job: the analysis is a process of its own, and its result goes to the tracker as one more run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runner.ledger.reader import newest_report, read_json
from runner.ledger.reports import JSON, torn_files
from runner.ledger.tracker import Tracker


def make_report(folder: Path, tracker: Tracker) -> None:
    """Have the analysis write the report of the sweep that ``folder`` belongs to.

    Raises:
        RuntimeError: the analysis failed, or what it wrote is not whole.
    """
    done = subprocess.run([sys.executable, "-m", "analysis", "report", str(folder.parent)], check=False)
    if done.returncode:
        raise RuntimeError(f"python -m analysis report {folder.parent} ended with exit code {done.returncode}")
    newest = newest_report(folder.parent)
    if torn := torn_files(newest):
        raise RuntimeError("; ".join(torn))
    report = read_json(newest / JSON)
    tracker.summary({"headline": report["headline"], **report["summary"]})
