from pathlib import Path

import pytest

from experiments.errors import InputError
from runner.engines import devices
from runner.engines.devices import (
    Device,
    FreeMemory,
    available_cores,
    free_gpu_bytes,
    free_memory_bytes,
    visible_devices,
)

A100 = "NVIDIA A100-SXM4-40GB"
TWO = f"""GPU 0: {A100} (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)
GPU 1: {A100} (UUID: GPU-8932ffff-0000-4106-c12f-20bd9faed9f6)"""
MIXED = f"{TWO}\nGPU 2: Tesla V100-PCIE-32GB (UUID: GPU-1)"
# as `nvidia-smi -L` prints it in NVIDIA's MIG user guide
CUT = f"""GPU 0: {A100} (UUID: GPU-a)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: {A100} (UUID: GPU-b)"""


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program called nvidia-smi first in the path, which answers `-L` and anything else with these texts."""

    def make(listing: str, query: str = "", code: int = 0) -> None:
        (tmp_path / "listing").write_text(listing + "\n")
        (tmp_path / "query").write_text(query + "\n")
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && F=listing || F=query\n/bin/cat {tmp_path}/$F\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return make


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        ("3", ["3"]),
        ("GPU-8f1b,MIG-77", ["GPU-8f1b", "MIG-77"]),
        ("0, 1,", ["0", "1"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
        ("5,5", ["5"]),
    ],
)
def test_without_nvidia_smi_inherited_names_are_taken_as_they_are(
    inherited: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert visible_devices({"CUDA_VISIBLE_DEVICES": inherited}) == [Device(token, token) for token in expected]


def test_without_an_inherited_list_all_gpus_and_mig_devices_are_handed_out(lists) -> None:
    lists(CUT)

    assert [device.token for device in visible_devices({})] == [
        "MIG-c7384736-a75d-5afc-978f-d2f1294409fd",
        "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d",
        "GPU-b",
    ]


def test_index_uuid_and_its_beginning_are_one_device_under_one_key(lists) -> None:
    lists(TWO)
    uuid = "GPU-8932ffff-0000-4106-c12f-20bd9faed9f6"

    for name in ("1", uuid, "GPU-8932ff"):
        assert visible_devices({"CUDA_VISIBLE_DEVICES": name}) == [Device(name, uuid)]


def test_mig_devices_by_uuid_by_its_beginning_and_by_the_old_name(lists) -> None:
    lists(CUT)
    old = "MIG-GPU-a/1/0"
    found = visible_devices({"CUDA_VISIBLE_DEVICES": f"MIG-a28,1,{old}"})

    assert [device.key for device in found] == ["MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d", "GPU-b", old]


@pytest.mark.parametrize(
    ("listing", "inherited", "message"),
    [
        (TWO, "2", "2: there is no such GPU; nvidia-smi lists 0 = GPU-8932f937"),
        (TWO, "GPU-8932f", "GPU-8932f: several GPUs begin with it"),
        (TWO, "GPU-7", "GPU-7: no GPU begins with it"),
        (TWO, "0,GPU-89327,1", "GPU-89327: no GPU begins with it"),
        (TWO, "0,GPU-8932f9", "0 and GPU-8932f9 are the same device"),
        (CUT, "0", "0 is cut into MIG devices; name those: MIG-c7384736"),
        (MIXED, "0", "different models.*set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID: 0 = GPU-8932f937"),
    ],
)
def test_what_is_no_one_device_is_refused_with_the_choices(lists, listing: str, inherited: str, message: str) -> None:
    lists(listing)

    with pytest.raises(InputError, match=f"CUDA_VISIBLE_DEVICES.*{message}"):
        visible_devices({"CUDA_VISIBLE_DEVICES": inherited})


def test_among_different_models_an_index_counts_by_bus_and_a_uuid_always_works(lists) -> None:
    lists(MIXED)

    by_bus = {"CUDA_VISIBLE_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_devices(by_bus) == [Device("2", "GPU-1")]
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "GPU-1"}) == [Device("GPU-1", "GPU-1")]


def test_a_driver_that_does_not_answer_means_no_gpu(lists) -> None:
    lists(TWO, code=9)

    assert visible_devices({}) == []
    assert free_gpu_bytes() == {}


def test_free_memory_of_each_gpu_is_asked_for_once_in_a_while(lists, monkeypatch: pytest.MonkeyPatch) -> None:
    lists(TWO, query="GPU-x, 1024\nGPU-y, [N/A]")
    free = FreeMemory()

    assert free("GPU-x") == 1024 * 2**20
    assert free("GPU-y") is None
    lists(TWO, query="GPU-x, 1")
    assert free("GPU-x") == 1024 * 2**20
    monkeypatch.setattr(devices, "ASK_SECONDS", -1.0)
    assert free("GPU-x") == 2**20


def test_a_container_limits_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert available_cores() == 64
    whole = free_memory_bytes()

    for text, cores in (("250000 100000", 2), ("50000 100000", 1), ("max 100000", 64)):
        (tmp_path / "cpu.max").write_text(text)
        assert available_cores() == cores
    (tmp_path / "memory.current").write_text("700")
    (tmp_path / "memory.max").write_text("max")
    assert free_memory_bytes() == pytest.approx(whole, rel=0.5)
    (tmp_path / "memory.max").write_text("1000")
    assert free_memory_bytes() == 300
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 50\n")
    assert free_memory_bytes() == 350
