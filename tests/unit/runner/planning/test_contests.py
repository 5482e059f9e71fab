"""Who is compared with whom: by default, and as a sweep declares it."""

from collections.abc import Callable
from typing import Any

import pytest

from experiments.catalogue import CATALOGUE
from experiments.errors import InputError
from experiments.spec import RunSpec
from runner.__main__ import compose
from runner.planning.contests import between_arms, contest_problems
from runner.planning.plan import make_plan

DEFAULT = "+arm=ppo,ppo_high_kl,dpo,dpo_high_beta,ppo_then_dpo"


@pytest.fixture(scope="module")
def arms() -> Callable[..., list[RunSpec]]:
    def make(*overrides: str) -> list[RunSpec]:
        return compose(["+sweep=smoke", *overrides])

    return make


def pairs(runs: list[RunSpec]) -> list[tuple[str, str]]:
    return [(contest.arm, contest.opponent) for contest in between_arms(runs)]


def test_by_default_every_algorithm_meets_every_other_and_a_staged_arm_all_of_them(arms: Any) -> None:
    plain = [(ppo, dpo) for ppo in ("ppo", "ppo_high_kl") for dpo in ("dpo", "dpo_high_beta")]
    assert pairs(arms(DEFAULT)) == plain + [
        ("ppo_then_dpo", arm) for arm in ("ppo", "ppo_high_kl", "dpo", "dpo_high_beta")
    ]


def test_a_sweep_may_declare_its_contests_by_arm_or_by_algorithm(arms: Any) -> None:
    declared = "contests=[{arm: dpo, opponent: ppo}, {arm: algorithm:dpo, opponent: algorithm:ppo}]"
    assert pairs(arms("+arm=ppo,dpo,dpo_high_beta", declared)) == [("dpo", "ppo"), ("dpo_high_beta", "ppo")]
    assert pairs(arms("+arm=ppo,dpo", "contests=[]")) == []


@pytest.mark.parametrize(
    ("contest", "words"),
    [
        ("{arm: ppo, opponent: dp0}", "contests: opponent=dp0 is no side of this sweep (did you mean dpo?)"),
        ("{arm: algorithm:kto, opponent: dpo}", "there are ppo, dpo, algorithm:ppo, algorithm:dpo"),
        ("{arm: ppo, opponent: ppo}", "contests: ppo is compared with itself"),
    ],
)
def test_a_contest_of_an_arm_that_is_not_there_is_refused(arms: Any, contest: str, words: str) -> None:
    runs = arms("+arm=ppo,dpo", f"contests=[{contest}]")
    assert words in str(contest_problems(runs)[0])
    with pytest.raises(InputError, match="contests: "):
        make_plan(runs)


def test_each_algorithm_of_the_catalogue_is_named_by_its_settings() -> None:
    for name, record in CATALOGUE.items():
        assert record.settings.model_fields["algorithm"].annotation.__args__ == (name,)  # type: ignore[union-attr]
