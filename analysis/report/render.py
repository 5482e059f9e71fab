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
from analysis.report import cells, figures
from analysis.report.section import APPENDICES, ASIDE, FIRST, MAIN, combined_view, in_place
from analysis.report.signatures import Signature

TEMPLATES = Path(__file__).parent / "templates"
CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    """What both templates are given: the report, its sections, and what these show."""
    content = dict(report)
    return {
        "report": content,
        "number": cells.cell,
        "levels": get_args(decision.Confidence),
        "sections": {place: in_place(place) for place in (FIRST, ASIDE, MAIN)},
        "appendices": [(title, holds, in_place(title)) for title, holds in APPENDICES.items()],
        **combined_view(content, signed),
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
