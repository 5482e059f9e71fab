"""A runner for tests: the smoke sweep of fake jobs on the engine whose settings are given.

python drive.py SETTINGS_JSON FOLDER
"""

import sys
from pathlib import Path

from pydantic import TypeAdapter

from experiments import spec
from runner.__main__ import compose
from runner.driving.execute import execute
from runner.engines import make_engine
from runner.planning.plan import make_plan
from runner.watching.display import Display

FAKE_JOB = Path(__file__).parents[2] / "unit" / "runner" / "fake_job.py"

if __name__ == "__main__":
    settings, folder = sys.argv[1:]
    one_each = "engine.artifacts_in_one_process=false"
    plan = make_plan(
        compose(["+sweep=smoke", "tracker=none", f"runs_dir={folder}/runs", f"cache_dir={folder}/cache", one_each])
    )
    engine = make_engine(TypeAdapter(spec.Engine).validate_json(settings), plan.folder)
    sys.exit(execute(plan, engine, Display(), (sys.executable, str(FAKE_JOB), str(plan.folder))))
