"""The reward that is trained on the ranking data; `experiments.artifacts.reward_model` does the work."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from experiments.reward_spec import Reward, RewardSettings


class RewardModel(RewardSettings):
    """The proxy reward: Bradley-Terry on the ranking data, LoRA and a scalar head on the same base."""

    kind: Literal["trained"] = Field("trained", exclude=True)  # left out, so that records stay as they always were
    learning_rate: float = Field(gt=0)
    num_epochs: int = Field(ge=1, description="passes over the comparisons")
    comparisons_per_step: int = Field(ge=1)
    held_out_fraction: float = Field(gt=0, lt=1, description="share of the prompts kept for the held-out accuracy")

    def prompts_trained_on(self, num_prompts: int) -> int:
        """All that are not held out, once an epoch."""
        return round(num_prompts * (1 - self.held_out_fraction)) * self.num_epochs


REWARD = Reward(RewardModel)
