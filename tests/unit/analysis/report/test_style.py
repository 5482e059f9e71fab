"""Colours of the page: legible in light, dark and print (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from analysis.report.figures import PALETTE
from analysis.report.render import TEMPLATES

STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")
TEXT = ("--ink", "--muted", "--accent", "--good", "--bad", "--even")
LINES = tuple(f"--c{position}" for position in range(len(PALETTE)))


def scheme(name: str) -> dict[str, str]:
    """The variables in force in light, dark or print."""
    light, dark, printed = (
        dict(re.findall(r"(--\w+): (#[0-9a-f]+);", part))
        for part in re.split(r"@media \(prefers-color-scheme: dark\)|@media print", STYLE)
    )
    return {"light": light, "dark": light | dark, "print": light | printed}[name]


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_known_colours():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_text_and_lines_stand_out(name):
    colours = scheme(name)
    for paper in ("--paper", "--panel"):
        assert {
            key: contrast(colours[key], colours[paper]) for key in TEXT if contrast(colours[key], colours[paper]) < 4.5
        } == {}
    assert {
        key: contrast(colours[key], colours["--paper"])
        for key in LINES
        if contrast(colours[key], colours["--paper"]) < 3
    } == {}


def test_every_variable_that_is_used_is_declared():
    pages = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.rglob("*.j2")) + STYLE
    assert set(re.findall(r"var\((--[\w-]+)\)", pages)) <= {"--sans", "--serif", *scheme("light")}
