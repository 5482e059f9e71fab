"""The registry of tasks, and what every task promises."""

import math
import subprocess
import sys

import pytest

from experiments.tasks import TASKS, task_of
from experiments.tasks.sentiment import SentimentData
from experiments.tasks.task import TRAINING_REWARD, Task

EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


@EVERY
def test_a_task_has_one_measure_and_the_training_reward(task: Task) -> None:
    roles = [card.role for card in task.scores]

    assert (roles.count("measure"), roles.count("training_reward")) == (1, 1)
    assert TRAINING_REWARD in task.scores
    assert len({card.name for card in task.scores}) == len(roles)


def test_every_response_is_scored_by_every_card_in_their_order(data: SentimentData) -> None:
    scorers = {"vader": lambda texts: [0.0] * len(texts), "gold": lambda texts: [len(text) / 10 for text in texts]}

    found = task_of(data).score_all(scorers, ["a", "abc"], [2.0, math.inf])

    assert found == [{"gold": 0.1, "proxy": 2.0, "vader": 0.0}, {"gold": 0.3, "proxy": math.inf, "vader": 0.0}]
    assert list(found[0]) == [card.name for card in task_of(data).scores]


def test_planning_knows_the_tasks_without_what_is_slow_to_import() -> None:
    code = "import sys, experiments.tasks; print(*{'torch', 'pandas', 'sklearn', 'transformers'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@EVERY
def test_the_work_of_a_task_has_all_functions(task: Task) -> None:
    assert all(
        callable(getattr(task.work, name)) for name in ("prompts", "check", "build_measure", "scorers", "render")
    )
