"""``python -m runner +sweep=NAME [--plan] [key=value …]``: compose, plan, execute.

Hydra composes one configuration per arm x seed and does nothing else: the function it calls validates and collects.
Then the plan is made, checked and run. Exit codes: 0 all finished, 1 a job failed, 2 bad input, 3 stopped by
`runner.stop`, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from experiments.errors import InputError
from experiments.spec import RunSpec
from runner.display import Display, show_plan
from runner.engines import make_engine
from runner.execute import BAD_INPUT, INTERRUPTED, OK, execute
from runner.overrides import advice, misread, quoted
from runner.plan import check_folder, check_keys, check_texts, make_plan
from runner.problems import CONF, Problem, listing, schema_keys, siblings, unknown, validation_problems
from runner.retention import check_starts
from runner.terminal import complain, run_command


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    display = Display()
    try:
        runs = compose([argument for argument in arguments if argument != "--plan"])
        if not runs:
            return OK  # Hydra answered by itself: --help, --cfg job
        plan = make_plan(runs)
        check_folder(plan)
        check_starts(plan)
        engine = make_engine(plan.engine, plan.folder)
        if "--plan" in arguments:
            show_plan(plan, engine.describe(), display)
            return OK
        check_keys(plan)
        check_texts(plan)
        return execute(plan, engine, display, again=shlex.join(["python", "-m", "runner", *arguments]))
    except InputError as error:
        complain(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def compose(overrides: list[str]) -> list[RunSpec]:
    """One specification per arm x seed, as Hydra composes them.

    Args:
        overrides: Hydra's command line.

    Raises:
        InputError: lists everything that is wrong, of all arms.
    """
    runs: list[RunSpec] = []
    problems: list[Problem] = []

    def collect(config: DictConfig) -> None:
        arm = config.get("arm")
        label = f"{arm.get('name', '?')}/seed{config.get('seed')}" if arm else ""
        if not arm:
            problems.append(Problem("", f"no arm was chosen. {choose_a_sweep()}"))
        if missing := sorted(OmegaConf.missing_keys(config)):
            problems.extend(Problem("", f"{key}=… must be given") for key in missing)
            return
        try:
            runs.append(RunSpec.model_validate(OmegaConf.to_container(config, resolve=True, throw_on_missing=True)))
        except ValidationError as error:
            problems.extend(problem for problem in validation_problems(label, error) if arm or not needs_arm(problem))
        except OmegaConfBaseException as error:
            problems.append(Problem(label, _first_line(error)))

    if wrong := [Problem("", what) for what in misread(overrides)]:
        raise InputError(listing(wrong))
    composer = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(collect)
    with _hydra_command_line(overrides):
        try:
            composer()
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(explain(error, overrides)) from None
    if problems:
        raise InputError(listing(problems))
    return runs


def explain(error: Exception, overrides: list[str]) -> str:
    """What Hydra refused, with the valid choices.

    Args:
        error: what Hydra raised.
        overrides: the command line it was given.
    """
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={option}: there is no such {group}; valid are {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    refused = re.match(r"Could not (override|append|delete)[^']*'([^']+)'", str(error))
    key = refused[2] if refused else ""
    if refused and refused[1] == "append":
        return f"{key} has a value already: write {key}=… or ++{key}=…, without the single plus sign"
    if key == "sweep":
        return f"a sweep is added with a plus sign. {choose_a_sweep()}"
    one_arm = any(re.match(r"\+arm=[^,]+$", override) for override in overrides)
    if any(override.startswith("arm.") for override in overrides) and not one_arm:
        return (
            "arm.… means nothing before an arm is chosen: choose one (+arm=NAME arm.key=value), "
            "or set the key in every arm of the sweep (++arm.key=value)"
        )
    return unknown(key, siblings(key)) if key else _first_line(error)


def _unreadable(override: str) -> str:
    """What Hydra's grammar cannot take. The value is only repeated if the key is one that there is."""
    key, equals, _ = override.partition("=")
    name = key.lstrip("+~").partition("@")[0]
    if not equals:
        return f"{override}: is no key=value"
    if name not in schema_keys() and name != "sweep" and not name.startswith("hydra."):
        return unknown(name, siblings(name))
    return f"{override}: Hydra cannot read this value; if it is one text, {advice(override)}"


def choose_a_sweep() -> str:
    """How to choose a sweep, with what there is to choose from."""
    lines = [f"  +sweep={path.stem:<16} {_description(path)}" for path in sorted(CONF.glob("sweep/*.yaml"))]
    return "\n".join(["Choose a sweep:", *lines])


def needs_arm(problem: Problem) -> bool:
    """Whether a problem only says that no sweep was chosen: the sweep gives the arm and the name."""
    return problem.what.startswith(("arm: ", "name="))


@contextmanager
def _hydra_command_line(overrides: list[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``. It is told to raise its errors, and to put its own notes where they are thrown away."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory() as scratch:
        sys.argv = ["python -m runner", f"hydra.sweep.dir={quoted(scratch)}", *overrides]
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            yield
        finally:
            sys.argv, full_error = before
            del os.environ["HYDRA_FULL_ERROR"]
            if full_error is not None:
                os.environ["HYDRA_FULL_ERROR"] = full_error


def _description(path: Path) -> str:
    """The first comment of a configuration file that is no directive."""
    lines = (
        line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    return next((line for line in lines if not line.startswith("@")), "")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


if __name__ == "__main__":
    sys.exit(run_command(main, None))
