"""Rewards and judges are told apart by what they hold, and a function of texts is no reward until it has a scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from pydantic import TypeAdapter

from experiments import rewards
from experiments.artifacts import text_reward
from experiments.errors import InputError
from experiments.judge_spec import Judges
from experiments.reward_spec import Reward, RewardSettings
from experiments.spec import RewardModel, RewardModelJobSpec

SECTION = {"learning_rate": 1e-3, "num_epochs": 2, "comparisons_per_step": 12, "held_out_fraction": 0.25}


class Given(RewardSettings):
    kind: Literal["given"]


def test_a_section_without_a_kind_is_trained_and_its_record_is_as_it_always_was() -> None:
    settings = TypeAdapter(rewards.AnyReward).validate_python(SECTION)

    assert isinstance(settings, RewardModel)
    assert settings.model_dump() == SECTION
    assert RewardModel.model_validate_json(settings.model_dump_json()) == settings


def test_only_what_is_not_held_out_is_trained_on() -> None:
    assert RewardModel(**SECTION).prompts_trained_on(16) == 2 * 12  # type: ignore[arg-type]
    assert Given(kind="given").prompts_trained_on(16) == 0


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda _, texts: [1.0] * len(texts), "all samples of the base score 1"),
        (lambda _, texts: [math.nan] * len(texts), "one finite number for each of 48 texts"),
        (lambda _, texts: [1.0, 2.0], "one finite number for each of 48 texts"),
    ],
    ids=["constant", "not finite", "too few"],
)
def test_what_cannot_be_a_reward_is_refused_before_anything_trains_on_it(
    score: Callable[[Any, Sequence[str]], list[float]],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    artifacts: dict[str, Path],
    tiny: Any,
    cache_dir: Path,
    tmp_path: Path,
    recorder: Any,
) -> None:
    monkeypatch.setitem(rewards.REWARDS, "given", Reward(Given, "", score))
    spec = RewardModelJobSpec.model_construct(
        task="sentiment", model=tiny, reward_model=Given(kind="given"), comparisons="all", seed=0
    )

    with pytest.raises(InputError, match=f"^reward_model.kind=given: .*{message}"):
        text_reward.build(spec, artifacts, tmp_path, cache_dir, recorder)
    assert list(tmp_path.iterdir()) == []


def test_no_two_judges_have_the_same_keys() -> None:
    """Else a job's specification could be read as another judge's."""
    keys = {name: set(get_args(field.annotation)[0].model_fields) for name, field in Judges.model_fields.items()}

    assert [pair for pair in combinations(keys, 2) if keys[pair[0]] == keys[pair[1]]] == []
