"""``python -m runner.planning.checks CHECK … < QUESTION``: can texts and models do what a sweep will ask of them?

The checks load texts and models, and the runner, which waits beside the jobs for hours, loads neither. So they have a
process of their own. What has passed is remembered in the cache, under all that its outcome depends on, and is not
checked again. The last line of the output is a `Findings` as JSON.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import experiments
from experiments.collector import gc_disabled
from experiments.errors import InputError
from experiments.inputs.fingerprint import is_made_here, sha256_of_file
from experiments.positions import fits_surely
from experiments.spec import RunSpec
from experiments.strict import Strict
from experiments.tasks import task_of
from runner.ledger.files import timestamp, write_json
from runner.ledger.jobfile import digest
from runner.ledger.reader import read_small_json

LIBRARIES = ("pandas", "peft", "tokenizers", "torch", "transformers")
CODE = ("inputs/rows.py", "model_check.py", "tasks/**/*.py")  # in experiments/: an answer is as old as they are
QUIET = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}  # the GPUs are the jobs'


class Question(Strict):
    """One arm's specification, which names the texts and models of all arms, and the fingerprint of the texts."""

    run: RunSpec
    data: str


class Findings(Strict):
    """What each check that passed has to say, and what is wrong."""

    passed: dict[str, str]
    problems: tuple[str, ...]


def check_inputs(run: RunSpec, inputs: Mapping[str, str]) -> str:
    """Start those checks that have not been passed before, in one process, and wait for it.

    Args:
        run: any arm of the sweep.
        inputs: fingerprints of base_model and data and, if there are any, of embedder and judge.

    Returns:
        How many rows of the texts are used and why others are not, in a sentence.

    Raises:
        InputError: one sentence for each thing that cannot work.
        RuntimeError: the checks themselves failed.
    """
    folder = Path(run.cache_dir).expanduser().absolute() / "checks"
    files = {check: folder / f"{digest(facts)}.json" for check, facts in _facts(run, inputs).items()}
    said = {check: found["said"] for check, file in files.items() if "said" in (found := read_small_json(file) or {})}
    if missing := [check for check in files if check not in said]:
        findings = _findings(Question(run=run, data=inputs["data"]), missing)
        if findings.problems:
            raise InputError("\n".join(findings.problems))
        said |= findings.passed
        with contextlib.suppress(OSError):  # without a cache it is checked again
            folder.mkdir(parents=True, exist_ok=True)
            for check in missing:
                write_json(files[check], {"check": check, "said": said[check], "passed": timestamp()})
    return str(said["texts"])


def _facts(run: RunSpec, inputs: Mapping[str, str]) -> dict[str, object]:
    """Each check that concerns the sweep, with all that its outcome depends on."""
    models = {key: inputs[key] for key in ("base_model", "judge") if key in inputs}
    budget = (run.budget.num_ranking_prompts, run.budget.num_evaluation_prompts)
    texts = (inputs["data"], run.data.model_dump(mode="json"), budget)
    facts: dict[str, object] = {"texts": texts, "positions": (models, texts)}
    if not is_made_here(run.model.path):  # else the weights are settled by a pinned hash, or by code
        facts["base"] = (inputs["base_model"], run.model.dtype, run.model.lora.model_dump())
    if run.judge.reward_model:
        facts["judge"] = (inputs["judge"], run.judge.reward_model.chat_template)
    if run.evaluation.embedder:
        facts["embedder"] = inputs["embedder"]
    own = Path(experiments.__file__).parent
    code = [sha256_of_file(file) for pattern in CODE for file in sorted(own.glob(pattern))]
    versions = {name: version(name) for name in LIBRARIES}
    return {check: {"check": check, "of": of, "code": code, "versions": versions} for check, of in facts.items()}


def _findings(question: Question, checks: list[str]) -> Findings:
    command, environment = [sys.executable, "-m", "runner.planning.checks", *checks], os.environ | QUIET
    done = subprocess.run(
        command, input=question.model_dump_json(), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode < 0:
        raise InputError(
            f"model.path={question.run.model.path}: the check of {', '.join(checks)} was ended by signal "
            f"{-done.returncode}; does the main memory hold the model?"
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")
    return Findings.model_validate_json(done.stdout.splitlines()[-1])


def main() -> int:
    """The checks themselves. If the texts cannot be used, nothing else is checked."""
    question, checks = Question.model_validate_json(sys.stdin.read()), sys.argv[1:]
    passed: dict[str, str] = {}
    problems: list[str] = []
    with contextlib.redirect_stdout(sys.stderr):
        for name in checks:
            try:
                passed[name] = _check(name, question)
            except InputError as error:
                problems.append(str(error))
                if name == "texts":
                    break
    print(Findings(passed=passed, problems=tuple(dict.fromkeys(problems))).model_dump_json())
    return 0


def _check(name: str, question: Question) -> str:
    """One check. Returns what it has to say, and raises InputError if it fails."""
    run = question.run
    if name == "texts":
        from experiments.inputs import planned

        with planned.inputs({"data": question.data}, run):
            return task_of(run.data).work.check(
                run.data, run.budget.num_ranking_prompts, run.budget.num_evaluation_prompts
            )
    if name != "positions" or not fits_surely(run):
        with gc_disabled():
            from experiments.model_check import check  # with torch
        check(name, run)
    return ""


if __name__ == "__main__":
    sys.exit(main())
