"""`python -m runner.job` with stages that do next to nothing, in processes of their own."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runner.ledger.files import write_json
from runner.ledger.manifest import MANIFEST, Manifest, sha256
from runner.ledger.reader import is_finished, read_json, read_metrics, read_status
from runner.ledger.reports import sealed
from runner.ledger.tracker import Tracker
from runner.ledger.writer import LedgerRecorder, StatusFile
from runner.planning.graph import Job
from runner.planning.plan import Plan
from runner.working.work import make_report

# The stage is the only thing that is replaced: what it does is in the environment variable STAGE, as Python code.
WITH_STAGE = """
import os, sys, types
stages = types.ModuleType("experiments.stages")
def run_stage(kind, spec, needs, folder, cache_dir, recorder):
    exec(os.environ["STAGE"])
stages.run_stage = run_stage
sys.modules["experiments.stages"] = stages
from runner.job import main
sys.exit(main(sys.argv[1:]))
"""
PYTHON: list[str] = []  # what starts a process
RECORD = "from experiments.records import Axes; recorder.metrics('train', {'gold/num_texts': 1.0}, Axes())"


@pytest.fixture(scope="module", autouse=True)
def _python(forked: tuple[str, ...]) -> None:
    PYTHON.extend(forked)


@pytest.fixture
def gold(planned: Callable[..., Plan]) -> Job:
    """The gold job, planned and written, not started."""
    job = planned().jobs[0]
    job.file.write(job.folder)
    return job


def start(*folders: Path, stage: str = RECORD) -> "subprocess.Popen[str]":
    environment = {**os.environ, "STAGE": stage, "PYTHONPATH": str(Path.cwd())}
    command = [*PYTHON, "-c", WITH_STAGE, *map(str, folders)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def work(*folders: Path, stage: str = RECORD) -> tuple[int, str]:
    process = start(*folders, stage=stage)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def log(job: Job) -> str:
    return (job.folder / "log.txt").read_text()


def wait_until_running(job: Job) -> None:
    deadline = time.monotonic() + 30
    while "in the stage" not in ((job.folder / "log.txt").read_text() if (job.folder / "log.txt").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_finished_job_explains_itself(gold: Job) -> None:
    assert work(gold.folder, stage=f"print('hello from the stage'); {RECORD}") == (0, "")

    status, provenance = read_status(gold.folder), read_json(gold.folder / "provenance.json")
    assert status is not None
    assert (status["state"], status["identity"], status["error"]) == ("finished", gold.identity, None)
    assert provenance["identity"] == gold.identity
    assert provenance["inputs"] == gold.file.inputs
    assert provenance["versions"]["torch"]
    assert provenance["hardware"]["cores"] >= 1
    assert "hello from the stage" in log(gold)


def test_an_attempt_starts_over_unless_there_is_a_checkpoint(gold: Job) -> None:
    work(gold.folder, stage=f"{RECORD}; raise RuntimeError")
    work(gold.folder, stage=f"{RECORD}; (folder / 'resume').mkdir(); raise RuntimeError")
    assert len(read_metrics(gold.folder)) == 1
    work(gold.folder, stage=RECORD)
    assert len(read_metrics(gold.folder)) == 2


def test_each_start_that_a_result_goes_back_to_is_kept(gold: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> tuple[int, list[int]]:
        there = read_json(gold.folder / "provenance.json")
        return there["hardware"]["threads"], [start["hardware"]["threads"] for start in there["earlier_starts"]]

    for number, stage in enumerate(["(folder / 'resume').mkdir()", "pass"], start=1):
        monkeypatch.setenv("OMP_NUM_THREADS", str(number))
        work(gold.folder, stage=f"{stage}; raise RuntimeError")
    assert threads() == (2, [1])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    work(gold.folder, stage="(folder / 'resume').rmdir(); raise RuntimeError")
    assert threads() == (3, [1, 2])

    work(gold.folder)  # without a checkpoint it starts over, and owes nothing to what was before
    assert threads() == (3, [])


TORN = {
    "the last row": lambda folder: (folder / "metrics.jsonl").write_text('{"phase": "tra'),
    "a file": lambda folder: (folder / "gold.safetensors").write_bytes(b"wei"),
    "a table": lambda folder: (folder / "samples" / "point_0.parquet").write_bytes(b"raws"),
    "a file lost": lambda folder: (folder / "gold.safetensors").unlink(),
    "the status": lambda folder: (folder / "status.json").write_text('{"state": "finis'),
}


@pytest.mark.parametrize("fault", TORN)
def test_a_finished_job_with_a_torn_file_is_done_again(gold: Job, fault: str) -> None:
    stage = f"{RECORD}; (folder / 'gold.safetensors').write_bytes(b'weights')"
    stage += "; (folder / 'samples').mkdir(); (folder / 'samples' / 'point_0.parquet').write_bytes(b'rows')"
    work(gold.folder, stage=stage)
    TORN[fault](gold.folder)
    assert not is_finished(gold.folder, gold.identity)

    assert work(gold.folder, stage=stage)[0] == 0
    assert is_finished(gold.folder, gold.identity)
    assert len(read_metrics(gold.folder)) == 1


def test_an_attempt_whose_ledger_is_torn_in_the_middle_starts_over_in_spite_of_its_checkpoint(gold: Job) -> None:
    work(gold.folder, stage=f"{RECORD}; {RECORD}; (folder / 'resume').mkdir(); raise RuntimeError")
    first, second, _ = (gold.folder / "metrics.jsonl").read_text().split("\n")
    (gold.folder / "metrics.jsonl").write_text(f"{first[:20]}\n{second}\n")

    assert work(gold.folder, stage=RECORD)[0] == 0
    assert "line 1 is not JSON; it starts over" in log(gold)
    assert len(read_metrics(gold.folder)) == 1
    assert not (gold.folder / "resume").exists()


def test_an_attempt_whose_ledger_is_shorter_than_its_checkpoint_starts_over(gold: Job) -> None:
    work(gold.folder, stage=f"{RECORD}; (folder / 'resume').mkdir(); raise RuntimeError")
    stage = f"recorder.rewind(2 if (folder / 'resume').exists() else 0); {RECORD}"

    assert work(gold.folder, stage=stage)[0] == 0
    assert "the ledger has 1 rows, but its checkpoint was written after 2; it starts over" in log(gold)
    assert len(read_metrics(gold.folder)) == 1


def test_a_finished_job_is_left_alone(gold: Job) -> None:
    work(gold.folder)
    assert work(gold.folder, stage="raise RuntimeError('worked twice')")[0] == 0

    assert len(read_metrics(gold.folder)) == 1


def test_a_failed_job_says_why_and_starts_over(gold: Job) -> None:
    code, _ = work(gold.folder, stage=f"{RECORD}; (folder / 'adapters').mkdir(); raise RuntimeError('no luck\\nmore')")

    status = read_status(gold.folder)
    assert code == 1
    assert status is not None
    assert (status["state"], status["error"]) == ("failed", "RuntimeError: no luck")
    assert "Traceback" in log(gold)

    assert work(gold.folder)[0] == 0
    assert len(read_metrics(gold.folder)) == 1  # the failed attempt's row is gone
    assert not (gold.folder / "adapters").exists()
    assert "Traceback" in log(gold)  # its log is not


def test_an_unusable_input_is_one_sentence_without_a_traceback(gold: Job) -> None:
    stage = "from experiments.errors import InputError; raise InputError('data.path=x.csv: no prompts in it')"
    assert work(gold.folder, stage=stage)[0] == 2

    assert read_json(gold.folder / "status.json")["error"] == "data.path=x.csv: no prompts in it"
    assert "Traceback" not in log(gold)


def test_data_exchanged_since_the_plan_end_the_job_before_anything_is_read(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\ngood film,1\n")
    job = planned(f"data.path={texts}").jobs[0]
    job.file.write(job.folder)
    texts.write_text("text,label\ngood film,0\n")
    code, _ = work(job.folder)

    status = read_json(job.folder / "status.json")
    assert (code, status["state"]) == (2, "failed")
    assert status["error"].startswith(f"data.path={texts} has changed since the sweep was planned: it was sha256:")
    assert job.file.inputs["data"] in status["error"]
    assert read_metrics(job.folder) == []

    texts.write_text("text,label\ngood film,1\n")  # what was there is back
    assert work(job.folder)[0] == 0


def test_several_folders_in_one_process_have_their_own_logs(planned: Callable[..., Plan]) -> None:
    jobs = planned().jobs[:2]
    for job in jobs:
        job.file.write(job.folder)
    assert work(*(job.folder for job in jobs), stage="print('this is', kind)")[0] == 0

    assert "this is measure" in log(jobs[0])
    assert "this is ranking_data" not in log(jobs[0])
    assert "this is ranking_data" in log(jobs[1])


def test_needs_must_have_finished(planned: Callable[..., Plan]) -> None:
    ranking = planned().jobs[1]
    ranking.file.write(ranking.folder)
    code, output = work(ranking.folder)

    assert code == 2
    assert "ranking_data cannot start" in output
    assert f"measure in {ranking.file.needs['measure'].folder}" in output


def test_on_another_machine_a_job_is_patient_with_the_files_of_its_needs(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network share may list what the driver has seen long ago only after a while."""
    monkeypatch.setenv("RUNNER_PATIENCE_SECONDS", "30")
    gold, ranking_data = planned().jobs[:2]
    ranking_data.file.write(ranking_data.folder)
    waiting = start(ranking_data.folder)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=3)
    gold.file.write(gold.folder)
    assert work(gold.folder)[0] == 0
    waiting.communicate(timeout=60)

    assert waiting.returncode == 0


def test_an_edited_specification_is_refused(gold: Job) -> None:
    content = read_json(gold.folder / "spec.json")
    content["spec"]["measure"]["gold"]["num_texts"] = 2000
    (gold.folder / "spec.json").write_text(json.dumps(content))
    code, output = work(gold.folder)

    assert code == 2
    assert "was changed after it was written" in output


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "is no run folder"), ("{", "is not valid JSON"), ("{}", "kind=None is none of base_model")],
)
def test_a_folder_that_is_no_job_is_refused(tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "spec.json").write_text(content)
    code, output = work(tmp_path)

    assert code == 2
    assert expected in output


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_keeps_its_ledger(gold: Job, request_to_end: signal.Signals) -> None:
    process = start(gold.folder, stage=f"{RECORD}; print('in the stage', flush=True); import time; time.sleep(60)")
    wait_until_running(gold)
    process.send_signal(request_to_end)
    process.wait(timeout=30)

    assert process.returncode == 130
    assert read_json(gold.folder / "status.json")["state"] == "interrupted"
    assert len(read_metrics(gold.folder)) == 1


def test_the_second_of_two_waits_and_finds_it_finished(gold: Job) -> None:
    until = "import time\nwhile 'waiting for it' not in (folder / 'log.txt').read_text(): time.sleep(0.05)"
    first = start(gold.folder, stage=f"print('in the stage', flush=True)\n{until}\n{RECORD}")
    wait_until_running(gold)
    second = start(gold.folder, stage="raise RuntimeError('worked twice')")

    assert (first.wait(30), second.wait(30)) == (0, 0)
    assert len(read_metrics(gold.folder)) == 1


def test_a_killed_job_frees_its_folder(gold: Job) -> None:
    first = start(gold.folder, stage="print('in the stage', flush=True); import time; time.sleep(60)")
    wait_until_running(gold)
    first.kill()
    first.wait()

    assert work(gold.folder)[0] == 0


def test_libraries_are_told_to_send_nothing(gold: Job) -> None:
    work(
        gold.folder, stage="import os; print({k: os.environ[k] for k in ('HF_HUB_DISABLE_TELEMETRY', 'DO_NOT_TRACK')})"
    )

    assert "{'HF_HUB_DISABLE_TELEMETRY': '1', 'DO_NOT_TRACK': '1'}" in log(gold)


def test_provenance_holds_no_keys(gold: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret" * 8)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    work(gold.folder)

    assert all(b"secret" not in path.read_bytes() for path in gold.folder.rglob("*") if path.is_file())


def test_without_a_folder_it_says_how_to_use_it() -> None:
    code, output = work()

    assert code == 2
    assert "python -m runner.job RUN_DIR" in output


def test_the_tracker_is_told_of_the_newest_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first one is signed, the analysis writes the new one beside it."""
    for name, headline in (("report", "signed"), ("report-2", "new")):
        (tmp_path / name).mkdir()
        manifest = Manifest({})
        ledger = {"ledger": {"sha256": manifest.sha256}}
        write_json(tmp_path / name / "report.json", {"headline": headline, "summary": {"gold/ppo": 1.0}} | ledger)
        seal = sealed("", sha256((tmp_path / name / "report.json").read_bytes()))
        for file, text in ((MANIFEST, manifest.text), ("report.md", seal), ("report.html", seal)):
            (tmp_path / name / file).write_text(text)
    monkeypatch.setattr("runner.working.work.subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    told: list[Mapping[str, object]] = []

    class Listener(Tracker):
        def summary(self, values: Mapping[str, object]) -> None:
            told.append(values)

    recorder = LedgerRecorder(tmp_path, StatusFile(tmp_path, "identity"), Listener())
    make_report(tmp_path / "report", recorder)

    assert told == [{"headline": "new", "gold/ppo": 1.0}]

    (tmp_path / "report-2" / "report.md").unlink()
    with pytest.raises(RuntimeError, match=r"report-2/report\.md is missing"):
        make_report(tmp_path / "report", recorder)
