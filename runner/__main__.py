"""``python -m runner +sweep=NAME [--plan] [key=value …]``: compose, plan, execute.

Hydra composes one configuration per arm x seed and does nothing else: the function it calls validates and collects.
Then the plan is made, checked and run. Exit codes: 0 all finished, 1 a job failed, 2 bad input, 3 stopped by
`runner.stop`, 130 interrupted.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from experiments.errors import InputError
from experiments.spec import RunSpec
from runner.driving.execute import execute
from runner.driving.retention import check_starts
from runner.engines import make_engine
from runner.ledger.command import RUNNER, as_typed, recorded
from runner.planning.overrides import advice, misread, quoted
from runner.planning.plan import check_folder, check_inputs, check_keys, make_plan
from runner.planning.problems import CONF, Problem, refuse, schema_keys, siblings, unknown, validation_problems
from runner.terminal import BAD_INPUT, INTERRUPTED, OK, complain, run_command
from runner.watching.display import Display, show_plan

TAKES_A_VALUE = re.compile(r"--config-(path|name|dir)|-c[pnd]|--package|-p")  # of Hydra's flags


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    display = Display()
    try:
        runs = compose([argument for argument in arguments if argument != "--plan"])
        if not runs:
            return OK  # Hydra answered by itself: --help, --cfg job
        plan = make_plan(runs, recorded(arguments))
        check_folder(plan)
        check_starts(plan)
        engine = make_engine(plan.engine, plan.folder)
        check_keys(plan)
        texts = check_inputs(plan)
        if "--plan" in arguments:
            show_plan(plan, engine.describe(), display)
            display.say(f"\n{texts}")
            return OK
        display.say(texts)
        return execute(plan, engine, display, again=as_typed([*RUNNER, *plan.arguments]))
    except InputError as error:
        complain(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def compose(arguments: list[str]) -> list[RunSpec]:
    """One specification per arm x seed, as Hydra composes them.

    Hydra's own sweeper composes every job twice. Here it reads the command line, and each choice of files is composed
    once; what differs in plain values only, such as seeds, is set in the composed configuration.

    Args:
        arguments: Hydra's command line.

    Raises:
        InputError: lists everything that is wrong, of all arms.
    """
    found: dict[int, RunSpec | list[Problem]] = {}
    failures: list[HydraException | OmegaConfBaseException] = []
    flags, overrides = _flags_and_overrides(arguments)

    def compose_all(_: DictConfig) -> None:
        try:  # Hydra prints what its function raises
            found.update((number, _specification(config)) for number, config in _configurations(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            failures.append(error)

    refuse([Problem("", what) for what in misread(overrides)])
    composer = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(compose_all)
    with _hydra_command_line(flags, [text for text in overrides if not _sweeps(text)]):
        try:
            composer()
        except (HydraException, OmegaConfBaseException) as error:
            failures.append(error)
    if failures:
        raise InputError(explain(failures[0], arguments)) from None
    results = [found[number] for number in sorted(found)]
    refuse([problem for result in results if isinstance(result, list) for problem in result])
    return [result for result in results if isinstance(result, RunSpec)]


def _specification(config: DictConfig) -> RunSpec | list[Problem]:
    """A composed configuration as a specification, or what is wrong with it."""
    arm = config.get("arm")
    label = f"{arm.get('name', '?')}/seed{config.get('seed')}" if arm else ""
    problems = [] if arm else [Problem("", f"no arm was chosen. {choose_a_sweep()}")]
    if missing := sorted(OmegaConf.missing_keys(config)):
        return problems + [Problem("", f"{key}=… must be given") for key in missing]
    try:
        run = RunSpec.model_validate(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except ValidationError as error:
        return problems + [one for one in validation_problems(label, error) if arm or not needs_arm(one)]
    except OmegaConfBaseException as error:
        return [*problems, Problem(label, _first_line(error))]
    return problems or run


# ----------------------------------------------------------------------------------------------------- one job, one arm
def _configurations(overrides: Sequence[str]) -> Iterator[tuple[int, DictConfig]]:
    """Every job of the command line as its number and its configuration, valid until the next is asked for."""
    settings = HydraConfig.get()
    axes = _axes({**(settings.sweeper.params or {})}, overrides)
    jobs = list(itertools.product(*axes))
    plain = {override for axis in axes if _is_plain(axis, axes) for override in axis}
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, job in enumerate(jobs):
        alike[tuple(text for text in job if text not in plain)].append(number)
    parse = OverridesParser.create().parse_override
    values = {text: (parse(text).key_or_group, parse(text).value()) for text in plain}
    for numbers in alike.values():
        config = _composed(settings.job.config_name, jobs[numbers[0]], numbers[0])
        tells_jobs_apart = len(numbers) > 1 and "${hydra:" in OmegaConf.to_yaml(config)
        for number in numbers:
            if tells_jobs_apart:
                config = _composed(settings.job.config_name, jobs[number], number)
            for text in plain.intersection(jobs[number]):
                OmegaConf.update(config, *values[text])
            yield number, config


def _axes(params: Mapping[str, str], overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of all jobs, key by key, in the order of Hydra's sweeper; a later one of a key replaces it."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    axes: dict[str, list[str]] = {}
    for override in parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *overrides]):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise HydraException(
                f"{override.input_line}: an interval cannot be tried out; list values, as in {key}=1,2"
            )
    return list(axes.values())


def _is_plain(axis: Sequence[str], axes: Sequence[Sequence[str]]) -> bool:
    """Whether the jobs of an axis differ in one number or text only, which nothing else on the command line touches."""
    parser = OverridesParser.create()
    overrides, others = parser.parse_overrides(list(axis)), [other[0] for other in axes if other is not axis]
    key = overrides[0].key_or_group
    return (
        len(axis) > 1
        and all(one.type is OverrideType.CHANGE and one.package is None for one in overrides)
        and all(isinstance(one.value(), int | float | str | QuotedString) for one in overrides)
        and not GlobalHydra.instance().config_loader().get_group_options(key)
        and not any(_related(key, parser.parse_override(other).key_or_group) for other in others)
    )


def _related(key: str, other: str) -> bool:
    """Whether one of two dotted keys holds the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _composed(name: str | None, job: Sequence[str], number: int) -> DictConfig:
    """What Hydra composes for one job; interpolations such as ``${hydra:runtime.choices.arm}`` are this job's."""
    config = hydra.compose(name, list(job), return_hydra_config=True)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)
        del config["hydra"]
    return config


def _flags_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and its overrides; `--multirun` says nothing new."""
    flags, overrides = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_override = argument.startswith("~") or ("=" in argument and not argument.startswith("-"))
        if is_override and not TAKES_A_VALUE.fullmatch(before):
            overrides.append(argument)
        elif argument not in {"-m", "--multirun"}:
            flags.append(argument)
    return flags, overrides


def _sweeps(override: str) -> bool:
    """Whether an override stands for several jobs; what is none at all, Hydra refuses in its own place."""
    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except HydraException:
        return False


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
def _hydra_command_line(flags: list[str], overrides: list[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``. It is told to raise its errors, and to put its own notes where they are thrown away."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory() as scratch:
        own = [f"hydra.run.dir={quoted(scratch)}", "hydra.mode=RUN"]
        sys.argv = ["python -m runner", *flags, *overrides, *own]
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
