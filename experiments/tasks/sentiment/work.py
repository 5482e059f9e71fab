"""The work of the sentiment task, as the stages call it; see `experiments.tasks.task.TaskWork`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.tasks.sentiment import GOLD, VADER
from experiments.tasks.sentiment.measure import build_measure
from experiments.tasks.sentiment.scorers import GoldScorer, vader_scores
from experiments.tasks.sentiment.texts import check, prompts
from experiments.tasks.task import Scorer

__all__ = ["build_measure", "check", "prompts", "render", "scorers"]


def scorers(folder: Path) -> Mapping[str, Scorer]:
    """Gold, as `build_measure` left it in `folder`, and VADER."""
    return {GOLD.name: GoldScorer.load(folder).score, VADER.name: vader_scores}


def render(prompt: str, response: str) -> str:
    """A continuation is read together with what it continues."""
    return prompt + response
