"""What a section of the report is, and how all of them are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from analysis.report.cells import Report
from analysis.report.signatures import Signature

FIRST, ASIDE, MAIN = "first", "aside", "main"  # places: under the headline, beside it, and below both
APPENDICES = {  # further places, folded: title -> what it holds
    "Scores, win rates and costs": "every arm, every pair, every judge",
    "Over-optimisation": "detectors, suspect responses, fitted curves, switch point",
    "Stability": "over training, samples and seeds",
    "Style drift": "against what the base shows against itself",
    "Every evaluation point": "the numbers behind the curves and the frontier",
    "What the arms learned from": "shared artifacts, each arm's settings, training health",
    "Methods and limits": "how to read the numbers, what they do not prove",
    "Provenance": "checks, hashes, versions, hardware",
}
View = Callable[[Report, Sequence[Signature]], Mapping[str, Any]]


def nothing(report: Report, signed: Sequence[Signature]) -> Mapping[str, Any]:
    """The view of a section whose templates need the report alone."""
    return {}


@dataclass(frozen=True)
class Section:
    """One section. A module of `analysis.report.sections` exports it as ``SECTION``; that is all it takes.

    Its templates are ``templates/sections/NAME.html.j2`` and ``NAME.md.j2``, NAME being the module's; a section without
    one of them is not in that view of the report.
    """

    title: str  # its heading
    place: str  # FIRST, ASIDE, MAIN or a key of APPENDICES
    order: int  # among the sections of its place
    view: View = nothing  # report.json and signatures -> what its templates use besides them


@cache
def all_sections() -> dict[str, Section]:
    """Module name -> section, in the order in which they are shown."""
    package = importlib.import_module("analysis.report.sections")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = {name: importlib.import_module(f"{package.__name__}.{name}").SECTION for name in names}
    places = (FIRST, ASIDE, MAIN, *APPENDICES)
    return dict(sorted(found.items(), key=lambda item: (places.index(item[1].place), item[1].order)))


def in_place(place: str) -> dict[str, Section]:
    """Those of one place."""
    return {name: section for name, section in all_sections().items() if section.place == place}


def combined_view(report: Report, signed: Sequence[Signature]) -> dict[str, Any]:
    """What all sections give their templates: no two use one name for two things."""
    return {key: value for section in all_sections().values() for key, value in section.view(report, signed).items()}
