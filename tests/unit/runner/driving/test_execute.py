"""Whole sweeps of jobs that do nothing: real processes, real folders, no torch."""

import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from experiments.errors import InputError
from runner.driving.execute import Scheduler
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot
from runner.ledger.driver import DriverFile
from runner.ledger.integrity import fingerprints
from runner.ledger.reader import is_finished, read_json
from runner.planning.plan import Plan
from runner.watching.display import Display

FAKE_JOB = Path(__file__).parents[1] / "fake_job.py"
ONE_EACH = "engine.artifacts_in_one_process=false"
Planned = Callable[..., Plan]
SweepOf = Callable[..., Any]


@pytest.fixture
def finished(planned: Planned, sweep_of: SweepOf) -> Any:
    sweep = sweep_of(planned())
    assert sweep.run() == 0
    return sweep


def test_jobs_start_in_the_plans_order_and_after_their_needs(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned(ONE_EACH))

    assert sweep.run() == 0
    began = {entry["label"]: entry["time"] for entry in sweep.trace() if entry["event"] == "start"}
    ended = {entry["label"]: entry["time"] for entry in sweep.trace() if entry["event"] == "end"}
    assert sweep.started()[:2] == ["measure", "ranking_data"]
    assert set(sweep.started()[2:4]) == {"reward_model", "dpo/seed0"}  # side by side
    assert all(ended[need] <= began[job.label] for job in sweep.plan.jobs for need in job.needs.values())
    assert sweep.text.rstrip().endswith("DPO won.")


def test_what_samples_the_base_waits_until_it_is_converted(planned: Planned, sweep_of: SweepOf) -> None:
    pytest.importorskip("gguf")
    sweep = sweep_of(planned(ONE_EACH, "model=smollm2_135m"))

    assert sweep.run(base_model="fail") == 1
    assert sweep.started() == ["base_model", "measure"]
    assert "skipped: base_model did not finish" in sweep.text
    assert sweep.run() == 0
    assert sweep.started()[:2] == ["base_model", "ranking_data"]


def test_the_base_is_converted_in_the_one_process_of_the_artifacts(planned: Planned, sweep_of: SweepOf) -> None:
    pytest.importorskip("gguf")
    sweep = sweep_of(planned("model=smollm2_135m"))

    assert sweep.run() == 0
    process = {entry["label"]: entry["pid"] for entry in sweep.trace() if entry["event"] == "start"}
    assert process["base_model"] == process["measure"] == process["ranking_data"] == process["base_evaluation"]


def test_what_goes_on_from_a_job_follows_in_its_process(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned(ONE_EACH))
    sweep.run()

    process = {entry["label"]: entry["pid"] for entry in sweep.trace() if entry["event"] == "start"}
    assert process["measure"] == process["ranking_data"]
    assert process["ppo/seed0"] == process["ppo/seed0/evaluation"]
    assert len(set(process.values())) >= len(process) - 3  # DPO's follows too if the reward model was there in time
    assert "followed in one process by ppo/seed0/evaluation" in sweep.text


def test_what_needs_a_finished_job_does_not_wait_for_the_one_that_follows_in_its_process(
    planned: Planned, sweep_of: SweepOf
) -> None:
    sweep = sweep_of(planned(ONE_EACH))
    sweep.plan.write()
    engine, display = LocalEngine([Slot("", 1)], num_cores=1), Display(Console(file=io.StringIO()))
    walk = Scheduler(sweep.plan, engine, display, DriverFile(sweep.plan.folder, "", ""), ("true",))
    arm, evaluation = (next(j for j in sweep.plan.jobs if j.label == f"ppo/seed0{end}") for end in ("", "/evaluation"))
    walk._running[arm.label] = (arm, evaluation)
    arm.folder.mkdir(parents=True)
    (arm.folder / "status.json").write_text(json.dumps({"state": "finished", "identity": arm.identity}))
    walk._settle_finished()

    assert {label: result.state for label, result in walk.results.items()} == {"ppo/seed0": "finished"}


def test_jobs_that_run_together_have_different_devices(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned(ONE_EACH), devices=("GPU-a", "GPU-b"))
    sweep.run()

    by_label = {entry["label"]: entry for entry in sweep.trace() if entry["event"] == "start"}
    assert {by_label[label]["CUDA_VISIBLE_DEVICES"] for label in ("reward_model", "dpo/seed0")} == {"GPU-a", "GPU-b"}


def test_thread_counts_do_not_depend_on_what_was_finished_before(planned: Planned, sweep_of: SweepOf) -> None:
    """Sums are rounded differently with other thread counts, so a resumed sweep must get the same ones."""
    sweep = sweep_of(planned())
    sweep.run(base_evaluation="fail")
    first = {entry["label"]: entry["OMP_NUM_THREADS"] for entry in sweep.trace() if entry["event"] == "start"}
    sweep.run()
    second = {entry["label"]: entry["OMP_NUM_THREADS"] for entry in sweep.trace() if entry["event"] == "start"}

    assert first["base_evaluation"] == second["base_evaluation"] == "2"
    assert first["ppo/seed0"] == "1"


def test_same_command_again_starts_nothing(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())
    assert sweep.run() == 0
    assert sweep.run() == 0

    assert sweep.started() == []
    assert "taken as it is: measure, ranking_data" in sweep.text
    assert sweep.text.rstrip().endswith("DPO won.")


def test_shared_artifacts_are_reused_by_another_sweep_with_their_record(planned: Planned, sweep_of: SweepOf) -> None:
    sweep_of(planned()).run()
    other = sweep_of(planned("name=other"))
    other.run()

    assert {"measure", "ranking_data", "reward_model", "base_evaluation"}.isdisjoint(other.started())
    assert read_json(other.plan.folder / "shared" / "measure" / "status.json")["state"] == "finished"


def test_a_killed_arm_leaves_the_others_and_is_repeated_alone(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())

    assert sweep.run(**{"ppo/seed0": "kill"}) == 1
    assert "dpo/seed0/evaluation" in sweep.started()
    assert "report" in sweep.started()
    assert "ppo/seed0 failed: killed by SIGKILL" in sweep.text
    assert "ppo/seed0 was here" in sweep.text  # the tail of its log
    kept = read_json(sweep.plan.folder / "ppo" / "seed0" / "status.json")
    assert (kept["state"], kept["error"][:17]) == ("failed", "killed by SIGKILL")  # a killed job could not say so
    assert f"python -m runner.job {sweep.plan.folder}/ppo/seed0" in sweep.text

    assert sweep.run() == 0
    assert sweep.started() == ["ppo/seed0", "ppo/seed0/evaluation", "report"]


def test_dependents_of_a_failed_job_are_skipped_with_the_reason(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())

    assert sweep.run(reward_model="fail") == 1
    assert "reward_model failed: ValueError: no luck" in sweep.text
    assert "skipped: reward_model did not finish" in sweep.text
    assert sweep.started()[-1] == "dpo/seed0"  # needs no reward model
    kept = read_json(sweep.plan.folder / "ppo" / "seed0" / "status.json")
    assert (kept["state"], kept["error"]) == ("skipped", "reward_model did not finish")
    assert "report" not in sweep.started()


def test_no_report_without_a_base_to_compare_with(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())

    assert sweep.run(base_evaluation="fail") == 1
    assert "dpo/seed0/evaluation" in sweep.started()
    assert "skipped: nothing to compare" in sweep.text


def test_a_job_that_ends_well_without_finishing_has_failed(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())

    assert sweep.run(**{"dpo/seed0": "quiet"}) == 1
    assert "dpo/seed0 failed: exit code 0" in sweep.text


def test_a_job_out_of_memory_starts_once_more_with_smaller_passes_and_stays_the_same_job(
    planned: Planned, sweep_of: SweepOf
) -> None:
    sweep = sweep_of(planned())

    assert sweep.run(**{"ppo/seed0": "starve"}) == 0
    assert sweep.started().count("ppo/seed0") == 2
    again = "OutOfMemoryError: no room; it starts once more, with passes that are 4 times smaller"
    assert again in sweep.text
    assert "finished with passes that are 4 times smaller, after it had run out of memory" in sweep.text
    retry = read_json(sweep.plan.folder / "ppo" / "seed0" / "retry.json")
    assert (retry["pass_divisor"], retry["because"]) == (4, "OutOfMemoryError: no room")
    job = next(job for job in sweep.plan.jobs if job.label == "ppo/seed0")
    assert retry["identity"] == job.identity == job.file.computed_identity()


@pytest.mark.parametrize(("label", "times"), [("ppo/seed0", 2), ("measure", 1)])
def test_a_second_lack_of_memory_is_a_failure_and_so_is_a_first_of_a_job_without_a_model(
    planned: Planned, sweep_of: SweepOf, label: str, times: int
) -> None:
    sweep = sweep_of(planned(ONE_EACH))

    assert sweep.run(**{label: "always starve"}) == 1
    assert sweep.started().count(label) == times
    assert f"{label} failed: OutOfMemoryError: no room" in sweep.text


def test_a_kill_by_the_kernel_for_want_of_memory_counts_as_one(
    planned: Planned, sweep_of: SweepOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter(range(1000))  # the kernel's counter rises at every look
    monkeypatch.setattr("runner.engines.process.kernel_oom_kills", lambda: next(kills))
    sweep = sweep_of(planned())

    assert sweep.run(**{"ppo/seed0": "kill"}) == 1
    assert sweep.started().count("ppo/seed0") == 2
    assert "killed by the system for want of memory; it starts once more" in sweep.text
    assert "ppo/seed0 failed: killed by the system for want of memory" in sweep.text


def test_control_characters_of_a_job_do_not_reach_the_terminal(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())
    job = next(job for job in sweep.plan.jobs if job.label == "ppo/seed0")
    job.folder.mkdir(parents=True)
    (job.folder / "log.txt").write_text("\x1b[2J\x07evil\n")
    sweep.run(**{"ppo/seed0": "kill"})

    assert "evil" in sweep.text
    assert "\x1b" not in sweep.text
    assert "\x07" not in sweep.text


def test_two_drivers_do_not_work_in_one_folder(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())
    sweep.plan.folder.mkdir(parents=True)

    with FileLock(sweep.plan.folder / "sweep.lock"), pytest.raises(InputError, match="another `python -m runner`"):
        sweep.run()
    assert sweep.run() == 0


def _as_in_a_terminal() -> None:
    """A shell starts background jobs with SIGINT ignored, and children inherit that; the tests may be one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_children(planned: Planned, tmp_path: Path, request_to_end: signal.Signals) -> None:
    plan = planned(ONE_EACH)
    plan.folder.mkdir(parents=True)
    (plan.folder / "behaviour.json").write_text(json.dumps({"measure": "sleep"}))
    driver = (
        "import sys\nfrom runner.__main__ import compose\nfrom runner.planning.plan import make_plan\n"
        "from runner.watching.display import Display\nfrom runner.engines.local import LocalEngine\n"
        "from runner.engines.slots import Slot\n"
        "from runner.driving.execute import Scheduler, execute\n"
        f"plan = make_plan(compose(['+sweep=smoke', 'runs_dir={tmp_path}/runs', 'cache_dir={tmp_path}/cache',"
        f" 'tracker=none', '{ONE_EACH}']))\n"
        f"command = (sys.executable, {str(FAKE_JOB)!r}, str(plan.folder))\n"
        "sys.exit(execute(plan, LocalEngine([Slot('', 1)], 1), Display(), command))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [sys.executable, "-c", driver],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_as_in_a_terminal,
    )
    status = plan.jobs[0].folder / "status.json"
    deadline = time.monotonic() + 20
    while not status.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = read_json(status)["pid"]
    process.send_signal(request_to_end)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "The same command resumes" in output
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(("late_seconds", "code"), [(60.0, 0), (0.0, 1)])
def test_another_machines_files_may_show_up_late(
    planned: Planned, sweep_of: SweepOf, monkeypatch: pytest.MonkeyPatch, late_seconds: float, code: int
) -> None:
    """Every change of a status is seen here a second after it was made, as on a network share that caches."""

    def read_late(path: Path) -> dict[str, Any]:
        if path.name == "status.json" and time.time() - path.stat().st_mtime < 1:
            raise FileNotFoundError(path)
        return read_json(path)

    monkeypatch.setattr("runner.ledger.reader.read_json", read_late)
    monkeypatch.setattr(LocalEngine, "late_seconds", late_seconds)
    sweep = sweep_of(planned())

    assert sweep.run() == code
    assert ("failed: exit code 0" in sweep.text) == (code == 1)


def test_on_another_machine_a_job_that_says_why_it_failed_is_not_waited_for(
    planned: Planned, sweep_of: SweepOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalEngine, "late_seconds", 3600.0)
    sweep = sweep_of(planned())

    assert sweep.run(**{"ppo/seed0": "fail"}) == 1
    assert "ppo/seed0 failed: ValueError: no luck" in sweep.text


# ------------------------------------------------------------------------------------------------------------- judges
JUDGE = (
    "judge=endpoint",
    "judge.endpoint.base_url=http://127.0.0.1:1/v1",
    "judge.endpoint.model=judge",
    "judge.endpoint.prompt_price=0",
    "judge.endpoint.completion_price=0",
)


def test_the_report_does_without_a_failed_judge_which_is_repeated_alone(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned(*JUDGE))

    assert sweep.run(**{"judges/endpoint": "fail"}) == 1
    assert sweep.started()[-2:] == ["judges/endpoint", "report"]
    assert "judges/endpoint" not in read_json(sweep.plan.folder / "report" / "spec.json")["needs"]
    assert sweep.run() == 0
    assert sweep.started() == ["judges/endpoint", "report"]
    assert "judges/endpoint" in read_json(sweep.plan.folder / "report" / "spec.json")["needs"]
    assert sweep.run() == 0
    assert sweep.started() == []


def test_judges_judge_what_finished(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned(*JUDGE))

    assert sweep.run(**{"ppo/seed0": "fail"}) == 1
    judge, report = (read_json(sweep.plan.folder / name / "spec.json") for name in ("judges/endpoint", "report"))
    assert set(judge["needs"]) == {"base_evaluation", "reward_model", "dpo/seed0/evaluation"}
    assert report["needs"]["judges/endpoint"]["identity"] == judge["identity"]
    assert sweep.run() == 0
    assert sweep.started() == ["ppo/seed0", "ppo/seed0/evaluation", "judges/endpoint", "report"]


def test_without_an_arm_there_is_nothing_to_judge(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned(*JUDGE))

    assert sweep.run(**{"ppo/seed0": "fail", "dpo/seed0": "fail"}) == 1
    assert "judges/endpoint" not in sweep.started()
    assert "nothing to compare" in sweep.text


def test_a_judge_joins_a_finished_sweep_and_nothing_else_is_repeated(planned: Planned, sweep_of: SweepOf) -> None:
    sweep_of(planned()).run()
    sweep = sweep_of(planned(*JUDGE))

    assert sweep.run() == 0
    assert sweep.started() == ["judges/endpoint", "report"]


# ------------------------------------------------------------------------------------------------- what was torn since
def test_a_finished_arm_with_a_torn_file_is_named_and_done_again(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())
    sweep.run()
    arm = sweep.plan.folder / "ppo" / "seed0"
    (arm / "metrics.jsonl").write_text('{"loss": 1}\n')
    status = read_json(arm / "status.json") | {"files": fingerprints(arm)}
    (arm / "status.json").write_text(json.dumps(status))
    assert sweep.run() == 0
    assert sweep.started() == ["report"]  # its ledger is another one

    (arm / "metrics.jsonl").write_text('{"lo')
    assert sweep.run() == 0
    assert sweep.started() == ["ppo/seed0", "report"]
    assert "had finished, but is damaged and done again: metrics.jsonl has 4 bytes, not 12" in sweep.text


@pytest.mark.parametrize("content", ["", "{", "\x00" * 400])
def test_a_torn_specification_of_a_finished_job_is_written_again(
    planned: Planned, sweep_of: SweepOf, content: str
) -> None:
    sweep = sweep_of(planned())
    sweep.run()
    path = sweep.plan.folder / "ppo" / "seed0" / "spec.json"
    whole = path.read_text()
    path.write_text(content)

    assert sweep.run() == 0
    assert sweep.started() == []
    assert path.read_text() == whole


def test_a_torn_copy_of_a_shared_record_is_made_again(planned: Planned, sweep_of: SweepOf) -> None:
    sweep = sweep_of(planned())
    sweep.run()
    path = sweep.plan.folder / "shared" / "measure" / "status.json"
    whole = path.read_text()
    path.write_text("{")

    assert sweep.run() == 0
    assert path.read_text() == whole


def test_each_of_a_reports_four_files_is_checked_and_made_again(finished: Any) -> None:
    *_, report = finished.plan.jobs
    for name in ("report.json", "ledger_manifest.json", "report.md", "report.html"):
        path = report.folder / name
        whole = path.read_bytes()
        for damage in (b"", whole[:20], whole[:-1], whole.replace(b"1", b"2", 1), whole + b"x", None):
            path.unlink() if damage is None else path.write_bytes(damage)
            assert not is_finished(report.folder, report.identity), (name, damage)

        assert finished.run() == 0
        assert finished.started() == ["report"]
        assert f"report/{name} is missing or" in finished.text
        assert path.read_bytes() == whole
        assert finished.text.rstrip().endswith("DPO won.")
    assert finished.run() == 0
    assert finished.started() == []


def test_a_sweep_whose_report_stays_torn_does_not_end_well(finished: Any) -> None:
    (finished.plan.folder / "report" / "report.html").unlink()

    assert finished.run(report="quiet") == 1
    assert finished.started() == ["report"]


def test_a_report_of_an_arm_that_was_away_is_made_again_when_the_arm_is_back(finished: Any) -> None:
    """It was made by hand meanwhile, and its job's status still says that it has finished."""
    arm, away = finished.plan.folder / "ppo", finished.plan.folder.parent / "away"
    arm.rename(away)
    runpy.run_path(str(FAKE_JOB))["write_report"](finished.plan.folder)
    away.rename(arm)

    assert finished.run() == 0
    assert finished.started() == ["report"]
    assert "was made from another ledger: ppo/seed0/evaluation/" in " ".join(finished.text.split())
    assert finished.run() == 0
    assert finished.started() == []


@pytest.mark.parametrize("path", ["dpo/seed0/evaluation/samples/point_9.parquet", "shared/measure/retry.json"])
def test_a_report_is_made_again_when_its_ledger_has_one_more_file(finished: Any, path: str) -> None:
    new = finished.plan.folder / path
    new.parent.mkdir(exist_ok=True)
    new.write_text("{}")

    assert finished.run() == 0
    assert finished.started() == ["report"]
    assert path in "".join(finished.text.split())
