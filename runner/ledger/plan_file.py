"""``plan.json``: what a sweep consists of, as the runner writes it and the analysis reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from experiments.errors import InputError
from experiments.records import ScoreCard
from experiments.rules import Rules
from experiments.spec import Contest
from experiments.strict import Strict
from runner.ledger.manifest import is_inside
from runner.ledger.reader import read_json

PLAN_SCHEMA = 3


def _inside(folder: str) -> str:
    if not is_inside(folder):
        raise ValueError(f"{folder!r} is outside the run folder")
    return folder


Inside = Annotated[str, AfterValidator(_inside)]


class RegisteredRules(Strict):
    """The rules as they were before anything was trained."""

    sha256: str
    values: Rules


class PlannedArm(Strict):
    """One arm x seed."""

    arm: str
    algorithm: str
    seed: int
    folder: Inside = Field(description="of its training, in the sweep's")
    evaluation: Inside = Field(description="the folder of its evaluation, in the sweep's")
    knobs: dict[str, Any] = Field(description="its settings, as conf/arm/ has them")


class Check(Strict):
    """One condition of a fair comparison."""

    check: str
    value: str = Field(description="what all arms have or, if they differ, which arm has what")
    ok: bool


class PlannedJob(Strict):
    """One process's worth of work."""

    label: str
    kind: str
    folder: Inside = Field(description="of its record, in the sweep's")
    identity: str = Field(description="hash of what its result depends on")
    needs: list[str] = Field(description="labels of the jobs that it waits for")


class PlanFile(Strict):
    """All of ``plan.json``; folders are relative to the sweep's."""

    schema_: Literal[3] = Field(alias="schema")
    sweep: str
    created: str = Field(description="when the sweep was first planned")
    registered_rules: RegisteredRules
    rules: Rules
    arms: list[PlannedArm]
    algorithms: dict[str, dict[str, Any]] = Field(description="name -> what the report says of it, from the catalogue")
    contests: list[Contest]
    scores: list[ScoreCard] = Field(description="of every sample, and of the judges that are asked")
    shared: dict[str, Inside] = Field(description="kind of a shared job -> its folder")
    settings: dict[str, Any] = Field(description="what every arm has in common, as conf/ has it")
    fairness: list[Check]
    jobs: list[PlannedJob]
    command: list[str] = Field(description="arguments of the command that planned it")


def read_plan(runs_dir: Path) -> PlanFile:
    """The plan of the sweep in a folder.

    Raises:
        InputError: the folder holds none, a torn one or one of another version. It names the sweeps that are near.
    """
    path = runs_dir / "plan.json"
    try:
        return PlanFile.from_json(read_json(path), "plan")
    except FileNotFoundError:
        near = sorted(str(path.parent) for path in runs_dir.glob("*/plan.json")) if runs_dir.is_dir() else []
        near = near or sorted(str(path.parent) for path in runs_dir.parent.glob("*/plan.json"))
        hint = f"; sweeps are {', '.join(near)}" if near else ""
        raise InputError(f"{runs_dir} is not the folder of a sweep: it has no plan.json{hint}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no plan that can be read: {error}") from None
