"""What every command has in common: whose version it says, and what becomes of it when nobody reads its output."""

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from analysis.__main__ import main as analyse
from runner import job, status, stop
from runner.driving.execute import execute
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot
from runner.ledger.driver import read_driver
from runner.planning.plan import Plan
from runner.terminal import run_command
from runner.watching.display import Display, Terminal

ROOT = Path(__file__).parents[3]
FAKE_JOB = str(Path(__file__).parent / "fake_job.py")
SMOKE = ("runner", "+sweep=smoke", "+arm=dpo", "model=tiny_llama", "tracker=none")


def run_unread(*arguments: str, cwd: Path, python: Sequence[str] = (sys.executable,)) -> tuple[int, str]:
    """Exit code and errors of a command whose output nobody reads, as in ``… | true``."""
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*python, "-m", *arguments]
    with os.fdopen(write) as closed:
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, cwd=cwd, env=environment
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("runner", "--help"), ("runner.stop", "--version"), ("analysis", "--help")],
    ids=" ".join,
)
def test_a_pipe_that_nobody_reads_is_no_traceback(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, said = run_unread(*arguments, cwd=tmp_path)

    assert said == ""
    assert code in {141, -13}  # ended as by SIGPIPE, or by it


def test_a_plan_that_nobody_reads_is_no_failed_job(forked: Sequence[str], tmp_path: Path) -> None:
    assert run_unread(*SMOKE, "--plan", cwd=tmp_path, python=forked) == (141, "")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]  # what the checks found


def test_a_sweep_that_nobody_reads_ends_its_jobs(planned: Callable[..., Plan]) -> None:
    """The console breaks while the first job sleeps."""
    plan, read_end, write_end = planned(), *os.pipe()
    plan.folder.mkdir(parents=True)
    (plan.folder / "behaviour.json").write_text(json.dumps({"measure": "sleep"}))
    console = Terminal()
    console.file = os.fdopen(write_end, "w")
    os.close(read_end)
    with pytest.raises(BrokenPipeError):
        execute(plan, LocalEngine([Slot("", 1)], 1), Display(console), (sys.executable, FAKE_JOB, str(plan.folder)))
    with contextlib.suppress(BrokenPipeError):
        console.file.close()

    driver = read_driver(plan.folder) or {}
    assert (driver["state"], driver["exit_code"]) == ("ended", 130)


VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def run(*arguments: str, cwd: Path) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["runner", "runner.status"])
def test_the_version_is_this_programs(command: str, tmp_path: Path) -> None:
    assert run(command, "--version", cwd=tmp_path) == (0, f"ppo-dpo-runner {VERSION}\n")


def test_the_analysis_says_the_same_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        analyse(["--version"])

    assert (ended.value.code, capsys.readouterr().out) == (0, f"ppo-dpo-runner {VERSION}\n")


@pytest.mark.parametrize("command", [status, stop, job])
def test_help_is_what_the_command_does_and_no_bad_input(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "-h"])

    assert run_command(command.main, command.__doc__) == 0
    said = capsys.readouterr().out
    assert f"python -m {command.__name__}" in said
    assert "Exit codes" in said
