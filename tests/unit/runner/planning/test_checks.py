"""The checks before a sweep: one process, whose success is remembered under the fingerprints of texts and models."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import InputError
from experiments.inputs.models import prepare_model
from experiments.model_spec import Model
from experiments.spec import RunSpec
from runner.planning import checks
from runner.planning.checks import Findings, check_inputs
from runner.planning.plan import make_plan


class Calls:
    """Stands in for the process: what was asked of it, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.problems: tuple[str, ...] = ()
        self.code = 0

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert options["env"]["CUDA_VISIBLE_DEVICES"] == ""  # the GPUs are the jobs'
        self.asked.append(command[3:])
        found = Findings(passed=dict.fromkeys(command[3:], "fine"), problems=self.problems).model_dump_json()
        return subprocess.CompletedProcess(command, self.code, f"noise\n{found}\n", "trouble")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(checks.subprocess, "run", found.run)
    return found


@pytest.fixture
def run(composed: Callable[..., list[RunSpec]]) -> RunSpec:
    return composed("model.path=somewhere/else")[0]


INPUTS = {"base_model": "sha256:1", "data": "sha256:2"}


def test_what_has_passed_is_not_checked_again_until_something_changes(run: RunSpec, calls: Calls) -> None:
    for _ in range(2):
        assert check_inputs(run, INPUTS) == "fine"
    check_inputs(run, INPUTS | {"data": "sha256:3"})
    check_inputs(run, INPUTS | {"base_model": "sha256:4"})
    check_inputs(run.model_copy(update={"model": run.model.model_copy(update={"dtype": "bfloat16"})}), INPUTS)
    assert calls.asked == [["texts", "positions", "base"], ["texts", "positions"], ["positions", "base"], ["base"]]


def test_failures_are_found_again_each_time(run: RunSpec, calls: Calls) -> None:
    calls.problems = ("model.path=x: no", "model.path=x: never")
    for _ in range(2):
        with pytest.raises(InputError, match=r"^model\.path=x: no\nmodel\.path=x: never$"):
            check_inputs(run, INPUTS)
    assert len(calls.asked) == 2


def test_a_check_that_breaks_is_no_success(run: RunSpec, calls: Calls) -> None:
    calls.code = 1
    with pytest.raises(RuntimeError, match="trouble"):
        check_inputs(run, INPUTS)
    calls.code = -9
    with pytest.raises(InputError, match="signal 9; does the main memory hold the model"):
        check_inputs(run, INPUTS)
    assert len(calls.asked) == 2


def test_judge_and_embedder_are_checked_where_they_are_configured(
    composed: Callable[..., list[RunSpec]], calls: Calls, tmp_path: Path
) -> None:
    judge = ["judge=reward_model", f"judge.reward_model.path={tmp_path}", f"evaluation.embedder={tmp_path}"]
    check_inputs(composed(*judge)[0], INPUTS | {"judge": "sha256:5", "embedder": "sha256:6"})
    assert calls.asked == [["texts", "positions", "judge", "embedder"]]  # the tiny base is code


def test_plan_refuses_a_base_without_its_head(
    tiny: Model, cache_dir: Path, composed: Callable[..., list[RunSpec]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The real process, from the command line to its exit code."""
    from runner.__main__ import main

    folder = Path(shutil.copytree(prepare_model(tiny, cache_dir), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    command = ["+sweep=smoke", f"model.path={folder}", f"runs_dir={tmp_path}/runs", f"cache_dir={tmp_path}/cache"]
    capsys.readouterr()  # what making the model said
    assert main([*command, "--plan"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"model.path={folder}: its files lack lm_head.weight, which would be drawn at random, "
        "other numbers in each process\n"
    )
    assert said.out == ""


def test_jobs_are_told_the_commit_of_each_hub_id(
    composed: Callable[..., list[RunSpec]], tiny: Model, cache_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    commit = "c" * 40
    repository = tmp_path / "hub" / "models--some--base"
    shutil.copytree(prepare_model(tiny, cache_dir), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    plan = make_plan(
        composed(
            "model.path=some/base", "model.revision=v1", "evaluation.embedder=some/base@v1",
            "judge=reward_model", "judge.reward_model.path=some/base@v1",
        )
    )  # fmt: skip
    jobs = {job.label: job.file for job in plan.jobs}
    assert {job.spec.model.revision for job in jobs.values() if hasattr(job.spec, "model")} == {commit}
    assert jobs["base_evaluation"].spec.evaluation.embedder == f"some/base@{commit}"  # type: ignore[union-attr]
    judgement = jobs["judges/reward_model"]
    assert judgement.spec.judge.path == f"some/base@{commit}"  # type: ignore[union-attr]
    assert judgement.inputs == {"base_model": f"hub:some/base@{commit}", "judge": f"hub:some/base@{commit}"}
