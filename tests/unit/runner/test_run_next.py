"""The commands that a report prints, run as they stand: pasted into a shell, with ``--plan`` behind them."""

import subprocess
from pathlib import Path

import pytest

from analysis.statistics.sample_size import free_name, runner_command
from runner.__main__ import compose, main
from runner.ledger.command import hydra_text, recorded
from runner.ledger.reader import read_json
from runner.planning.plan import Plan, make_plan

SWEEP = """# @package _global_
# A sweep of one's own.
defaults:
  - override /model: tiny_llama
  - override /data: smoke
  - override /budget: smoke
name: own
hydra:
  sweeper:
    params:
      +arm: ppo,dpo
      seed: 0,1
"""
STARTS = {
    "a name of one's own": ["+sweep=smoke", "name=x", "seed=0", "tracker=none"],
    "several arms": ["+arm=ppo,dpo", "model=tiny_llama", "data=smoke", "budget=smoke", "name='20261130'", "seed=0,1,2"],
    "hostile texts": ["+sweep=smoke", "name=x", r"cache_dir='$(touch pwned) `x` <b> é \' (1),[2] =\\'"],
    "a folder of configurations": ["--config-dir", "my conf, é", "+sweep=own"],
}  # fmt: skip


@pytest.fixture(params=STARTS)
def started(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, list[str]]:
    """A sweep that was started in this folder, in a runs_dir that needs quotes: its plan and command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my conf, é" / "sweep").mkdir(parents=True)
    (tmp_path / "my conf, é" / "sweep" / "own.yaml").write_text(SWEEP)
    arguments = [*STARTS[request.param], "runs_dir='my runs, (é)=[1]'"]
    plan = make_plan(compose(arguments), recorded(arguments))
    plan.write()
    return plan, arguments


def typed(command: str) -> list[str]:
    """The words that a shell makes of a command."""
    done = subprocess.run(["bash", "-c", rf"printf '%s\0' {command}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_each_command_runs_as_it_stands(started: tuple[Plan, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    plan, arguments = started
    said = read_json(plan.folder / "plan.json")["command"]
    again, seeds = runner_command(said), runner_command(said, {"seed": "0,1,2,3,4"})
    name = free_name(plan.name, 32, plan.jobs[-1].identity)
    prompts = runner_command(said, {"name": hydra_text(name), "budget.num_evaluation_prompts": "32"})

    assert typed(again) == ["python", "-m", "runner", *arguments]
    for command in (seeds, prompts):
        capsys.readouterr()
        assert main([*typed(command)[3:], "--plan"]) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        assert f"in {plan.folder.parent / (name if command is prompts else plan.name)}," in shown
        assert ("dpo/seed4" in shown) == (command is seeds)
        assert ("num_evaluation_prompts: 32" in shown) == (command is prompts)
    assert not Path("pwned").exists()


def test_a_plan_keeps_its_command_until_what_is_planned_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is part of the ledger: the same sweep on another engine must not change what was signed."""
    monkeypatch.chdir(tmp_path)
    first = ["+arm=ppo,dpo", "model=tiny_llama", "data=smoke", "budget=smoke", "name=x"]

    def written(*more: str) -> tuple[bytes, list[str]]:
        plan = make_plan(compose([*first, *more]), [*first, *more])
        plan.write()
        path = plan.folder / "plan.json"
        return path.read_bytes(), read_json(path)["command"]

    content, command = written()
    assert command == first
    assert written("engine.cpu_slots=1", "tracker=none") == (content, first)
    assert written("seed=0,1")[1] == [*first, "seed=0,1"]
