"""`python -m runner.status` during a sweep, after it, and after what should not have happened."""

import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from runner import status
from runner.planning.plan import Plan

Planned = Callable[..., Plan]


def shown(folder: Path, width: int = 160) -> str:
    output = io.StringIO()
    assert status.main([str(folder)], Console(file=output, width=width, highlight=False, markup=False)) == 0
    return output.getvalue()


def rows(text: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.strip()}


def write(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def tree(folder: Path) -> dict[str, tuple[float, int]]:
    return {str(path): (path.stat().st_mtime, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture
def plan(planned: Planned) -> Plan:
    made = planned()
    made.write()
    return made


RUNNING = {
    "state": "running",
    "host": socket.gethostname(),
    "pid": 7,
    "updated": "2026-11-25T09:00:00+00:00",
    "seconds": 65.0,
    "stage": "PPO",
    "done": 5,
    "total": 16,
    "unit": "updates",
    "counted_from": {"done": 1, "seconds": 5.0},
    "counted_to": 65.0,
}
DRIVER = {
    "state": "running",
    "attempt": "a",
    "host": socket.gethostname(),
    "pid": 9,
    "updated": "2026-11-25T09:00:00+00:00",
    "seconds": 70.0,
}
DRIVER |= {"command": "python -m runner +sweep=smoke", "where": "2 jobs at a time", "seconds_left": 754.0, "jobs": {}}


def test_a_running_sweep_is_seen_with_its_progress_and_time_left_and_nothing_is_written(plan: Plan) -> None:
    folder = plan.folder / "ppo" / "seed0"
    write(folder / "status.json", **RUNNING)
    told = {"measure": {"state": "reused", "reason": "", "seconds": 3.0}, "ppo/seed0": {"state": "running"}}
    write(plan.folder / "driver.json", **(DRIVER | {"jobs": told | {"dpo/seed0": {"state": "running"}}}))
    with FileLock(folder / "job.lock"), FileLock(plan.folder / "sweep.lock"):
        before = tree(plan.folder)
        text = shown(plan.folder)
        assert tree(plan.folder) == before

    found = rows(text)
    assert "running on 2 jobs at a time (process 9" in text
    assert found["measure"] == "reused 3 s"
    assert found["ppo/seed0"] == "running 1 min 05 s PPO 5/16 updates, 4.0 updates/min 2 min 45 s"
    assert found["dpo/seed0"] == "running starting, or in a queue"
    assert found["report"] == "waiting"
    assert "about 12 min 34 s left; 1 of " in text


def test_a_dead_job_and_a_dead_driver_are_told_from_living_ones(plan: Plan) -> None:
    folder = plan.folder / "ppo" / "seed0"
    write(folder / "status.json", **RUNNING)
    write(plan.folder / "driver.json", **(DRIVER | {"jobs": {"ppo/seed0": {"state": "running"}}}))
    (folder / "job.lock").touch()
    (plan.folder / "sweep.lock").touch()
    text = shown(plan.folder)

    assert "its driver died" in text
    assert "resume: python -m runner +sweep=smoke" in text
    assert rows(text)["ppo/seed0"].startswith("died 1 min 05 s process 7 on")
    assert "nobody holds its lock; it was at PPO 5/16 updates" in text
    assert "left" not in text.splitlines()[-1]  # nobody works, so there is no time left


def test_from_another_machine_the_heartbeat_counts(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.ledger.signs.time.sleep", lambda seconds: None)
    now = datetime.now(UTC).isoformat()
    write(plan.folder / "ppo" / "seed0" / "status.json", **(RUNNING | {"host": "node1", "updated": now}))
    write(plan.folder / "dpo" / "seed0" / "status.json", **(RUNNING | {"host": "node2", "updated": "2020-01-01"}))
    write(plan.folder / "driver.json", **(DRIVER | {"host": "login", "updated": now}))
    text = shown(plan.folder)

    assert rows(text)["ppo/seed0"].startswith("running")
    assert rows(text)["dpo/seed0"].startswith("died")
    assert "process 9 on login, heartbeat" in text


def test_after_the_fact_every_end_is_told(planned: Planned, sweep_of: Callable[[Plan], Any]) -> None:
    plan = planned()
    assert sweep_of(plan).run(**{"ppo/seed0": "kill"}) == 1
    text = shown(plan.folder)

    found = rows(text)
    assert "with exit code 1" in text
    assert "resume: python -m runner" in text
    assert "killed by SIGKILL" in found["ppo/seed0"]
    assert found["ppo/seed0/evaluation"] == "skipped ppo/seed0 did not finish"
    assert found["measure"].startswith("finished")
    assert "7 of 9 finished, 1 failed, 1 skipped" in text

    assert sweep_of(plan).run() == 0
    text = shown(plan.folder)
    assert "with exit code 0" in text
    assert "9 of 9 finished" in text


def test_a_shared_artifact_that_failed_is_told_though_its_folder_is_in_the_cache(
    planned: Planned, sweep_of: Callable[[Plan], Any]
) -> None:
    plan = planned()
    assert sweep_of(plan).run(reward_model="fail") == 1

    assert "ValueError: no luck" in rows(shown(plan.folder))["reward_model"]


def test_a_sweep_of_an_older_version_has_no_driver_file(plan: Plan) -> None:
    write(plan.folder / "ppo" / "seed0" / "status.json", state="finished", identity="x", error=None)

    text = shown(plan.folder)
    assert "no driver.json" in text
    assert rows(text)["ppo/seed0"] == "finished"


@pytest.mark.parametrize(("width", "readable"), [(20, "[2J["), (40, "[bold]x"), (200, "[bold]x[/bold]")])
def test_hostile_texts_and_narrow_terminals(plan: Plan, width: int, readable: str) -> None:
    write(plan.folder / "ppo" / "seed0" / "status.json", state="failed", error="\x1b[2J[bold]x[/bold]\n" * 50)
    write(plan.folder / "driver.json", **(DRIVER | {"state": "ended", "exit_code": 1, "command": "\x1b]0;x\x07"}))
    text = shown(plan.folder, width)

    assert not {"\x1b", "\x07"} & set(text)
    assert readable in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("content", ["", "{", "[]", '{"jobs": 3}', "\x00\xff"])
def test_a_torn_plan_is_one_error(plan: Plan, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (plan.folder / "plan.json").write_text(content)

    assert status.main([str(plan.folder)]) == 2
    error = capsys.readouterr().err
    assert "plan.json" in error
    assert error.count("\n") == 1


def test_it_loads_neither_torch_nor_hydra(plan: Plan) -> None:
    code = (
        f"import sys; from runner.status import main; main([{str(plan.folder)!r}])\n"
        "sys.exit(str({'torch', 'hydra', 'pandas', 'wandb', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.strip() == "set()"
