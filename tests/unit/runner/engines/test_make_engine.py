import sys
from pathlib import Path
from typing import get_args

import pytest

from runner.__main__ import compose, main
from runner.driving.reasons import failure_reason
from runner.engines import Cause, Outcome, Task, make_engine


@pytest.mark.parametrize(("kind", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_says_how(
    kind: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"runner.engines.{kind}", raising=False)
    monkeypatch.delitem(sys.modules, "runner.engines.slurm_job", raising=False)

    assert main(["+sweep=smoke", f"runs_dir={tmp_path}", f"engine={kind}", "--plan"]) == 2
    assert f"pip install -c constraints.txt -e '.[{kind}]'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ray", "slurm"])
def test_a_plan_needs_no_cluster(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = "ray" if kind == "ray" else "submitit"
    pytest.importorskip(library, reason=f"{library} is not installed (pip install '.[{kind}]')")

    assert main(["+sweep=smoke", f"runs_dir={tmp_path}", f"engine={kind}", "--plan"]) == 0
    assert "at most 64 jobs at a time on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (Outcome("job", -15, "time_limit"), {}, "ended by its time limit"),
        (Outcome("job", None, "node_lost", "NodeDiedError: x"), {}, "its node was lost: NodeDiedError: x"),
        (Outcome("job", None, "cancelled"), {"error": "old"}, "cancelled"),
        (Outcome("job", -11), {}, "killed by SIGSEGV"),
        (Outcome("job", 1), {"error": "ValueError: no"}, "ValueError: no"),
        (Outcome("job", 2), {"state": "failed", "error": "x.csv has changed"}, "x.csv has changed"),
        (Outcome("job", 2), {}, "exit code 2; its log says more"),
        (Outcome("job", 130), {}, "interrupted"),
    ],
)
def test_reasons(outcome: Outcome, status: dict[str, str], reason: str) -> None:
    assert failure_reason(outcome, status) == reason


def test_a_task_that_slurm_has_not_got_yet_can_be_cancelled(tmp_path: Path) -> None:
    """While its controller does not answer, tasks wait here; one that vanished in silence would be waited for."""
    pytest.importorskip("submitit", reason="submitit is not installed (pip install '.[slurm]')")
    settings = compose(["+sweep=smoke", "engine=slurm"])[0].engine
    engine = make_engine(settings, tmp_path)
    engine.start(Task("job", ("true",), tmp_path / "log.txt"))
    engine.cancel("job")

    assert engine.poll() == [Outcome("job", None, "cancelled")]
    assert engine.poll() == []


def test_a_worker_that_ray_killed_for_want_of_memory_is_no_lost_node(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed (pip install '.[ray]')")
    from runner.engines.ray import _outcome

    def get(reference: object) -> None:
        raise ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.\nMore")

    monkeypatch.setattr(ray, "get", get)
    said = "Task was killed due to the node running low on memory."
    assert _outcome("job", object()) == Outcome("job", None, "out_of_memory", said)  # type: ignore[arg-type]


def test_every_cause_has_words() -> None:
    words = [failure_reason(Outcome("job", None, cause), {}) for cause in get_args(Cause) if cause != "exited"]

    assert len(set(words)) == len(words)
    assert "None" not in "".join(words)
