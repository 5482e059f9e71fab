"""What every engine promises, with real processes on a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_two_places_run_two_tasks_on_devices_of_their_own(bench: Any) -> None:
    """The first two wait for each other, so they can only end side by side; the third finds no room beside them."""
    engine = bench.engine()
    events = bench.folder / "events.txt"
    code = (
        f"log = open({str(events)!r}, 'a')\n"
        "log.write('+' + os.environ['CUDA_VISIBLE_DEVICES'] + '\\n'); log.flush()\n"
        "{meet}"
        "time.sleep(0.3); log.write('-' + os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')\n"
    )
    meet = "pathlib.Path({mine!r}).touch(); wait({other!r})\n"
    files = [str(bench.folder / name) for name in ("a", "b")]
    texts = [meet.format(mine=mine, other=other) for mine, other in (files, files[::-1])] + [""]
    names = ("first", "second", "third")
    tasks = [bench.task(name, code.format(meet=text)) for name, text in zip(names, texts, strict=True)]
    outcomes = bench.run(engine, tasks)

    assert [outcomes[name].exit_code for name in names] == [0, 0, 0]
    held: set[str] = set()
    for sign, device in ((line[0], line[1:]) for line in events.read_text().splitlines()):
        assert (sign == "+") == (device not in held), "two tasks on one device"
        held ^= {device}
        assert len(held) <= 2


def test_a_bad_end_is_told_and_leaves_the_others_alone(bench: Any) -> None:
    engine = bench.engine()
    tasks = [
        bench.task("victim", "os.kill(os.getpid(), signal.SIGKILL)"),
        bench.task("broken", "sys.exit(3)"),
        bench.task("endless", "time.sleep(60)", time_limit_seconds=0.5),
        bench.task("fine", "time.sleep(1); say('done')"),
    ]
    outcomes = bench.run(engine, tasks)

    assert {name: (outcome.exit_code, outcome.cause) for name, outcome in outcomes.items()} == {
        "victim": (-signal.SIGKILL, "exited"),
        "broken": (3, "exited"),
        "endless": (-signal.SIGTERM, "time_limit"),
        "fine": (0, "exited"),
    }
    assert bench.log("fine").read_text() == "done\n"


def test_one_task_is_cancelled_and_its_sibling_goes_on(bench: Any, wait_until: Any, is_alive: Any) -> None:
    engine = bench.engine()
    go = bench.folder / "go"
    engine.start(bench.task("unwanted", "say(os.getpid()); time.sleep(60)"))
    engine.start(bench.task("wanted", f"say('here'); wait({str(go)!r})"))
    for name in ("unwanted", "wanted"):
        bench.wait_for_log(engine, name, "\n")
    engine.cancel("unwanted")
    engine.cancel("never started")
    outcome = bench.drain(engine, 1)["unwanted"]
    go.touch()

    assert outcome.cause == "cancelled", outcome
    wait_until(lambda: not is_alive(int(bench.log("unwanted").read_text())), "the process lives on")
    assert bench.drain(engine, 1)["wanted"].exit_code == 0


def test_stop_ends_everything_with_its_children(bench: Any, wait_until: Any, is_alive: Any) -> None:
    engine = bench.engine()
    code = "child = subprocess.Popen(['sleep', '60']); say(child.pid); child.wait()"
    engine.start(bench.task("family", code))
    bench.wait_for_log(engine, "family", "\n")
    engine.stop()

    wait_until(lambda: not is_alive(int(bench.log("family").read_text())), "a grandchild lives on")


def test_output_environment_and_folder(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"SOMETHING_OF_MINE": "kept", "GOMP_SPINCOUNT": "7"}
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(bench.folder)
    engine = bench.engine()
    code = f"print(*map(os.environ.get, {[*mine]}), os.getcwd(), os.environ['OMP_NUM_THREADS'], file=sys.stderr)"
    for _ in range(2):
        engine.start(bench.task("job", code))
        bench.drain(engine, 1)
    threads = 2 if bench.kind == "local" else 1

    assert bench.log("job").read_text() == f"kept 7 {bench.folder} {threads}\n" * 2  # the log is appended to


def test_driver_is_killed_and_the_sweep_goes_on(bench: Any, wait_until: Any) -> None:
    """Nothing finished is repeated, needs come first, and no job is in two processes at once."""
    runs = bench.folder / "runs" / "smoke"
    runs.mkdir(parents=True)
    (runs / "behaviour.json").write_text(json.dumps({"dpo/seed0": "wait"}))
    settings = bench.settings(artifacts_in_one_process=False).model_dump_json()
    command = [sys.executable, str(HERE / "drive.py"), settings, str(bench.folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (bench.folder / "first.txt").open("wb") as output:
        driver = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    status = runs / "dpo" / "seed0" / "status.json"
    try:
        wait_until(lambda: status.exists() or driver.poll() is not None, "dpo/seed0 does not start")
    finally:
        driver.kill()
        driver.wait()
    trace = [json.loads(line) for line in (runs / "trace.jsonl").read_text().splitlines()]
    ended = {entry["label"] for entry in trace if entry["event"] == "end"}
    (runs / "go").touch()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert again.returncode == 0, again.stdout + again.stderr
    trace = [json.loads(line) for line in (runs / "trace.jsonl").read_text().splitlines()]
    started = [entry["label"] for entry in trace if entry["event"] == "start"]
    assert {"measure", "ranking_data"} <= ended
    assert all(started.count(label) == 1 for label in ended)
    assert started.count("dpo/seed0") <= 2
    plan = json.loads((runs / "plan.json").read_text())
    places = {label: index for index, label in enumerate(entry["label"] for entry in trace if entry["event"] == "end")}
    assert all(places[need] < places[job["label"]] for job in plan["jobs"] for need in job["needs"])
    assert again.stdout.rstrip().endswith("DPO won.")
