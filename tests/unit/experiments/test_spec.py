"""Settings of an arm that cannot be meant are refused, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from experiments.spec import DPO, PPO


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ["exo_pair"]}, r"losses=\[exo_pair\] needs label_smoothing > 0"),
        ({"losses": ["sigmoid"], "label_smoothing": 0.1}, r"label_smoothing=0.1 has no effect on losses=\['sigmoid'\]"),
        (
            {"losses": ["aot"]},
            "aot looks at all pairs of a step together: set pairs_per_microbatch to pairs_per_step=8",
        ),
        ({"losses": ["sigmoid", "sft"], "loss_weights": [1, 0.5]}, "sft looks at all pairs of a step together"),
        ({"losses": ["sigmoid", "ipo"]}, "there must be one weight for each loss, and no loss twice"),
        ({"losses": ["ipo", "ipo"], "loss_weights": [1, 1]}, "no loss twice"),
        ({"losses": ["kto"]}, "Input should be 'sigmoid', 'hinge', 'ipo'"),
        ({"losses": [], "loss_weights": []}, "at least 1 item"),
        ({"pairs_per_microbatch": 3}, "pairs_per_microbatch=3 must divide pairs_per_step=8"),
    ],
)
def test_a_dpo_arm_that_cannot_be_meant_is_refused(dpo_arm: DPO, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DPO.model_validate(dpo_arm.model_dump() | changes)


def test_losses_that_look_at_a_whole_step_are_taken_with_whole_steps(dpo_arm: DPO) -> None:
    whole = {"losses": ["sigmoid", "sft"], "loss_weights": [1, 0.5], "pairs_per_microbatch": 8}
    assert DPO.model_validate(dpo_arm.model_dump() | whole).losses == ("sigmoid", "sft")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truncation": "penalty"}, "truncation=penalty with truncation_score=None: penalty needs a score"),
        ({"truncation_score": -1.0}, "truncation=terminal with truncation_score=-1.0"),
        (
            {"adaptive_kl": {"target": 6, "horizon_prompts": 4}},
            "horizon_prompts=4 must be at least prompts_per_update=8",
        ),
        ({"adaptive_kl": {"target": 6, "horizon_prompts": 8}, "kl_coefficient": 0}, "must be above 0 to begin with"),
    ],
)
def test_a_ppo_arm_that_cannot_be_meant_is_refused(ppo_arm: PPO, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PPO.model_validate(ppo_arm.model_dump() | changes)


def test_more_minibatches_than_prompts_are_refused(ppo_arm: PPO) -> None:
    with pytest.raises(ValidationError, match="num_minibatches=9 exceeds prompts_per_update=8"):
        PPO.model_validate(ppo_arm.model_dump() | {"num_minibatches": 9})
