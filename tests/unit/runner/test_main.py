import subprocess
import sys
from pathlib import Path

import hydra
import pytest

from experiments.errors import InputError
from runner.__main__ import compose, main

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_shows_everything_and_writes_nothing_but_what_its_checks_found(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["+sweep=smoke", "--plan"]) == 0

    shown = capsys.readouterr().out
    for part in ("ppo/seed0/evaluation", "num_prompts: 64", "ok  seeds: 0", "to do", "response tokens", "report"):
        assert part in shown
    assert [path.name for path in empty_folder.iterdir()] == ["cache"]
    assert {path.name for path in (empty_folder / "cache").iterdir()} <= {"checks"}


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


def test_each_choice_of_files_is_composed_once_and_the_arms_are_those_of_one_command_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    composed: list[list[str]] = []
    once = hydra.compose
    monkeypatch.setattr(
        hydra, "compose", lambda *given, **options: composed.append(given[1]) or once(*given, **options)
    )

    many = compose(["+arm=ppo,dpo", "name=x", "seed=range(0,20)", "data.gold.analyzer=word,char"])
    assert len(many) == 80
    assert len(composed) == 2
    assert [run for run in many if run.seed == 7 and run.data.gold.analyzer == "char"] == [
        *compose(["+arm=ppo", "name=x", "seed=7", "data.gold.analyzer=char"]),
        *compose(["+arm=dpo", "name=x", "seed=7", "data.gold.analyzer=char"]),
    ]


def test_values_that_are_more_than_numbers_and_texts_are_composed_as_hydra_does() -> None:
    adaptive = "arm.adaptive_kl=null,{target:6,horizon_prompts:100}"
    runs = compose(["+arm=ppo", "name=x", adaptive, "seed=1,2"])

    assert [(run.arm.adaptive_kl and run.arm.adaptive_kl.target, run.seed) for run in runs] == [
        (None, 1), (None, 2), (6, 1), (6, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_folder_of_ones_own_may_hold_arms_that_are_named_after_their_file(tmp_path: Path, place: str) -> None:
    """Flags may stand anywhere; what Hydra knows of a job is this job's."""
    (tmp_path / "arm").mkdir()
    own = (
        (ROOT / "conf/arm/ppo.yaml")
        .read_text()
        .replace("name: ppo", "name: ${hydra:runtime.choices.arm}${hydra:job.num}")
    )
    for name in ("mine", "other"):
        (tmp_path / "arm" / f"{name}.yaml").write_text(own)
    flag, sweep = ["--config-dir", str(tmp_path)], ["+arm=mine,other", "name=x", "seed=0,1"]
    runs = compose([*flag, *sweep] if place == "first" else [*sweep, *flag])

    assert [run.arm.name for run in runs] == ["mine0", "mine1", "other2", "other3"]


def test_what_hydra_refuses_in_one_of_the_jobs_is_refused() -> None:
    with pytest.raises(InputError, match="no such arm"):
        compose(["+arm=ppo,pppo", "name=x"])
    with pytest.raises(InputError, match="list values"):
        compose(["+arm=ppo", "name=x", "seed=interval(0,1)"])


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
