"""What only Slurm does: requeueing, jobs that outlive their runner, a queue instead of an accounting service."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import InputError


@pytest.fixture(scope="module")
def fixed(slurm_cluster: Path) -> tuple[str, dict[str, Any]]:
    share = {"gpus_per_job": 0, "cpus_per_job": 1, "max_jobs": 8, "max_restarts": 1, "memory_gib_per_job": 1}
    return "slurm", share | {"allocation_minutes": 5, "poll_seconds": 0.2}


@pytest.fixture(autouse=True)
def few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engines.slurm.LATE_SECONDS", 1.0)


@pytest.fixture
def patient(bench: Any) -> Iterator[Any]:
    """A started task that says so and ends well when it may."""
    engine = bench.engine()
    engine.start(bench.task("patient", f"say('started'); wait({str(bench.folder / 'go')!r})"))
    bench.wait_for_log(engine, "patient", "started\n")
    return engine


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def number() -> str:
    """That of the only job that runs."""
    (line,) = slurm("squeue", "--me", "--noheader", "--states=RUNNING", "--format=%i").split()
    return line


@pytest.fixture
def starts_again(bench: Any, patient: Any, wait_until: Any) -> Callable[[str], None]:
    """Slurm lets a requeued job wait until the credential of its last start has expired; two seconds do."""

    def check(job: str) -> None:
        wait_until(lambda: "PENDING" in slurm("squeue", f"--job={job}", "--format=%T"), "it is not requeued")
        slurm("scontrol", "update", f"JobId={job}", "StartTime=now+2seconds")
        bench.wait_for_log(patient, "patient", "started\n", times=2)

    return check


def finishes(bench: Any, engine: Any) -> bool:
    (bench.folder / "go").touch()
    return bool(bench.drain(engine, 1)["patient"].exit_code == 0)


def test_there_is_no_accounting_service(slurm_cluster: Path) -> None:
    """All tests here prove that none is needed, as long as there is none."""
    asked = subprocess.run(["sacct"], capture_output=True, text=True, check=False)

    assert "accounting storage is disabled" in asked.stderr


def test_job_is_requeued_before_its_allocation_ends(
    bench: Any, patient: Any, starts_again: Callable[[str], None]
) -> None:
    job = number()
    slurm("scancel", "--signal=USR2", job)  # Slurm's notice, 90 s before the end
    starts_again(job)

    assert finishes(bench, patient)


def test_too_many_allocations_are_an_end(bench: Any, patient: Any, starts_again: Callable[[str], None]) -> None:
    job = number()
    slurm("scancel", "--signal=USR2", job)
    starts_again(job)
    slurm("scancel", "--signal=USR2", job)
    outcome = bench.drain(patient, 1)["patient"]

    assert (outcome.cause, outcome.exit_code) == ("preempted", None)
    assert "timed-out too many times" in outcome.detail


def test_preempted_job_goes_on(bench: Any, patient: Any, starts_again: Callable[[str], None]) -> None:
    job = number()
    slurm("scontrol", "requeue", job)
    starts_again(job)

    assert finishes(bench, patient)


def test_lost_node_means_another_start(
    bench: Any, patient: Any, starts_again: Callable[[str], None], slurm_cluster: Path, wait_until: Any
) -> None:
    job = number()
    slurm("scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=test")
    log = slurm_cluster / "slurmd.log"
    wait_until(lambda: f"[{job}.0] done with job" in log.read_text(), "the node does not end its job")
    resume = ["scontrol", "update", "NodeName=localhost", "State=RESUME"]
    subprocess.run(resume, capture_output=True, check=False)  # it may have come back by itself
    starts_again(job)

    assert finishes(bench, patient)


def test_job_cancelled_by_somebody_else(bench: Any, patient: Any) -> None:
    slurm("scancel", number())
    outcome = bench.drain(patient, 1)["patient"]

    assert outcome.cause == "cancelled"
    assert "CANCELLED" in outcome.detail


def test_job_that_left_no_word(bench: Any) -> None:
    """What was to write it down is killed, as by a node's out-of-memory killer."""
    engine = bench.engine()
    engine.start(bench.task("orphan", "say(os.getppid()); time.sleep(60)"))
    bench.wait_for_log(engine, "orphan", "\n")
    os.kill(int(bench.log("orphan").read_text()), signal.SIGKILL)
    outcome = bench.drain(engine, 1)["orphan"]

    assert (outcome.cause, outcome.exit_code) == ("no_word", None)
    assert "FAILED" in outcome.detail


def test_next_runner_takes_over_what_runs(bench: Any, patient: Any) -> None:
    """The first is killed: nothing more is asked of it."""
    second = bench.engine()
    task = bench.task("patient", f"say('started'); wait({str(bench.folder / 'go')!r})")
    second.start(task)
    second.start(bench.task("other", "say('started')"))

    (bench.folder / "go").touch()
    outcomes = bench.drain(second, 2)
    assert [outcomes[name].exit_code for name in ("patient", "other")] == [0, 0]
    assert [bench.log(name).read_text() for name in ("patient", "other")] == ["started\n"] * 2


def test_what_waits_together_is_one_array(bench: Any) -> None:
    engine = bench.engine()
    for name in ("one", "two", "three"):
        engine.start(bench.task(name, "say(os.environ.get('SLURM_ARRAY_TASK_COUNT'))"))
    bench.drain(engine, 3)

    assert [bench.log(name).read_text() for name in ("one", "two", "three")] == ["3\n"] * 3


@pytest.mark.parametrize(
    ("share", "asked"),
    [
        ({"memory_gib_per_job": None}, ["3G", "2G", "3G"]),  # 1.5 GiB x 1.25 + 0.5 GiB; 1 GiB likewise; as a first one
        ({"memory_gib_per_job": 1}, ["1G", "1G", "1G"]),
        ({"memory_gib_per_job": None, "gpus_per_job": 1}, ["3G", "3G", "3G"]),  # main memory was measured without GPU
    ],
)
def test_memory_is_asked_for_as_set_or_as_measured(bench: Any, share: dict[str, Any], asked: list[str]) -> None:
    engine = bench.engine(memory_gib_at_first=3, **share)
    needs = {"large": 3 * 2**29, "small": 2**30, "new": 0}
    for name, needed_bytes in needs.items():
        engine.start(bench.task(name, "say(os.environ['SLURM_JOB_ID'])", needed_bytes=needed_bytes))
    bench.drain(engine, 3)

    queue = ("squeue", "--states=all", "--noheader", "--format=%m")  # of an array's first number, that of all its jobs
    found = [set(slurm(*queue, f"--job={bench.log(name).read_text().strip()}").split()) for name in needs]
    assert found == [{memory} for memory in asked]


def test_memory_that_no_node_has_is_told_with_what_was_asked_for(bench: Any) -> None:
    engine = bench.engine(memory_gib_per_job=None, memory_gib_at_first=1)
    engine.start(bench.task("huge", "", needed_bytes=80 * 2**30))
    engine.start(bench.task("new", "say('here')"))
    outcomes = bench.drain(engine, 2)

    assert (outcomes["huge"].cause, outcomes["new"].exit_code) == ("not_started", 0)
    assert outcomes["huge"].detail.endswith("(asked for 101 GiB of memory)")


def test_controller_that_does_not_answer_is_no_news(bench: Any, patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a job that was in the queue before, nor of one that was never seen there."""
    with monkeypatch.context() as patch:
        patch.setattr("runner.engines.slurm_queue.QUEUE", ("false",))
        patch.setattr("runner.engines.slurm.LATE_SECONDS", 0.0)
        patient.start(bench.task("new", f"say('started'); wait({str(bench.folder / 'go')!r})"))
        bench.wait_for_log(patient, "new", "started\n")

    (bench.folder / "go").touch()
    assert [outcome.exit_code for outcome in bench.drain(patient, 2).values()] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"partition": "nowhere"}, "Invalid partition name"),
        ({"cpus_per_job": 64}, "node configuration is not available"),
    ],
)
def test_what_slurm_would_refuse_is_found_out_first(bench: Any, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        bench.engine(**changes)


def test_without_slurms_programs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.folder))

    with pytest.raises(InputError, match="sbatch, srun, squeue, scancel, scontrol not found"):
        bench.engine()
