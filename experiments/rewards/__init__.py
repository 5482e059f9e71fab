"""What PPO maximises: one file a reward. They are found, not listed.

A file exports `REWARD` and imports nothing slow at its top. Sections ``reward_model`` without a kind are `trained`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from experiments.reward_spec import Reward, RewardSettings
from experiments.strict import one_of

REWARDS: dict[str, Reward] = {
    file.name: import_module(f"{__name__}.{file.name}").REWARD for file in iter_modules(__path__)
}


def _with_kind(section: Any) -> Any:
    return {"kind": "trained"} | section if isinstance(section, dict) else section


if TYPE_CHECKING:
    AnyReward = RewardSettings
else:  # the files say which there are
    AnyReward = Annotated[one_of((reward.settings for reward in REWARDS.values()), "kind"), BeforeValidator(_with_kind)]
