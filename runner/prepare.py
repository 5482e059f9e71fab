"""``python -m runner.prepare RUN_DIR``: convert the base model of a job that will start soon.

A process of its own, so that it takes another core than the job that works meanwhile. Nothing depends on it: a job
whose model is not there, or is still being converted, converts it or waits.
"""

from __future__ import annotations

import sys
from pathlib import Path

from runner.ledger.jobfile import read_job_file


def main(folder: Path) -> None:
    """Prepare the model that the job in ``folder`` names, if it names one."""
    from experiments.collector import gc_disabled

    job = read_job_file(folder)
    if model := getattr(job.spec, "model", None):
        with gc_disabled():
            from experiments.inputs.models import prepare_model
        prepare_model(model, Path(job.cache_dir))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
