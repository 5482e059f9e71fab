"""What every part of the configuration's schema has in common."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Strict(BaseModel):
    """Immutable; a key that is not declared is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def from_json(cls, value: Any, name: str) -> Self:
        """The model of a JSON value, whose types must be exact: no text stands for a number.

        Args:
            value: of a file that somebody may have edited.
            name: what the value is called in that file, such as "rules".

        Raises:
            ValueError: the first thing that is wrong, with its dotted key.
        """
        try:
            return cls.model_validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def one_of(models: Iterable[type[Strict]], key: str) -> Any:
    """The type of a value that is one of some models; ``key``, which differs in all of them, tells which."""
    first, *others = models
    return Annotated[reduce(or_, others, first), Field(discriminator=key)] if others else first
