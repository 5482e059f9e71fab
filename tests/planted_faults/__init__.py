"""Faults that somebody could make, and the tests that must notice them: ``python -m tests.planted_faults``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

FAULTS = Path(__file__).with_name("faults.yaml")


@dataclass(frozen=True)
class Fault:
    """One fault: what it is in words, where, ``text`` that stands there once, and what it makes of it.

    Attributes:
        tests: ``FILE::FUNCTION``; of each, at least one case must fail.
    """

    fault: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def plant(self, tree: Path) -> None:
        """Write the fault into a copy of the project.

        Raises:
            ValueError: the text does not stand there exactly once.
        """
        path = tree / self.file
        content = path.read_text(encoding="utf-8")
        if content.count(self.text) != 1:
            raise ValueError(f"{self.file} holds {self.text!r} {content.count(self.text)} times, not once")
        path.write_text(content.replace(self.text, self.instead), encoding="utf-8")


def faults() -> list[Fault]:
    """All of `FAULTS`."""
    listed = yaml.safe_load(FAULTS.read_text(encoding="utf-8"))
    return [Fault(**{**entry, "tests": tuple(entry["tests"])}) for entry in listed]
