"""What is wrong with what the user gave, in words: arm, key, value, reason, and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from experiments.errors import InputError
from experiments.spec import RunSpec

CONF = Path(__file__).parents[2] / "conf"
ADDED = {"arm", "sweep"}  # groups without a default; a person chooses of them with a plus sign


@dataclass(frozen=True)
class Problem:
    """One thing to put right."""

    where: str  # "dpo/seed0", or "" if it concerns no arm in particular
    what: str  # key, value and reason


def listing(problems: Sequence[Problem]) -> str:
    """All problems, one a line. A problem that several arms share is listed once, with their names."""
    arms: dict[str, list[str]] = {}
    for problem in problems:
        arms.setdefault(problem.what, []).append(problem.where)
    lines = [
        f"  {', '.join(filter(None, where))}: {what}" if any(where) else f"  {what}" for what, where in arms.items()
    ]
    return "\n".join([f"{len(lines)} problem{'s' * (len(lines) > 1)}:", *lines])


def validation_problems(where: str, error: ValidationError) -> list[Problem]:
    """Pydantic's errors about a `RunSpec` as problems of the arm ``where``."""
    return [Problem(where, _describe(dict(detail))) for detail in error.errors(include_url=False)]


def unknown(key: str, choices: Iterable[str]) -> str:
    """That ``key`` is none of ``choices``. It names the groups that have it, else the nearest choice, else all."""
    if holders := choices_with(key):
        return f"{key}: there is no such key for the chosen {key.partition('.')[0]}; valid with {' or '.join(holders)}"
    group = key.rpartition(".")[0] + "."
    known = {choice.removeprefix(group): choice for choice in sorted(set(choices) - {key})}
    found = difflib.get_close_matches(key.removeprefix(group), known, n=1)
    hint = f"did you mean {known[found[0]]}?" if found else f"valid are {', '.join(known.values())}"
    return f"{key}: there is no such key; {hint}"


def choices_with(key: str) -> list[str]:
    """The files of a group of ``conf/`` that hold ``key`` themselves, as they are chosen: ``engine=ray``."""
    group, *path = key.split(".")
    if not path or not group.isidentifier():
        return []
    plus = "+" if group in ADDED else ""
    files = sorted((CONF / group).glob("*.yaml"))
    return [f"{plus}{group}={file.stem}" for file in files if _holds(yaml.safe_load(file.read_bytes()), path)]


def _holds(content: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def siblings(key: str) -> list[str]:
    """The dotted keys that ``conf/`` may hold beside ``key``, or all of them if its group is unknown."""
    group = key.rpartition(".")[0]
    return [known for known in schema_keys() if known.rpartition(".")[0] == group] or schema_keys()


def schema_keys() -> list[str]:
    """Every dotted key that ``conf/`` may hold, groups included."""
    return sorted({key for key, _ in _fields(RunSpec, "")})


def text_keys() -> set[str]:
    """The dotted keys whose value is a text of any kind."""
    fields = list(_fields(RunSpec, ""))
    others = {key for key, field in fields if not _is_text(field.annotation)}  # of another member of a union
    return {key for key, _ in fields} - others


def secret_keys() -> set[str]:
    """The dotted keys whose value is never repeated, because somebody may give a password or key there."""
    return {key for key, field in _fields(RunSpec, "") if not field.repr}


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for inner in _models(field.annotation):
            yield from _fields(inner, f"{prefix}{name}.")


def _is_text(annotation: Any) -> bool:
    """Whether a field's type is text or a restriction of it, perhaps with None."""
    if get_origin(annotation) is Annotated:
        return _is_text(get_args(annotation)[0])
    members = [member for member in get_args(annotation) if member is not type(None)]
    return annotation is str or (get_origin(annotation) in {Union, UnionType} and all(map(_is_text, members)))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type admits: one, several of a union, or none."""
    candidates = get_args(annotation) or (annotation,)
    return [candidate for candidate in candidates if isinstance(candidate, type) and issubclass(candidate, BaseModel)]


def _describe(detail: dict[str, Any]) -> str:
    path, models = _follow(detail["loc"])
    key = ".".join(path)
    reason = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        names = [name for model in models for name in model.model_fields] + ["sweep"] * (len(path) == 1)
        return unknown(key, [".".join([*path[:-1], name]) for name in names])
    if detail["type"] == "missing":
        return f"{key}: is missing"
    if isinstance(detail["input"], dict | BaseModel) or key in secret_keys():
        return f"{key}: {reason}" if key else reason
    return f"{key}={detail['input']}: {reason[0].lower()}{reason[1:]}"


def _follow(location: Sequence[int | str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The key path of a pydantic location without the tags of its unions, and the models that hold its last key."""
    path: list[str] = []
    models: list[type[BaseModel]] = [RunSpec]
    holders = models
    for part in map(str, location):
        tagged = [model for model in models if part in _tags(model)]
        if len(models) > 1 and tagged:
            models = tagged
            continue
        path.append(part)
        holders = models
        models = [
            inner
            for model in models
            if part in model.model_fields
            for inner in _models(model.model_fields[part].annotation)
        ]
    return path, holders


def _tags(model: type[BaseModel]) -> set[str]:
    """The values of the fields that tell the members of a union apart (``algorithm: Literal["ppo"]``)."""
    return {
        value for field in model.model_fields.values() for value in get_args(field.annotation) if isinstance(value, str)
    }


def refuse(problems: Sequence[Problem]) -> None:
    """Stop if there are any problems.

    Raises:
        InputError: lists all of them.
    """
    if problems:
        raise InputError(listing(problems)) from None
