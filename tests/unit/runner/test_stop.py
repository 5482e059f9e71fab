"""`python -m runner.stop` on sweeps of jobs that do nothing, in real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner import stop
from runner.ledger.reader import read_json, read_status
from runner.ledger.requests import ask_driver, ask_job, driver_requests, forget_driver_requests, is_asked_to_end
from runner.planning.plan import Plan

Planned = Callable[..., Plan]


def states(plan: Plan) -> dict[str, str]:
    return {job.label: (read_status(job.folder) or {}).get("state", "") for job in plan.jobs}


def once(plan: Plan, label: str, state: str, act: Callable[[], object]) -> threading.Thread:
    """Does something as soon as a job is in this state, as another terminal would."""

    def wait_and_act() -> None:
        deadline = time.monotonic() + 30
        while states(plan)[label] != state and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def stopped_while(plan: Plan, label: str, arguments: Sequence[str]) -> threading.Thread:
    return once(plan, label, "running", lambda: stop.main([str(plan.folder), *arguments]))


@pytest.mark.parametrize("name", ["ppo", "ppo/seed0"])
def test_an_arm_is_stopped_its_dependents_are_skipped_and_the_same_command_goes_on(
    planned: Planned, sweep_of: Callable[[Plan], Any], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned()
    sweep = sweep_of(plan)
    thread = stopped_while(plan, "ppo/seed0", [name])

    assert sweep.run(**{"ppo/seed0": "sleep"}) == 3
    thread.join()
    assert "asked the driver to stop" in capsys.readouterr().out
    found = states(plan)
    assert (found["ppo/seed0"], found["ppo/seed0/evaluation"]) == ("stopped", "skipped")
    assert (found["dpo/seed0/evaluation"], found["report"]) == ("finished", "finished")
    assert "ppo/seed0 failed" not in sweep.text
    assert "all that is missing:" in sweep.text

    assert sweep.run(**{"ppo/seed0": "kill"}) == 1  # what was once asked excuses no later failure
    assert "ppo/seed0 failed: killed by SIGKILL" in sweep.text
    assert sweep.run() == 0
    assert sweep.started() == ["ppo/seed0", "ppo/seed0/evaluation", "report"]


def test_a_whole_sweep_is_stopped_starts_nothing_more_and_goes_on_later(
    planned: Planned, sweep_of: Callable[[Plan], Any]
) -> None:
    plan = planned("engine.artifacts_in_one_process=false")
    sweep = sweep_of(plan)
    thread = stopped_while(plan, "ranking_data", [])

    assert sweep.run(ranking_data="sleep") == 3
    thread.join()
    assert sweep.started() == ["measure", "ranking_data"]
    driver = read_json(plan.folder / "driver.json")
    assert (driver["state"], driver["exit_code"]) == ("ended", 3)
    assert {label: told["state"] for label, told in driver["jobs"].items()} == {
        job.label: "finished" if job.label == "measure" else "stopped" for job in plan.jobs
    }
    assert sweep.run() == 0
    assert "measure" not in sweep.started()


def test_an_arm_that_waits_never_starts(planned: Planned, sweep_of: Callable[[Plan], Any]) -> None:
    plan = planned("engine.artifacts_in_one_process=false")
    sweep = sweep_of(plan)
    stopping = stopped_while(plan, "ranking_data", ["dpo"])
    killing = once(plan, "dpo/seed0", "stopped", lambda: end(plan, "ranking_data"))
    code = sweep.run(ranking_data="sleep")
    stopping.join()
    killing.join()

    assert "dpo/seed0" not in sweep.started()
    assert states(plan)["dpo/seed0"] == "stopped"
    assert code == 1  # this test killed the ranking data


def end(plan: Plan, label: str) -> None:
    folder = next(job.folder for job in plan.jobs if job.label == label)
    os.kill(read_json(folder / "status.json")["pid"], signal.SIGKILL)


JOB = """
import sys, types, time
stages = types.ModuleType("experiments.stages")
def run_stage(kind, spec, needs, folder, cache_dir, recorder):
    print("in the stage", flush=True)
    time.sleep(60)
stages.run_stage = run_stage
sys.modules["experiments.stages"] = stages
from runner.job import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_a_driver_the_job_itself_listens(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    """The driver was killed and its jobs live on, as they may on a cluster."""
    plan = planned()
    plan.write()
    job = plan.jobs[0]
    job.file.write(job.folder)
    told = {job.label: {"state": "running", "folder": str(job.folder)}}
    dead = {"state": "running", "attempt": "dead", "host": "gone", "updated": "2020-01-01T00:00:00+00:00", "jobs": told}
    (plan.folder / "driver.json").write_text(json.dumps(dead))
    process = subprocess.Popen([sys.executable, "-c", JOB, str(job.folder)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while (read_status(job.folder) or {}).get("state") != "running" and time.monotonic() < deadline:
        time.sleep(0.05)

    def said() -> str:
        with pytest.MonkeyPatch.context() as patch:  # no second look at the dead driver, which is on another machine
            patch.setattr("runner.ledger.signs.time.sleep", lambda seconds: None)
            assert stop.main([str(plan.folder)]) == 0
        return capsys.readouterr().out

    assert "asked measure to end, which runs without a driver" in said()
    assert process.wait(30) == 130
    status = read_status(job.folder) or {}
    assert (status["state"], status["error"]) == ("stopped", "on request")
    assert "nothing runs in" in said()


def test_a_request_reaches_the_attempt_it_was_meant_for_and_no_later_one(tmp_path: Path) -> None:
    ask_driver(tmp_path, "first", "ppo")
    ask_driver(tmp_path, "first", None)
    ask_job(tmp_path, "first")
    (tmp_path / ".stop" / "torn.json").write_text('{"attempt": "first", "arm"')
    (tmp_path / ".stop" / "odd.json").write_text('{"attempt": "first", "arm": ["ppo"]}')

    assert set(driver_requests(tmp_path, "first")) == {"ppo", None}
    assert driver_requests(tmp_path, "second") == []
    assert is_asked_to_end(tmp_path, "first")
    assert not is_asked_to_end(tmp_path, "second")
    forget_driver_requests(tmp_path)
    assert driver_requests(tmp_path, "first") == []


@pytest.mark.parametrize("arm", ["pop", "report", "measure", "ppo/seed7", "../ppo"])
def test_an_unknown_arm_is_one_error_that_names_the_valid_ones(
    planned: Planned, capsys: pytest.CaptureFixture[str], arm: str
) -> None:
    plan = planned()
    plan.write()

    assert stop.main([str(plan.folder), arm]) == 2
    error = capsys.readouterr().err
    assert error.strip() == f"{arm}: there is no such arm in this sweep; valid are ppo, dpo, ppo/seed0, dpo/seed0"
    assert not (plan.folder / ".stop").exists()


def test_a_folder_that_is_no_sweep_is_one_error_that_names_those_near(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned()
    plan.write()
    for folder in (plan.folder.parent, plan.folder.parent / "typo"):
        assert stop.main([str(folder)]) == 2
        assert str(plan.folder) in capsys.readouterr().err
    assert stop.main([]) == 2
    assert "usage" in capsys.readouterr().err
