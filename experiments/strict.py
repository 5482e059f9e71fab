"""The base class of every part of the configuration's schema."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Strict(BaseModel):
    """Immutable; an undeclared key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def from_json(cls, value: Any, name: str) -> Self:
        """Validate a JSON value. Its types must be exact: a text that looks like a number is an error.

        Args:
            value: from a file that somebody may have edited.
            name: key of the value in that file, such as "rules".

        Raises:
            ValueError: names the first wrong key, with dots, and what is wrong.
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
