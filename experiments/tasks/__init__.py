"""What can be learnt: one folder a task. They are found, not listed.

A task's ``__init__.py`` exports `TASK`, and declares its settings and its score cards. It imports nothing slow; the
other files of its folder do the work.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from experiments.strict import one_of
from experiments.tasks.task import MeasureSettings as MeasureSettings
from experiments.tasks.task import Task, TaskData

TASKS: dict[str, Task] = {
    folder.name: import_module(f"{__name__}.{folder.name}").TASK for folder in iter_modules(__path__) if folder.ispkg
}
if TYPE_CHECKING:
    Data = TaskData
    AnyMeasure = MeasureSettings
else:  # the folders say which there are
    Data = one_of((task.data for task in TASKS.values()), "task")
    AnyMeasure = one_of((task.of_measure for task in TASKS.values()), "task")


def task_of(settings: TaskData | MeasureSettings) -> Task:
    """The task that a section ``data``, or what is left of it for the measure, belongs to."""
    return TASKS[settings.task]
