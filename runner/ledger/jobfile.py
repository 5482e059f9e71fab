"""``spec.json``: everything one job is told. Written by the plan, read by `runner.job`, kept beside the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from experiments.errors import InputError
from experiments.spec import JOB_SPECS, JobSpec, Tracker
from experiments.strict import Strict
from runner.ledger.files import write_json
from runner.ledger.reader import read_json


class Need(Strict):
    """A job that must have finished before, and as what."""

    folder: str
    identity: str


class JobFile(Strict):
    """One job. Its identity covers ``kind``, ``spec``, ``inputs`` and the identities of ``needs``, and nothing else."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: str
    label: str
    sweep: str
    arm: str | None
    seed: int | None
    spec: JobSpec
    inputs: dict[str, str]
    needs: dict[str, Need]
    identity: str
    cache_dir: str
    tracker: Tracker

    def computed_identity(self) -> str:
        """The identity that this content has."""
        return identity_of(
            self.kind, self.spec, self.inputs, {role: need.identity for role, need in self.needs.items()}
        )

    def content(self) -> dict[str, Any]:
        """As JSON values, the way it stands in the file."""
        return self.model_dump(mode="json", by_alias=True)

    def write(self, folder: Path) -> None:
        """Write ``spec.json``, and make the folder if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "spec.json", self.content())


def identity_of(kind: str, spec: JobSpec, inputs: Mapping[str, str], needs: Mapping[str, str]) -> str:
    """Hex SHA-256 of everything a job's result depends on, apart from the code.

    Args:
        kind: which stage.
        spec: what it is given.
        inputs: fingerprints of the base model and the data, as far as it uses them.
        needs: role → identity of the job that plays it.
    """
    return digest({"kind": kind, "spec": spec.model_dump(mode="json"), "inputs": inputs, "needs": needs})


def digest(content: object) -> str:
    """Hex SHA-256 of a JSON value, the same for any order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_job_file(folder: Path) -> JobFile:
    """Read and check ``spec.json``.

    Raises:
        InputError: it is missing, is not valid, or was changed after it was written.
    """
    path = folder / "spec.json"
    try:
        content = read_json(path)
        kind = content.get("kind")
        if not isinstance(kind, str) or kind not in JOB_SPECS:
            raise InputError(f"{path}: kind={kind!r} is none of {', '.join(JOB_SPECS)}")
        content["spec"] = JOB_SPECS[kind].model_validate(content.get("spec"))
        job = JobFile.model_validate(content)
    except FileNotFoundError:
        raise InputError(
            f"{folder} is no run folder: it holds no spec.json; `python -m runner +sweep=NAME` makes one"
        ) from None
    except ValidationError as error:
        details = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise InputError(f"{path}: {'; '.join(details)}") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    if job.identity != job.computed_identity():
        raise InputError(
            f"{path} was changed after it was written; choose other settings by `python -m runner … name=OTHER`"
        )
    return job
