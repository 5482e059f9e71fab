import subprocess
import sys
from pathlib import Path

import pytest

from runner.__main__ import compose, main

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_shows_everything_and_writes_nothing(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+sweep=smoke", "--plan"]) == 0

    shown = capsys.readouterr().out
    for part in ("ppo/seed0/evaluation", "num_prompts: 64", "ok  seeds: 0", "to do", "response tokens", "report"):
        assert part in shown
    assert list(empty_folder.iterdir()) == []


def test_every_shipped_sweep_and_budget_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = "model=tiny_llama"
    assert main(["+sweep=ppo_vs_dpo", tiny, "--plan"]) == 0
    assert main(["+sweep=ppo_vs_dpo", tiny, "budget=full", "--plan"]) == 0

    assert "dpo_high_beta/seed4" in capsys.readouterr().out


def test_seeds_on_the_command_line_multiply_the_arms() -> None:
    runs = compose(["+sweep=ppo_vs_dpo", "seed=0,1,2"])

    assert len(runs) == 15
    assert {run.arm.name for run in runs} == {"ppo", "ppo_high_kl", "dpo", "dpo_high_beta", "ppo_then_dpo"}


def test_the_command_line_wins_over_the_sweep() -> None:
    (run, *_) = compose(["+sweep=ppo_vs_dpo", "budget=smoke", "budget.num_prompts=96", "name=mine"])

    assert (run.budget.num_prompts, run.budget.num_ranking_prompts, run.name) == (96, 16, "mine")


def test_help_names_the_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert not ended.value.code
    assert "sweep: ppo_vs_dpo, recovery, smoke" in capsys.readouterr().out


def test_planning_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from runner.__main__ import main\n"
        f"code = main(['+sweep=ppo_vs_dpo', 'model=tiny_llama', 'runs_dir={tmp_path}', '--plan'])\n"
        "heavy = {'torch', 'transformers', 'trl', 'wandb', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
