"""What a job reads is what was planned: compared before it is read, and once more when it has been.

A fingerprint is a full hash when a process first asks; after that it is a look at the files' sizes, times and inodes
(`sha256_of_file`). So a file that was only touched passes, and one that was exchanged ends the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from experiments.errors import InputError
from experiments.inputs.fingerprint import (
    data_fingerprint,
    embedder_fingerprint,
    model_fingerprint,
    reward_model_fingerprint,
)
from experiments.judge_spec import RewardModelJudge

_checks: dict[str, Callable[[], None]] = {}  # of the job that this process works on, by role


@contextmanager
def inputs(fingerprints: Mapping[str, str], spec: object) -> Iterator[None]:
    """Within it, a job reads what was planned.

    Args:
        fingerprints: role ("base_model", "data", "embedder", "judge") -> what it was when the sweep was planned.
        spec: the job's specification, or any other object that says in the same fields where they lie.

    Raises:
        InputError: names what has changed.
    """
    for role, (shown, fingerprint) in _readers(spec).items():
        if role in fingerprints:
            _checks[role] = partial(_compare, shown, fingerprints[role], fingerprint)
    try:
        for role in _checks:
            compare(role)
        yield
    finally:
        _checks.clear()


def compare(role: str) -> None:
    """Make sure that what has just been read is what was planned. Outside of a job, nothing was.

    Raises:
        InputError: it has changed.
    """
    if role in _checks:
        _checks[role]()


def _readers(spec: object) -> dict[str, tuple[str, Callable[[], str]]]:
    """Role -> its key and value in the configuration, and how to see what is there now."""
    readers: dict[str, tuple[str, Callable[[], str]]] = {}
    if model := getattr(spec, "model", None):
        readers["base_model"] = f"model.path={model.path}", lambda: model_fingerprint(model)
    data = getattr(spec, "data", None) or getattr(spec, "measure", None)
    if path := getattr(data, "path", None):
        readers["data"] = f"data.path={path}", lambda: data_fingerprint(path)
    if embedder := getattr(getattr(spec, "evaluation", None), "embedder", None):
        readers["embedder"] = f"evaluation.embedder={embedder}", lambda: embedder_fingerprint(embedder)
    if isinstance(judge := getattr(spec, "judge", None), RewardModelJudge):
        readers["judge"] = f"judge.reward_model.path={judge.path}", lambda: reward_model_fingerprint(judge.path)
    return readers


def _compare(shown: str, planned: str, fingerprint: Callable[[], str]) -> None:
    if planned.startswith("hub:"):  # the commit that is loaded, and a commit does not change
        return
    found = fingerprint()
    if found != planned:
        raise InputError(
            f"{shown} has changed since the sweep was planned: it was {planned} and is {found}; "
            "put back what was there, or start another sweep with name=…"
        )
