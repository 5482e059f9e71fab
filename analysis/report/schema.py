"""The schema of report.json: typed, versioned, and the source of SCHEMA.md. Other tools read report.json by it.

The parts that the analysis computes are its own dataclasses; here stands how they are put together. What a key means is
told by the dataclass's docstring, under "Attributes", or by the field's description here.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from analysis.answers import Answer
from analysis.collapse import Collapse
from analysis.decision.gates import Gate
from analysis.decision.headline import Decision
from analysis.decision.recommendation import Recommendation
from analysis.ledger import Missing, RuleChange
from analysis.over_optimisation.audit import Audit, Gain
from analysis.questions.recovery import Checkpoint, Recovery
from analysis.questions.switch_point import Switch
from analysis.scores import Divergence
from analysis.stability import ArmStability, SweepStability
from analysis.statistics.bootstrap import Estimate
from analysis.statistics.scaling_law import Law
from analysis.style.drift import Apart, StyleDrift
from analysis.win_rates import JudgeCard, OutcomeChange
from analysis.win_rates.at_equal_style import StyleControl
from analysis.win_rates.bradley_terry import Scale
from analysis.win_rates.judges import Assessment
from experiments.records import ScoreCard
from experiments.rules import Rules

REPORT_SCHEMA = 2


class Part(BaseModel):
    """A part of report.json: no key beside these."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Number(Part):
    """An estimate with its interval."""

    value: float
    low: float
    high: float
    standard_error: float | None = Field(default=None, description="standard deviation of the resamples")
    unit: str
    n: int = Field(description="prompts (or other units) that it rests on")
    num_seeds: int = Field(default=1, description="seeds that it rests on")
    level: float = Field(description="confidence level of the interval")
    minimum_detectable_effect: float | None = Field(
        default=None, description="smallest true difference that four of five repetitions would show"
    )


class Exact(Part):
    """A number without sampling error."""

    exact: float
    unit: str


@cache
def part_of(data: type) -> type[Part]:
    """The part of report.json that `analysis.report.build.plain` makes of a dataclass."""
    hints = get_type_hints(data)
    meanings = attributes_of(data)
    content: dict[str, Any] = {
        item.name: (json_type(hints[item.name]), Field(description=meanings.get(item.name))) for item in fields(data)
    }
    made: type[Part] = create_model(data.__name__, __base__=Part, __doc__=first_sentence(data), **content)
    return made


def json_type(kind: Any) -> Any:
    """What a Python type is in JSON: estimates are numbers, dataclasses parts, sequences lists."""
    if kind is Estimate:
        return Number
    if is_dataclass(kind):
        return part_of(kind)  # type: ignore[arg-type]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return Union[tuple(json_type(item) for item in arguments)]  # noqa: UP007 - made of values
    if origin in {tuple, list} or (isinstance(origin, type) and issubclass(origin, Sequence)):
        same = len(arguments) == 1 or arguments[-1] is Ellipsis
        return list[json_type(arguments[0])] if same else tuple[tuple(map(json_type, arguments))]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[arguments[0], json_type(arguments[1])]  # type: ignore[valid-type,misc]
    return kind


def attributes_of(data: type) -> dict[str, str]:
    """Name -> meaning, from the docstring's section "Attributes"; several names may share a line."""
    _, _, section = (inspect.getdoc(data) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name.strip(): " ".join(text.split()) for names, text in entries for name in names.split(",")}


def first_sentence(data: type) -> str:
    """What a dataclass is, in its own words."""
    return (inspect.getdoc(data) or "").partition("\n\n")[0].replace("\n", " ")


def _part(data: type) -> Any:
    """`part_of`, as an annotation: what a dataclass becomes is known when this file is imported."""
    return part_of(data)


class DecisionPart(_part(Decision)):  # type: ignore[misc]
    """Which arms were compared in the end, and what may be said of them."""

    minimum_detectable_effect: float | None = Field(description="true lead, in points, that would often be seen")
    selection_rule: str
    confidence_rule: str


class RecommendedBy(Part):
    """One rule of the table that a recommendation is read from."""

    when: str
    then: str
    rests_on: str


class RecommendationPart(_part(Recommendation)):  # type: ignore[misc]
    """What to do, with the whole table of rules."""

    rules: list[RecommendedBy]


class Design(Part):
    """What was compared, on what."""

    base_model: str
    num_evaluation_prompts: int
    samples_per_prompt: int
    num_evaluation_points: int = Field(description="the base included")
    planned_seeds: list[int]
    confidence_level: float
    num_resamples: int
    analysis_seed: int
    base_sd_points: Exact = Field(description="standard deviation of the base's measure over prompts")


class Base(Part):
    """The model that every arm starts from."""

    measure: Number


class WinRatePart(Number):
    """Percent of pairs that one model wins, ties half, by one judge."""

    ties: Number
    p: float = Field(description="two-sided, against 50 percent")
    adjusted_p: float | None = Field(description="after Holm's correction, if the comparison is primary")
    sign_test_p: float | None
    seeds: list[int]
    num_pairs: int
    num_missing: int
    blocked: str | None = Field(description="why it must decide nothing; null if it may")
    ahead: str | None = Field(description="who is ahead; null if that is not shown")
    controlled: _part(StyleControl) | None = None  # type: ignore[valid-type]


class Point(Part):
    """One evaluation point of an arm; point 0 is the base."""

    point: int
    prompts_seen: float | None
    tokens: float | None
    device_seconds: float | None
    kl: Number | Exact
    measure: Number


class Arm(Part):
    """One arm: its final models, its training, and what is said of both."""

    arm: str
    algorithm: str
    algorithm_label: str = Field(description="the algorithm as people call it")
    seeds: list[int]
    measure: Number
    measure_difference: Number = Field(description="arm minus base, on the same prompts and random numbers")
    win_rate: dict[str, WinRatePart | None] = Field(description="against the base, by judge")
    outcomes: list[_part(OutcomeChange)]  # type: ignore[valid-type]
    stability: _part(ArmStability)  # type: ignore[valid-type]
    collapse: _part(Collapse)  # type: ignore[valid-type]
    style_drift: json_type(get_type_hints(StyleDrift)["measures"])  # type: ignore[valid-type]
    style_moved: json_type(get_type_hints(StyleDrift)["moved"])  # type: ignore[valid-type]
    kl: _part(Divergence)  # type: ignore[valid-type]
    curve: list[Point]
    over_optimisation: list[_part(Gain)] = Field(description="gains along training")  # type: ignore[valid-type]
    cost: dict[str, Exact | None] = Field(description="of one training run, mean over seeds; the peak for memory")
    health: dict[str, Exact] = Field(description="training metrics, mean over the last quarter")
    comparisons: str = Field(description="what it learned from, in words")
    knobs: dict[str, Any] = Field(description="its settings in conf/arm")
    verdict: str
    scaling_law: _part(Law)  # type: ignore[valid-type]
    audit: _part(Audit)  # type: ignore[valid-type]
    switch: _part(Switch)  # type: ignore[valid-type]
    switch_answer: _part(Answer)  # type: ignore[valid-type]


class Contest(Part):
    """Two arms against each other."""

    arm: str
    opponent: str
    win_rate: dict[str, WinRatePart | None] = Field(description="percent of pairs that the arm wins, by judge")


class Style(Part):
    """What holds for the style of all arms."""

    embedder: str | None
    rules: dict[str, float]
    floor: str
    script: str | None
    pairs: list[_part(Apart)]  # type: ignore[valid-type]


class JudgePart(_part(JudgeCard)):  # type: ignore[misc]
    """Who prefers, and what that is worth."""

    decides: bool


class SampleResponse(Part):
    """One model's response."""

    arm: str
    text: str
    measure: Exact
    cut: bool = Field(description="whether it reached the length limit")


class Sample(Part):
    """One prompt, answered by all."""

    why: str
    prompt: str
    responses: list[SampleResponse]


class Samples(Part):
    """Responses side by side."""

    rule: str = Field(description="how the prompts were chosen")
    chosen: list[Sample]


class Artifact(Part):
    """How good a shared artifact is."""

    artifact: str
    metric: str
    meaning: str
    number: Number | Exact


class OverOptimisation(Part):
    """How the audit of every arm is to be read."""

    verdict_rule: str
    measured_coverage: list[str]


class RulesPart(Part):
    """The rules in use, and those that were registered before training."""

    registered_sha256: str
    in_use: Rules
    changed: list[_part(RuleChange)]  # type: ignore[valid-type]


class FairnessCheck(Part):
    """One check that the plan made before training."""

    check: str
    value: str
    ok: bool


class Provenance(Part):
    """What the jobs recorded of themselves."""

    inputs: dict[str, str]
    identities: dict[str, str]
    same: dict[str, Any] = Field(description="recorded the same by all jobs")
    different: dict[str, dict[str, Any]] = Field(description="key, then job -> what it recorded")
    caveats: list[str]


class LedgerPart(Part):
    """The files that the report was made from."""

    sha256: str
    num_files: int


class Report(Part):
    """report.json."""

    schema_: Literal[2] = Field(alias="schema", description="version of this schema")
    sweep: str
    created: str = Field(description="when the sweep was planned")
    headline: str
    summary: dict[str, float] = Field(description="flat names and numbers for experiment trackers")
    decision: DecisionPart
    recommendation: RecommendationPart
    questions: list[_part(Answer)]  # type: ignore[valid-type]
    gates: dict[str, list[_part(Gate)]] = Field(description="by arm")  # type: ignore[valid-type]
    missing: list[_part(Missing)]  # type: ignore[valid-type]
    design: Design
    base: Base
    arms: list[Arm]
    stability: _part(SweepStability)  # type: ignore[valid-type]
    head_to_head: list[Contest]
    staged: list[Contest]
    recovery: list[_part(Recovery)]  # type: ignore[valid-type]
    checkpoints: list[_part(Checkpoint)]  # type: ignore[valid-type]
    style: Style
    scores: list[_part(ScoreCard)]  # type: ignore[valid-type]
    judges: dict[str, JudgePart]
    strengths: _part(Scale) | None  # type: ignore[valid-type]
    asked_judges: list[_part(Assessment)]  # type: ignore[valid-type]
    missing_judges: list[_part(Missing)]  # type: ignore[valid-type]
    samples: Samples
    artifacts: list[Artifact]
    shared_costs: dict[str, Exact | None]
    health_metrics: dict[str, str] = Field(description="metric of training health -> what it is")
    settings: dict[str, Any] = Field(description="of the plan")
    over_optimisation: OverOptimisation
    rules: RulesPart
    fairness: list[FairnessCheck]
    provenance: Provenance
    ledger: LedgerPart


class ReportSchemaError(ValueError):
    """A report.json is not of this version's schema. The message names the first key that differs."""


def checked(report: dict[str, Any]) -> dict[str, Any]:
    """The report itself, if it is as the schema says.

    Raises:
        ReportSchemaError: a key is missing, unknown, or holds another type.
    """
    try:
        Report.model_validate(report)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ReportSchemaError(f"report.json: {key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    return report


# ------------------------------------------------------------------------------------------------------------- the page
def page() -> str:
    """SCHEMA.md: every key with its type and meaning, part by part."""
    lines = [
        "# report.json",
        "",
        "What each key of a sweep's `report/report.json` holds, for tools that read it. The schema has a version, "
        f"`schema`: this is {REPORT_SCHEMA}. A change that renames or removes a key raises it. "
        "`analysis/report/schema.py` is the source of this page, and `python -m analysis.report.schema` prints it.",
        "",
        "A number with an interval is a **Number**; one without sampling error is **Exact**. Percent and points "
        "run from 0 to 100. A base SD is the standard deviation over prompts of the base's measure.",
    ]
    for part in _parts(Report):
        lines += [
            "",
            f"## {part.__name__}",
            "",
            (part.__doc__ or "").strip(),
            "",
            "| key | type | meaning |",
            "|---|---|---|",
        ]
        lines += [
            f"| `{item.alias or name}` | {_words(item.annotation)} | {(item.description or '').replace('|', '/')} |"
            for name, item in part.model_fields.items()
        ]
    return "\n".join(lines) + "\n"


def _parts(top: type[BaseModel]) -> list[type[BaseModel]]:
    """All parts that one is made of, itself first, each once; the rules are described in conf/."""
    found: dict[type[BaseModel], None] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, Part) and kind not in found:
            found[kind] = None
            for item in kind.model_fields.values():
                visit(item.annotation)
        for inner in get_args(kind):
            visit(inner)

    visit(top)
    return list(found)


def _words(kind: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return " or ".join("null" if item is type(None) else _words(item) for item in arguments)
    if origin is Literal:
        return " or ".join(f"`{item}`" for item in arguments)
    if origin is list:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"object: {_words(arguments[0])} → {_words(arguments[1])}"
    if origin is tuple:
        return f"[{', '.join(map(_words, arguments))}]"
    plain = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any"}
    if kind in plain:
        return plain[kind]
    linked = isinstance(kind, type) and issubclass(kind, Part)
    return f"[{kind.__name__}](#{kind.__name__.lower()})" if linked else getattr(kind, "__name__", str(kind))


if __name__ == "__main__":
    print(page(), end="")
