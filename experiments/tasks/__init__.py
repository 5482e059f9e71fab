"""What can be learnt: one folder a task. This file is the only list of them.

A task's ``__init__.py`` declares its settings and its score cards and imports nothing slow; the other files of its
folder do the work. A second task makes `Data` and `MeasureSettings` unions that `task` tells apart, as
``Annotated[SentimentData | OtherData, Field(discriminator="task")]``.
"""

from __future__ import annotations

from typing import Literal

from experiments.tasks import sentiment
from experiments.tasks.task import Task

TaskName = Literal["sentiment"]
TASKS: dict[TaskName, Task] = {"sentiment": sentiment.TASK}
Data = sentiment.SentimentData
MeasureSettings = sentiment.SentimentMeasure


def task_of(settings: Data | MeasureSettings) -> Task:
    """The task that a section ``data``, or what is left of it for the measure, belongs to."""
    return TASKS[settings.task]
