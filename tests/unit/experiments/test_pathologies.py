"""Each flag goes up on what it is for, and a healthy arm raises none."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.arms.pathologies import TrainingFlags
from experiments.training_signs import DPO_SIGNS, PPO_SIGNS, WINDOW

HEALTHY_PPO = {
    "ppo/entropy": 3.0, "ppo/kl_per_token": 0.1, "ppo/clip_fraction": 0.1, "ppo/explained_variance": 0.5,
    "ppo/eos_fraction": 0.2, "ppo/score_std": 1.0, "ppo/sampler_gap": 1e-6, "train/skipped_steps": 0.0,
}  # fmt: skip
HEALTHY_DPO = {"dpo/chosen_reward": 0.1, "dpo/reward_margin": 0.3, "dpo/accuracy": 0.8, "train/skipped_steps": 0.0}


def flags_up(rows: list[dict[str, float]], flags: Any) -> set[str]:
    watch = TrainingFlags(flags)
    out: dict[str, float] = {}
    for row in rows:
        out = watch.with_flags(row)
    return {name.removeprefix("flag/") for name, value in out.items() if name.startswith("flag/") and value}


def test_healthy_arms_raise_no_flag() -> None:
    assert flags_up([HEALTHY_PPO] * 40, PPO_SIGNS) == set()
    assert flags_up([HEALTHY_DPO] * 40, DPO_SIGNS) == set()
    assert flags_up([HEALTHY_PPO], PPO_SIGNS) == set()


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"ppo/entropy": 0.5}, "entropy_collapse"),
        ({"ppo/kl_per_token": 0.6}, "kl_jump"),
        ({"ppo/clip_fraction": 0.5}, "clip_fraction"),
        ({"ppo/explained_variance": -0.1}, "critic_worse_than_a_constant"),
        ({"ppo/score_std": 0.0}, "constant_reward"),
        ({"ppo/score_std": 0.09}, "constant_reward"),
        ({"ppo/sampler_gap": 0.2}, "sampler_gap"),
        ({"train/skipped_steps": 1.0}, "non_finite_gradient"),
        ({"train/loss": float("nan")}, "non_finite_gradient"),
    ],
)
def test_each_ppo_flag_on_its_own(changes: dict[str, float], flag: str) -> None:
    assert flags_up([HEALTHY_PPO] * 3 + [HEALTHY_PPO | changes], PPO_SIGNS) == {flag}


@pytest.mark.parametrize(("row", "flags"), [(HEALTHY_PPO, PPO_SIGNS), (HEALTHY_DPO, DPO_SIGNS)])
def test_a_step_skipped_in_the_very_first_row_is_flagged(row: dict[str, float], flags: Any) -> None:
    assert flags_up([row | {"train/skipped_steps": 2.0}], flags) == {"non_finite_gradient"}


def test_all_truncated_needs_three_updates_in_a_row() -> None:
    cut = HEALTHY_PPO | {"ppo/eos_fraction": 0.0}
    assert flags_up([HEALTHY_PPO, cut, cut], PPO_SIGNS) == set()
    assert flags_up([HEALTHY_PPO, cut, cut, cut], PPO_SIGNS) == {"all_truncated"}


def test_likelihood_displacement_is_a_falling_chosen_log_prob_under_a_rising_margin() -> None:
    displaced = HEALTHY_DPO | {"dpo/chosen_reward": -0.5, "dpo/reward_margin": 1.5}
    failing = HEALTHY_DPO | {"dpo/chosen_reward": -0.5, "dpo/reward_margin": 0.1}
    assert flags_up([HEALTHY_DPO] * WINDOW + [displaced] * WINDOW, DPO_SIGNS) == {"likelihood_displacement"}
    assert flags_up([HEALTHY_DPO] * WINDOW + [failing] * WINDOW, DPO_SIGNS) == set()


def test_saturated_accuracy_and_a_skipped_step() -> None:
    perfect = HEALTHY_DPO | {"dpo/accuracy": 1.0}
    assert flags_up([HEALTHY_DPO] * WINDOW + [perfect] * WINDOW, DPO_SIGNS) == {"saturated_accuracy"}
    assert flags_up([HEALTHY_DPO, HEALTHY_DPO | {"train/skipped_steps": 1.0}], DPO_SIGNS) == {"non_finite_gradient"}


def test_training_flags_keep_the_first_rows_and_the_last() -> None:
    watch = TrainingFlags(())
    for number in range(50):
        watch.with_flags({"number": float(number)})
    kept = [row["number"] for row in watch.rows]
    assert kept == [*range(WINDOW), *range(50 - WINDOW, 50)]
