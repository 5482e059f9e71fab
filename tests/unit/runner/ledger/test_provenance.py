import subprocess
from pathlib import Path

import pytest

from runner.ledger import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_code_outside_a_checkout_has_no_commit(checkout: Path) -> None:
    assert provenance.git_state() is None


def test_commit_and_dirty_flag(checkout: Path) -> None:
    git(checkout, "init")
    assert provenance.git_state() == {"commit": None, "dirty": False}

    (checkout / "code.py").write_text("1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    state = provenance.git_state()
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["dirty"] is False

    (checkout / "code.py").write_text("2\n")
    assert (provenance.git_state() or {})["dirty"] is True


def test_a_checkout_further_up_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "PROJECT", tmp_path / "site-packages")

    assert provenance.git_state() is None


def test_gpus_are_named_where_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert provenance.visible_gpu_names() == ["NVIDIA H200"]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert provenance.visible_gpu_names() == []
