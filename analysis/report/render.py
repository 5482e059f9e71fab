"""report.json -> one HTML file that needs nothing else: no script, no network, no font."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.decision import headline as decision
from analysis.report import cells, context, figures, wording
from analysis.report.signatures import Signature
from analysis.report.tables import (
    collapse,
    conditions,
    gates,
    glance,
    judges,
    over_optimisation,
    points,
    questions,
    recovery,
    signatures,
    stability,
    style_drift,
    win_rate,
)

TEMPLATES = Path(__file__).parent / "templates"
CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
APPENDICES = (  # title, what it holds, files of templates/sections
    ("Scores, win rates and costs", "every arm, every pair, every judge", ("glance", "win_rate", "judges", "scores")),
    ("Over-optimisation", "detectors, suspect responses, fitted curves, switch point", ("audit",)),
    ("Stability", "over training, samples and seeds", ("stability",)),
    ("Style drift", "against what the base shows against itself", ("style_drift",)),
    ("Every evaluation point", "the numbers behind the curves and the frontier", ("points",)),
    (
        "What the arms learned from",
        "shared artifacts, each arm's settings, training health",
        ("learned_from", "health"),
    ),
    ("Methods and limits", "how to read the numbers, what they do not prove", ("how_to_read", "limits")),
    ("Provenance", "checks, hashes, versions, hardware", ("provenance",)),
)


@cache  # compiling the templates takes longer than filling them
def environment(autoescape: bool, **filters: Callable[..., str]) -> Environment:
    """Templates of this package; an unknown name in one is an error, not an empty string."""
    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,  # noqa: S701 - off for Markdown only, which has its own escaping
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    engine.filters |= filters
    return engine


def view(report: Mapping[str, Any], signed: Sequence[Signature]) -> dict[str, Any]:
    """What both templates are given: the report, its signatures and its tables."""
    content = dict(report)
    axes = figures.recorded_axes(content)
    return {
        "report": content,
        "number": cells.cell,
        "gates": gates.gates(content),
        "decision_rules": gates.rules(content),
        "questions": questions.questions(content),
        "summary": glance.summary(content),
        "scores_and_costs": glance.scores_and_costs(content),
        "matrix": win_rate.matrix(content),
        "comparisons": win_rate.comparisons(content),
        "by_judge": win_rate.by_judge(content),
        "strengths": win_rate.strengths(content),
        "direct_checks": win_rate.direct_checks(content),
        "outcomes": win_rate.outcomes(content),
        "recovery": recovery.recovery(content),
        "starts": recovery.starts(content),
        "asked": judges.asked(content),
        "missing_judges": content.get("missing_judges", []),
        "gains": over_optimisation.gains(content),
        "audit": over_optimisation.audit(content),
        "laws": over_optimisation.laws(content),
        "intervals": over_optimisation.intervals(content),
        "drift": style_drift.distributions(content),
        "drift_surface": style_drift.surface(content),
        "drift_unseen": style_drift.unseen(content),
        "drift_words": style_drift.in_words(content),
        "drift_rule": style_drift.rule(content),
        "kl": over_optimisation.divergence(content),
        "stability": stability.stability(content),
        "tolerances": stability.tolerances(content),
        "sensitivity": stability.sensitivity(content),
        "collapse": collapse.overview(content),
        "collapse_points": collapse.details(content),
        "artifacts": conditions.artifacts(content),
        "shared_costs": conditions.shared_costs(content),
        "learned_from": conditions.learned_from(content),
        "health": conditions.health(content, context.HEALTH),
        "fairness": conditions.fairness(content),
        "provenance": conditions.provenance(content),
        "words": wording.words(cells.deciding_judge(content)),
        "how_to_read": wording.HOW_TO_READ,
        "limits": wording.LIMITS,
        "signed": signed,
        "signatures": signatures.signatures(signed),
        "levels": get_args(decision.Confidence),
        "axes": axes,
        "points": points.points(content, axes),
        "appendices": APPENDICES,
    }


def render_html(report: Mapping[str, Any], signed: Sequence[Signature] = ()) -> str:
    """The HTML twin of report.json, with signatures. Every text is escaped; only style sheet and figures are markup."""
    pictures = {
        name: {"svg": Markup(picture.svg), "caption": picture.caption}  # noqa: S704 - matplotlib escapes the text it draws
        for name, picture in _pictures(json.dumps(report)).items()
    }
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    template = environment(autoescape=True, breakable=breakable).get_template("report.html.j2")
    return template.render(**view(report, signed), pictures=pictures, style=style, policy=CONTENT_SECURITY_POLICY)


@lru_cache(maxsize=1)  # signing renders one report several times, and drawing takes most of that
def _pictures(report: str) -> dict[str, figures.Picture]:
    return figures.pictures(json.loads(report))


def breakable(name: str) -> Markup:
    """A name that may be broken after its underscores and dots."""
    return Markup(re.sub(r"([_./])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped just before
