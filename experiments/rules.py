"""The rules of judgement, fixed before training: the schema of ``conf/rules/``, read by the analysis only.

None of these values is a published constant; each is a team's decision. The plan records them and their hash before
anything is trained, and the report prints what was changed afterwards. They are no part of any job's identity: changing
one trains nothing again.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Immutable; a key that is not declared is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConfidenceRules(Section):
    """When a result counts as sure."""

    min_seeds_for_high: int = Field(ge=3, description="seeds of each arm from which on confidence can be high")


class Rules(Section):
    """All sections."""

    confidence: ConfidenceRules
