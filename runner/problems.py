"""What is wrong with what the user gave, in words: arm, key, value, reason, and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from experiments.spec import RunSpec


@dataclass(frozen=True)
class Problem:
    """One thing to put right."""

    where: str  # "dpo/seed0", or "" where it concerns no arm in particular
    what: str  # key, value and reason

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.what}" if self.where else self.what


def listing(problems: Sequence[Problem]) -> str:
    """All problems, one a line; what several arms share is said once, with their names."""
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
    """That ``key`` is none of ``choices``, with the nearest of them or, where none is near, all."""
    group = key.rpartition(".")[0] + "."
    known = {choice.removeprefix(group): choice for choice in sorted(set(choices))}
    found = difflib.get_close_matches(key.removeprefix(group), known, n=1)
    hint = f"did you mean {known[found[0]]}?" if found else f"valid are {', '.join(known.values())}"
    return f"{key}: there is no such key; {hint}"


def siblings(key: str) -> list[str]:
    """The dotted keys that ``conf/`` may hold beside ``key``, or all of them where its group is unknown."""
    group = key.rpartition(".")[0]
    return [known for known in schema_keys() if known.rpartition(".")[0] == group] or schema_keys()


def schema_keys() -> list[str]:
    """Every dotted key that ``conf/`` may hold, groups included."""
    return sorted(set(_keys(RunSpec, "")))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in _models(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


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
    if isinstance(detail["input"], dict | BaseModel):
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
