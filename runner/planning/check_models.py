"""``python -m runner.planning.check_models CHECK … < RUN``: can the sweep's models do what will be asked of them?

A process of its own, because the checks load the models, and the runner loads no torch. ``RUN`` is one arm's
specification as JSON: all arms of a sweep have the same models. What has passed is remembered in the cache, under the
models' fingerprints, and is not checked again. The last line of the output is a JSON list of what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from experiments.collector import gc_disabled
from experiments.errors import InputError
from experiments.inputs.fingerprint import is_made_here, sha256_of_file
from experiments.inputs.positions import fits_surely
from experiments.spec import RunSpec
from runner.ledger.files import timestamp, write_json
from runner.ledger.jobfile import digest

LIBRARIES = ("peft", "tokenizers", "torch", "transformers")
QUIET = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}  # the GPUs are the jobs'


def check_models(run: RunSpec, inputs: Mapping[str, str]) -> None:
    """Start those checks that have not been passed before, in one process, and wait for it.

    Args:
        run: any arm of the sweep.
        inputs: fingerprints of base_model and data and, if there are any, of embedder and judge.

    Raises:
        InputError: one sentence for each thing that cannot work.
        RuntimeError: the check itself failed.
    """
    folder = Path(run.cache_dir).expanduser().absolute() / "model_checks"
    passed = {check: folder / f"{digest(facts)}.json" for check, facts in _facts(run, inputs).items()}
    missing = [check for check, file in passed.items() if not file.is_file()]
    if not missing:
        return
    command = [sys.executable, "-m", "runner.planning.check_models", *missing]
    environment = os.environ | QUIET
    done = subprocess.run(
        command, input=run.model_dump_json(), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode < 0:
        raise InputError(
            f"model.path={run.model.path}: the check of {', '.join(missing)} was ended by signal {-done.returncode}; "
            "does the main memory hold the model?"
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")
    if problems := json.loads(done.stdout.splitlines()[-1]):
        raise InputError("\n".join(problems))
    with contextlib.suppress(OSError):  # without a cache it is checked again
        folder.mkdir(parents=True, exist_ok=True)
        for check in missing:
            write_json(passed[check], {"check": check, "model": run.model.path, "passed": timestamp()})


def _facts(run: RunSpec, inputs: Mapping[str, str]) -> dict[str, object]:
    """Each check that concerns the sweep, with all that its outcome depends on."""
    models = {key: inputs[key] for key in ("base_model", "judge") if key in inputs}
    budget = (run.budget.num_ranking_prompts, run.budget.num_evaluation_prompts)
    facts: dict[str, object] = {"positions": (models, inputs["data"], run.data.model_dump(mode="json"), budget)}
    if not is_made_here(run.model.path):  # else the weights are settled by a pinned hash, or by code
        facts["base"] = (inputs["base_model"], run.model.dtype, run.model.lora.model_dump())
    if run.judge.reward_model:
        facts["judge"] = (inputs["judge"], run.judge.reward_model.chat_template)
    if run.evaluation.embedder:
        facts["embedder"] = inputs["embedder"]
    own = sha256_of_file(Path(find_spec("experiments.model_check").origin))  # type: ignore[union-attr,arg-type]
    versions = {name: version(name) for name in LIBRARIES}
    return {check: {"check": check, "of": of, "code": own, "versions": versions} for check, of in facts.items()}


def main() -> int:
    """The checks themselves."""
    run, checks = RunSpec.model_validate_json(sys.stdin.read()), sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        problems = _problems(run, checks)
    print(json.dumps(problems))
    return 0


def _problems(run: RunSpec, checks: list[str]) -> list[str]:
    """What is wrong, each thing once."""
    found: list[str] = []
    for name in checks:
        try:
            if name == "positions" and fits_surely(run):
                continue
            with gc_disabled():
                from experiments.model_check import check  # with torch
            check(name, run)
        except InputError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.exit(main())
