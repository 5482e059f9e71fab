"""`runner.status`, `runner.stop` and the runner on folders that others have written: nothing hangs, nothing escapes."""

import io
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runner import status, stop
from runner.driving.retry import read_retry
from runner.engines import Task
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot
from runner.ledger.driver import read_driver
from runner.ledger.files import write_json
from runner.ledger.integrity import damaged
from runner.ledger.jobfile import read_job_file
from runner.ledger.reader import read_metrics, read_status
from runner.ledger.requests import driver_requests, is_asked_to_end
from runner.ledger.signs import is_locked
from runner.planning.plan import Plan, make_plan
from runner.watching.display import log_tail

ESCAPE = "\x1b[2J\x1b]0;x\x07\r"
DRIVER = {"state": "ended", "exit_code": 1, "command": "again", "updated": "now", "where": "here", "jobs": {}}
STATUS = {"state": "running", "identity": "i", "stage": "s", "done": 1, "total": 2, "unit": "u", "seconds": 5.0}


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """What hangs fails within seconds."""

    def fail(number: int, frame: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def plan(planned: Callable[..., Plan]) -> Plan:
    made = planned()
    made.write()
    return made


def shown(folder: Path) -> str:
    output = io.StringIO()
    assert status.main([str(folder)], Console(file=output, width=200, highlight=False, markup=False)) == 0
    return output.getvalue()


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("place", [pipe, lambda path: path.symlink_to("/dev/zero")], ids=["pipes", "devices"])
def test_pipes_and_devices_in_place_of_every_file_hang_nobody(plan: Plan, place: Callable[[Path], None]) -> None:
    arm = plan.folder / "ppo" / "seed0"
    arm.mkdir(parents=True)
    (plan.folder / ".stop").mkdir()
    names = ("status.json", "spec.json", "metrics.jsonl", "retry.json", "stop.request", "log.txt", "job.lock")
    for path in [arm / name for name in names] + [plan.folder / name for name in ("driver.json", ".stop/a.json")]:
        place(path)

    assert "waiting" in shown(plan.folder)
    assert stop.main([str(plan.folder)]) == 0
    assert (read_status(arm), read_driver(plan.folder), read_retry(arm, "i")) == (None, None, None)
    assert (is_locked(arm / "job.lock"), is_asked_to_end(arm, "a"), log_tail(arm / "log.txt")) == (None, False, [])
    assert driver_requests(plan.folder, "a") == []
    assert damaged(arm, {"log.txt": {"size": (arm / "log.txt").lstat().st_size, "sha256_of_edges": ""}})
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        read_metrics(arm)
    with pytest.raises(ValueError, match=r"spec\.json"):
        read_job_file(arm)
    with pytest.raises(OSError, match=r"log\.txt"):
        LocalEngine([Slot("", 1)], 1).start(Task("job", ("true",), arm / "log.txt"))


def test_a_pipe_in_place_of_the_plan_is_one_error(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    pipe(plan.folder / "plan.json")

    for command in (status.main, stop.main):
        assert command([str(plan.folder)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_runner_takes_a_foreign_status_for_none_and_makes_its_own(plan: Plan, sweep_of: Callable[..., Any]) -> None:
    for job in plan.jobs:
        pipe(job.folder / "status.json")
    pipe(plan.folder / "driver.json")
    sweep = sweep_of(plan)

    assert sweep.run() == 0
    assert "finished" in shown(plan.folder)


@pytest.mark.parametrize(
    "driver",
    [
        {"exit_code": ESCAPE},
        {"jobs": []},
        {"jobs": {"report": []}},
        {"jobs": {"report": {"state": [], "seconds": "x"}}},
        {"jobs": {"measure": {"state": "running", "folder": ["x"]}}},
        {"jobs": {"report": {"state": "failed", "seconds": True}}},
        {"seconds_left": "soon"},
        {"state": 3},
        {"where": {}},
    ],
    ids=str,
)
def test_a_driver_file_of_other_types_is_none(plan: Plan, driver: dict[str, Any]) -> None:
    write(plan.folder / "driver.json", DRIVER | driver)

    assert "no driver.json that can be read" in shown(plan.folder)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"state":' * 50_000,
        json.dumps(STATUS | {"seconds": "x"}),
        json.dumps(STATUS | {"seconds": float("nan")}),
        json.dumps(STATUS)[:-1] + ', "total": ' + "9" * 5000 + "}",
        json.dumps(STATUS | {"done": [1]}),
        json.dumps(STATUS | {"done": True}),
        json.dumps(STATUS | {"latest": {"kl": "x"}}),
        json.dumps(STATUS | {"counted_from": {"done": [], "seconds": {}}}),
        json.dumps(STATUS | {"flags": {"kl": [1]}}),
        json.dumps(STATUS | {"files": {"a": 1}}),
        json.dumps(STATUS | {"peak_memory": [1]}),
        json.dumps(STATUS | {"error": ["x"], "state": "failed"}),
    ],
    ids=lambda content: content[-40:],
)
def test_a_status_of_other_types_is_none(plan: Plan, content: str) -> None:
    write(plan.folder / "ppo" / "seed0" / "status.json", content)

    assert read_status(plan.folder / "ppo" / "seed0") is None
    assert "ppo/seed0" in shown(plan.folder)


def test_numbers_of_any_size_are_shown(plan: Plan) -> None:
    huge = {"seconds": 1e308, "counted_from": {"done": -(10**39), "seconds": -1e308}, "counted_to": 1e308}
    write(plan.folder / "ppo" / "seed0" / "status.json", STATUS | huge | {"latest": {"kl": 1e308}, "total": 10**39})

    assert "ppo/seed0" in shown(plan.folder)


def test_no_escape_reaches_the_terminal(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {key: ESCAPE for key in ("state", "stage", "unit", "error")}
    write(plan.folder / "ppo" / "seed0" / "status.json", STATUS | texts)
    write(plan.folder / "dpo" / "seed0" / "status.json", STATUS | texts | {"state": "running", "host": ESCAPE})
    told = {"report": {"state": ESCAPE, "reason": ESCAPE}}
    write(plan.folder / "driver.json", DRIVER | {"updated": ESCAPE, "command": ESCAPE, "where": ESCAPE, "jobs": told})
    content = json.loads((plan.folder / "plan.json").read_text())
    content["arms"][0]["arm"] = content["jobs"][-1]["label"] = ESCAPE
    write(plan.folder / "plan.json", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.ledger.signs.time.sleep", lambda seconds: None)
        text = shown(plan.folder)
        assert stop.main([str(plan.folder), "nobody"]) == 2
        assert stop.main([str(plan.folder)]) == 0

    assert not {"\x1b", "\x07", "\r"} & set(text + "".join(capsys.readouterr()))
    assert "[2J" in text


@pytest.mark.parametrize(
    "change",
    [
        {"jobs": ["x"]},
        {"jobs": {"label": "x"}},
        {"jobs": [{"label": "x"}]},
        {"jobs": [{"label": "x", "folder": 3}]},
        {"jobs": [{"label": "x", "folder": "../../elsewhere"}]},
        {"jobs": [{"label": "x", "folder": "/etc"}]},
        {"arms": [[]]},
        {"arms": None},
    ],
    ids=str,
)
def test_a_plan_of_other_types_or_places_is_one_error(
    plan: Plan, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write(plan.folder / "plan.json", json.loads((plan.folder / "plan.json").read_text()) | change)

    for command in (status.main, stop.main):
        assert command([str(plan.folder)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_is_said_in_one_sentence(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alive = {"state": "running", "attempt": "a", "host": socket.gethostname(), "pid": 1, "updated": "2126-01-01"}
    write(plan.folder / "driver.json", DRIVER | alive)
    monkeypatch.setattr("runner.stop.driver_sign", lambda *_: status.Sign(True, "it lives"))

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("runner.ledger.requests.write_json", full)
        assert stop.main([str(plan.folder)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "No space left on device" in said.err
    assert stop.main([str(plan.folder)]) == 0
    assert len(driver_requests(plan.folder, "a")) == 1


def test_a_link_under_the_name_that_was_written_first_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / f".x.json.{os.getpid()}.tmp").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "x.json", {"a": 1})

    assert (tmp_path / "precious").read_text() == "kept"
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_a_sound_folder_behind_a_link_is_seen(plan: Plan, tmp_path: Path, composed: Callable[..., Any]) -> None:
    (tmp_path / "link").symlink_to(plan.folder.parent)

    assert "ppo/seed0" in shown(tmp_path / "link" / plan.folder.name)
    assert make_plan(composed()).folder == plan.folder
