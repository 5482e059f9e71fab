"""The endpoint's key. It comes only from the environment, so that no file ever holds it."""

from __future__ import annotations

import os

from experiments.errors import InputError
from experiments.judge_spec import EndpointJudge


def api_key(judge: EndpointJudge) -> str | None:
    """The key, or None for a server that needs none.

    Raises:
        InputError: the variable is missing or empty, or its value cannot be sent. The message repeats neither name nor
            value, because people give the key itself as the name by mistake.
    """
    if judge.api_key_variable is None:
        return None
    key = os.environ.get(judge.api_key_variable, "").strip()
    if not key:
        raise InputError(
            "judge.endpoint.api_key_variable: there is no such environment variable, or it is empty (its name is not "
            "shown, because it may be the key itself); export it, or set judge.endpoint.api_key_variable=null for a "
            "server that asks for no key"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            "judge.endpoint.api_key_variable: the key in that environment variable cannot be sent, because it holds "
            "characters other than printable ASCII; copy it again"
        )
    return key
