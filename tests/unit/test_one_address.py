"""A score has one address: no file outside its task's folder knows it by name."""

import re
from pathlib import Path

import pytest

from experiments.tasks import TASKS

ROOT = Path(__file__).parents[2]
PACKAGES = ("experiments", "runner", "analysis")
TASK_FOLDER = ROOT / "experiments" / "tasks"
FILES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
)
SHARED = {card.name for card in next(iter(TASKS.values())).scores if card.role == "training_reward"}


def names_of(task: str) -> set[str]:
    return {card.name for card in TASKS[task].scores} - SHARED


@pytest.mark.parametrize("task", sorted(TASKS))
def test_only_a_tasks_own_files_name_its_scores(task: str) -> None:
    words = re.compile("|".join(map(re.escape, sorted(names_of(task)))), re.IGNORECASE)
    others = [path for path in FILES if not path.is_relative_to(TASK_FOLDER / task)]

    assert [str(path) for path in others if words.search(path.read_text(encoding="utf-8"))] == []


def test_the_search_sees_what_it_forbids() -> None:
    own = [path for path in FILES if path.is_relative_to(TASK_FOLDER / "sentiment")]

    assert {"gold", "vader"} == names_of("sentiment")
    assert any("gold" in path.read_text(encoding="utf-8") for path in own)
