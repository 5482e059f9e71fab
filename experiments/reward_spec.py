"""What a reward is: settings, and what a score means. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.strict import Strict
from experiments.tasks.task import TRAINING_REWARD


class RewardSettings(Strict):
    """What every section ``reward_model`` has."""

    kind: str

    def prompts_trained_on(self, num_prompts: int) -> int:
        """Prompts whose samples go through a backward pass, once for each pass; ``num_prompts`` have been sampled."""
        return 0


@dataclass(frozen=True)
class Reward:
    """One reward. It is fixed before PPO starts, and its scale is the spread of the base's samples.

    Attributes:
        settings: the section ``reward_model``; its field `kind` has one value, the name of the reward's file.
        meaning: of one score, in a sentence, for the report.
        score: settings and rendered texts -> one finite number each. None: a model is trained on the ranking data.
    """

    settings: type[RewardSettings]
    meaning: str = TRAINING_REWARD.meaning
    score: Callable[[Any, Sequence[str]], Sequence[float]] | None = None
