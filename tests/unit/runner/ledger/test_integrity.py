"""A torn result file is seen, whatever tore it, and what is no result is left out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.ledger.integrity import EDGE_BYTES, damaged, fingerprints

LARGE = 3 * EDGE_BYTES


def changed(path: Path, position: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(position)
        stream.write(b"\xff")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapters" / "point_1").mkdir(parents=True)
    (tmp_path / "adapters" / "point_1" / "adapter_model.safetensors").write_bytes(bytes(LARGE))
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    (tmp_path / "samples.parquet").write_bytes(b"PAR1")
    return tmp_path


def test_results_are_recorded_and_nothing_else(folder: Path) -> None:
    for name in ("status.json", "spec.json", "log.txt", "job.lock", ".x.json.7.tmp", "stop.request"):
        (folder / name).touch()
    for name in ("wandb/run/config.json", "evaluation/spec.json", "evaluation/metrics.jsonl", ".resume.old/state.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "link.json").symlink_to(folder / "metrics.jsonl")

    assert set(fingerprints(folder)) == {
        "adapters/point_1/adapter_model.safetensors",
        "metrics.jsonl",
        "samples.parquet",
    }
    assert damaged(folder, fingerprints(folder)) == []


WEIGHTS = "adapters/point_1/adapter_model.safetensors"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda f: (f / "samples.parquet").unlink(), "samples.parquet is missing"),
    "cut": (lambda f: (f / "metrics.jsonl").write_text('{"lo'), "metrics.jsonl has 4 bytes, not 12"),
    "emptied": (lambda f: (f / "samples.parquet").write_bytes(b""), "samples.parquet has 0 bytes, not 4"),
    "overwritten": (lambda f: (f / "samples.parquet").write_bytes(b"PAR2"), "samples.parquet has other content"),
    "a lost head": (lambda f: changed(f / WEIGHTS, 0), f"{WEIGHTS} has other content"),
    "a lost tail": (lambda f: changed(f / WEIGHTS, LARGE - 1), f"{WEIGHTS} has other content"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_named(folder: Path, fault: str) -> None:
    recorded = fingerprints(folder)
    damage, expected = FAULTS[fault]
    damage(folder)

    assert damaged(folder, recorded) == [expected]


def test_the_middle_of_large_weights_is_not_read(folder: Path) -> None:
    """What the module says it does not see; if this fails, its description is out of date."""
    recorded = fingerprints(folder)
    changed(folder / WEIGHTS, LARGE // 2)

    assert damaged(folder, recorded) == []


@pytest.mark.parametrize("entry", [None, {}, {"size": 12}, 7])
def test_a_record_that_makes_no_sense_is_no_proof(folder: Path, entry: object) -> None:
    assert damaged(folder, {"metrics.jsonl": entry}) != []
