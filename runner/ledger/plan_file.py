"""``plan.json``: what a sweep consists of, as the runner writes it and the analysis reads it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from experiments.records import ScoreCard
from experiments.rules import Rules
from experiments.strict import Strict

PLAN_SCHEMA = 3


class RegisteredRules(Strict):
    """The rules as they were before anything was trained."""

    sha256: str
    values: Rules


class PlannedArm(Strict):
    """One arm x seed."""

    arm: str
    algorithm: str
    seed: int
    folder: str = Field(description="of its training, inside the sweep's")
    evaluation: str = Field(description="the folder of its evaluation, inside the sweep's")
    knobs: dict[str, Any] = Field(description="its settings, as conf/arm/ has them")


class PlannedContest(Strict):
    """Two sides that are compared: an arm against another one, or against the base."""

    arm: str
    opponent: str


class PlannedCheck(Strict):
    """What must be equal for all arms."""

    check: str
    value: str
    ok: bool


class PlannedJob(Strict):
    """One process's worth of work."""

    label: str
    kind: str
    folder: str = Field(description="of its record, inside the sweep's")
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
    contests: list[PlannedContest]
    scores: list[ScoreCard] = Field(description="of every sample, and of the judges that are asked")
    shared: dict[str, str] = Field(description="kind of a shared job -> its folder")
    settings: dict[str, Any] = Field(description="what every arm has in common, as conf/ has it")
    fairness: list[PlannedCheck]
    jobs: list[PlannedJob]
    command: list[str] = Field(description="arguments of the command that planned it")
