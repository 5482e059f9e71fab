"""What a job does: the report is made by the analysis, and everything else is a stage of `experiments`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from experiments.spec import ReportJobSpec
from runner.ledger.jobfile import JobFile
from runner.ledger.reader import newest_report, read_json
from runner.ledger.reports import JSON, torn_files
from runner.ledger.writer import LedgerRecorder


def work(job: JobFile, folder: Path, recorder: LedgerRecorder) -> None:
    """Do the work of one job. Its results go to ``folder``, and everything that it records to ``recorder``."""
    match job.spec:
        case ReportJobSpec():
            make_report(folder, recorder)
        case spec:
            from experiments.inputs import planned
            from experiments.stages import run_stage

            needs = {role: Path(need.folder) for role, need in job.needs.items()}
            with planned.inputs(job.inputs, spec):
                run_stage(job.kind, spec, needs, folder, Path(job.cache_dir), recorder)


def make_report(folder: Path, recorder: LedgerRecorder) -> None:
    """Let the analysis write the report of the sweep that ``folder`` belongs to, in a process of its own.

    Raises:
        RuntimeError: the analysis failed, or a file that it wrote is damaged.
    """
    done = subprocess.run([sys.executable, "-m", "analysis", "report", str(folder.parent)], check=False)
    if done.returncode:
        raise RuntimeError(f"python -m analysis report {folder.parent} ended with exit code {done.returncode}")
    newest = newest_report(folder.parent)
    if torn := torn_files(newest):
        raise RuntimeError("; ".join(torn))
    report = read_json(newest / JSON)
    recorder.summary({"headline": report["headline"], **report["summary"]})
