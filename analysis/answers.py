"""The form in which every question about evidence is answered, in one of four words, with what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analysis.statistics.bootstrap import Estimate

# Inconclusive: measured, but the evidence reaches no threshold. Not assessable: it could not be measured.
Reply = Literal["yes", "no", "inconclusive", "not assessable"]


@dataclass(frozen=True)
class Evidence:
    """One measurement that an answer rests on.

    Attributes:
        name, meaning: what was measured, for people.
        number: None where it could not be measured; `reading` then says why.
        threshold: what the number is held against, in words with its unit, as registered before training.
        reading: what the number says about the question.
    """

    name: str
    meaning: str
    number: Estimate | None
    threshold: str
    reading: str


@dataclass(frozen=True)
class Answer:
    """One question.

    Attributes:
        question: as the report asks it.
        reply: inconclusive where the evidence does not reach a threshold either way.
        sentence: the reply in words, for this sweep.
        evidence: in the order of its weight.
        would_change: what would change the reply, or settle it (how many prompts or seeds more).
        in_words: the reply to a question that yes and no do not answer, such as where; empty otherwise.
    """

    question: str
    reply: Reply
    sentence: str
    evidence: tuple[Evidence, ...]
    would_change: str
    in_words: str = ""
