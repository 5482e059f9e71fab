"""The endpoint's key: from the environment and from nowhere else, so that no file ever holds it."""

from __future__ import annotations

import os

from experiments.errors import InputError
from experiments.judge_spec import EndpointJudge


def api_key(judge: EndpointJudge) -> str | None:
    """The key, or None for a server that asks for none.

    Raises:
        InputError: the variable that should hold it does not.
    """
    if judge.api_key_variable is None:
        return None
    key = os.environ.get(judge.api_key_variable, "").strip()
    if not key:
        raise InputError(
            f"judge.endpoint.api_key_variable={judge.api_key_variable}: there is no such environment variable, or it "
            "is empty; export it, or set judge.endpoint.api_key_variable=null for a server that asks for no key"
        )
    return key
