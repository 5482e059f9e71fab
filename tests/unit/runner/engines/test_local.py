from pathlib import Path

import pytest

from experiments.spec import LocalEngine as Settings
from runner.engines import Task
from runner.engines.devices import Device
from runner.engines.local import LocalEngine, make_local_engine
from runner.engines.process import WAIT_VARIABLES
from runner.engines.slots import Slot, SlotPool


def settings(**changes: int) -> Settings:
    base = {"kind": "local", "slots_per_device": 1, "cpu_slots": 2}
    return Settings.model_validate(base | {"artifacts_in_one_process": False, "time_limit_minutes": None} | changes)


def gpus(*names: str) -> list[Device]:
    return [Device(name, name) for name in names]


def test_slots_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engines.local.available_cores", lambda: 13)
    on_gpus = make_local_engine(settings(slots_per_device=3), devices=gpus("GPU-1", "GPU-2"))
    on_cpu = make_local_engine(settings(cpu_slots=3), devices=[])

    assert on_gpus.describe() == "6 jobs at a time on GPUs GPU-1, GPU-2, threads each: 2"
    assert on_cpu.describe() == "3 jobs at a time on the CPU, threads each: 4"


def test_there_is_always_a_core_for_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engines.local.available_cores", lambda: 2)

    assert make_local_engine(settings(cpu_slots=10_000), devices=[]).describe().startswith("2 jobs at a time")
    many = make_local_engine(settings(slots_per_device=5), devices=gpus("GPU-1"))
    assert many.describe() == "5 jobs at a time on GPUs GPU-1, threads each: 1"


def test_a_task_keeps_the_slot_it_was_promised_until_another_one_asks(tmp_path: Path) -> None:
    engine = LocalEngine([Slot("0", 1), Slot("1", 1)], num_cores=2)
    small, large = Task("small", ("true",), tmp_path / "log"), Task("large", ("true",), tmp_path / "log")
    assert engine.can_take(small)
    assert engine.can_take(small)
    assert engine.can_take(large)
    assert SlotPool([Slot("1", 1)]).take("of another runner") is not None
    assert SlotPool([Slot("0", 1)]).take("of another runner") is None

    engine.stop()
    assert SlotPool([Slot("0", 1)]).take("of another runner") is not None


def test_the_device_of_a_job_is_locked_while_it_works(tmp_path: Path) -> None:
    engine, other = LocalEngine([Slot("0", 1, "GPU-x")], 1), SlotPool([Slot("GPU-x", 1)])
    engine.start(Task("job", ("sleep", "60"), tmp_path / "log"))
    assert other.take("job") is None
    engine.stop()

    assert other.take("job") is not None


def test_what_a_task_needs_decides_where_it_goes(tmp_path: Path) -> None:
    free = {"0": 10, "1": 20}
    engine = LocalEngine([Slot("0", 1), Slot("1", 1)], 2, free_bytes=free.get)
    show = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    engine.start(Task("large", show, tmp_path / "large", needed_gpu_bytes=15))
    assert not engine.can_take(Task("too large", show, tmp_path / "log", needed_gpu_bytes=15))
    engine.start(Task("small", show, tmp_path / "small", needed_gpu_bytes=5))
    while engine._running:
        engine.poll()

    assert [(tmp_path / name).read_text() for name in ("large", "small")] == ["1\n", "0\n"]


@pytest.mark.parametrize(
    ("users", "expected"),
    [({}, "1000 "), ({"GOMP_SPINCOUNT": "5"}, "5 "), ({"OMP_WAIT_POLICY": "ACTIVE"}, " ACTIVE")],
)
def test_threads_do_not_wait_long_for_each_other_with_a_core_unless_the_user_wants_it(
    users: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    engine = LocalEngine([Slot("", 1)], num_cores=2)
    engine.start(Task("job", ("sh", "-c", 'echo "$GOMP_SPINCOUNT $OMP_WAIT_POLICY"'), tmp_path / "log"))
    while engine._running:
        engine.poll()

    assert (tmp_path / "log").read_text() == f"{expected}\n"
