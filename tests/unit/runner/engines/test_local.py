from pathlib import Path

import pytest

from experiments.spec import LocalEngine as Settings
from runner.engines.local import available_cores, make_local_engine, visible_devices


def settings(**changes: int) -> Settings:
    base = {"kind": "local", "slots_per_device": 1, "cpu_slots": 2}
    return Settings.model_validate(base | {"artifacts_in_one_process": False, "time_limit_minutes": None} | changes)


def fake_nvidia_smi(folder: Path, body: str) -> str:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        ("3", ["3"]),
        ("GPU-8f1b,MIG-77", ["GPU-8f1b", "MIG-77"]),
        ("0, 1,", ["0", "1"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
    ],
)
def test_inherited_devices_are_opaque_tokens(inherited: str, expected: list[str]) -> None:
    assert visible_devices({"CUDA_VISIBLE_DEVICES": inherited}) == expected


def test_devices_of_the_machine_are_asked_for_by_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path, "echo GPU-1; echo GPU-2"))

    assert visible_devices({}) == ["GPU-1", "GPU-2"]


@pytest.mark.parametrize("body", ["exit 9", "echo 'no driver' >&2; exit 1"])
def test_a_driver_that_does_not_answer_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path, body))

    assert visible_devices({}) == []


def test_slots_and_threads() -> None:
    gpus = make_local_engine(settings(slots_per_device=3), devices=["GPU-1", "GPU-2"])
    cpu = make_local_engine(settings(), devices=[])

    assert gpus.describe().startswith("6 jobs at a time on GPUs GPU-1, GPU-2,")
    assert cpu.describe() == f"2 jobs at a time on the CPU, threads each: {max(1, available_cores() // 2)}"


def test_there_is_always_a_thread() -> None:
    assert make_local_engine(settings(cpu_slots=10_000), devices=[]).describe().endswith("threads each: 1")
