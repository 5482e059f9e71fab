"""The form in which every question about evidence is answered, in one of four words, with what it rests on.

Gates, questions, detectors, audits and fitted peaks all reply in these words. What a reader sees instead, such as
“✓ pass” or “■ fired”, is a label that the section of the report makes of the reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analysis.statistics.bootstrap import Estimate

# Inconclusive: measured, but that does not settle it. Not assessable: it could not be measured.
# "No" to whether a sign is shown says that it is not shown. That does not prove that nothing is wrong.
Reply = Literal["yes", "no", "inconclusive", "not assessable"]


def opposite(reply: Reply) -> Reply:
    """The reply to the opposite question."""
    swapped: dict[Reply, Reply] = {"yes": "no", "no": "yes"}
    return swapped.get(reply, reply)


@dataclass(frozen=True)
class Evidence:
    """One measurement that an answer rests on.

    Attributes:
        name, meaning: what was measured, for people.
        number: None if it could not be measured; `reading` then says why.
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
        reply: inconclusive if the evidence does not reach a threshold either way.
        sentence: the reply in words, for this sweep.
        evidence: in the order of its weight.
        would_change: what would change the reply, or settle it (how many prompts or seeds more).
        in_words: the reply to a question that yes and no do not answer, such as “where?”; else empty.
    """

    question: str
    reply: Reply
    sentence: str
    evidence: tuple[Evidence, ...]
    would_change: str
    in_words: str = ""
