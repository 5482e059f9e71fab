"""What a task is: settings, score cards, and the work that is imported only when it is done. Imports no torch.

Two things will come with tasks of other kinds. A prompt is one text so far; a conversation becomes another field of
`Prompt`, and `TaskWork.render` stays the one place that makes text of it. All pairs are ranked samples so far; given
pairs are another producer of `experiments.artifacts.ranking.RankedPrompt`, which is all that trainers read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from pydantic import Field

from experiments.records import Recorder, ScoreCard
from experiments.strict import Strict

Part = Literal["train", "evaluation"]
Scorer = Callable[[Sequence[str]], list[float]]  # rendered texts -> one score each

TRAINING_REWARD = ScoreCard(  # every task has it: the reward model is trained on the task's own ranking data
    name="proxy",
    role="training_reward",
    unit="standard deviations of the base",
    direction="higher is better",
    meaning="the score of the reward model, in standard deviations of the base's ranking samples",
    independence="it is the training reward itself, so it never decides who is better",
)


class MeasureSettings(Strict):
    """What every task's measure depends on; a task adds more of its section ``data``, by the names there."""

    task: str
    path: str | None = Field(min_length=1, description="of the texts; null if the task reads no file")
    seed: int = Field(ge=0, description="decides the splits and the shared artifacts; arms have their own seed")


class TaskData(MeasureSettings):
    """What every task's section ``data`` has: how responses are sampled, and which of them are compared."""

    max_new_tokens: int = Field(ge=1, description="length limit of every response, in tokens")
    temperature: float = Field(gt=0, description="sampling temperature of every response; no top-k or top-p")
    samples_per_prompt: int = Field(ge=2, description="base samples per prompt in the ranking data")
    comparisons: Literal["per_arm", "all", "best_worst"] = Field(
        description="which pairs of a prompt's ranked samples are used: 'per_arm' means all for the reward model and "
        "best against worst for DPO; the others give both the same"
    )


@dataclass(frozen=True)
class Prompt:
    """What a model is asked. `prompt_id` is a hash of `text`."""

    prompt_id: str
    text: str


class TaskWork(Protocol):
    """The functions of the module that does a task's work. It may import what is slow to import."""

    def prompts(self, data: Any, part: Part, num_prompts: int) -> list[Prompt]:
        """`num_prompts` different prompts of a part. Raises InputError if there are fewer."""

    def check(self, data: Any, num_training: int, num_evaluation: int) -> str:
        """How many rows are used, in a sentence. Raises InputError if a sweep would not find what it needs."""

    def build_measure(self, settings: Any, folder: Path, recorder: Recorder) -> None:
        """Make what the measure needs, in ``folder``. Raises InputError if it cannot be trusted."""

    def scorers(self, folder: Path) -> Mapping[str, Scorer]:
        """Name of each score card, the training reward apart -> its scorer; ``folder``: of `build_measure`."""

    def render(self, prompt: str, response: str) -> str:
        """The one text that measures and reward-model judges read."""


@dataclass(frozen=True)
class Task:
    """One task: everything that stages, plan and report ask about what is learnt."""

    scores: tuple[ScoreCard, ...]  # exactly one measure and the training reward; also the order of the columns
    data: type[TaskData]  # the section ``data``; its field `task` has one value, the name of the task's folder
    of_measure: type[MeasureSettings]  # the part of it that the measure depends on: the identity of its job
    module: str  # does the work, see `TaskWork`

    @property
    def measure(self) -> str:
        """Name of the score that says how good a response is, and ranks the training pairs."""
        return next(card.name for card in self.scores if card.role == "measure")

    def measure_settings(self, data: TaskData) -> MeasureSettings:
        """The part of `data` that the measure depends on."""
        return self.of_measure(**{name: getattr(data, name) for name in self.of_measure.model_fields})

    def score_all(
        self, scorers: Mapping[str, Scorer], texts: Sequence[str], rewards: Sequence[float]
    ) -> list[dict[str, float]]:
        """The scores of each rendered text by every card, in the order of the cards.

        Args:
            scorers: of this task's work.
            texts: rendered.
            rewards: of the same responses, by the reward model; NaN if there is none yet.
        """
        columns = {name: score(texts) for name, score in scorers.items()} | {TRAINING_REWARD.name: rewards}
        names = [card.name for card in self.scores]
        return [
            dict(zip(names, values, strict=True)) for values in zip(*(columns[name] for name in names), strict=True)
        ]

    @property
    def work(self) -> TaskWork:
        """The module that does the work, imported now."""
        return cast(TaskWork, import_module(self.module))
