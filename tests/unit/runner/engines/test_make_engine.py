import sys
from pathlib import Path
from typing import get_args

import pytest

from runner.__main__ import main
from runner.engines import Cause, Outcome
from runner.execute import failure_reason


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
        (Outcome("job", 130), {}, "interrupted"),
    ],
)
def test_reasons(outcome: Outcome, status: dict[str, str], reason: str) -> None:
    assert failure_reason(outcome, status) == reason


def test_every_cause_has_words() -> None:
    words = [failure_reason(Outcome("job", None, cause), {}) for cause in get_args(Cause) if cause != "exited"]

    assert len(set(words)) == len(words)
    assert "None" not in "".join(words)
