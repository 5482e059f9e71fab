from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.answers import Answer
from analysis.decision import recommendation
from analysis.decision.gates import Gate
from analysis.decision.headline import Final
from analysis.decision.recommendation import Questions, Situation, Sweep
from analysis.statistics.bootstrap import Estimate, simultaneous
from experiments.rules import ConfidenceRules, DecisionRules


def gates(outcome):
    return (Gate("Win rate", "", "", "yes"), Gate("Measure", "", "", outcome))


CLEAR, FAILED, OPEN = gates("yes"), gates("no"), gates("inconclusive")


def rate(low, high, n=32):
    return Estimate((low + high) / 2, low, high, (high - low) / 4, "percent", n)


WON, LOST, EVEN = rate(55, 75), rate(25, 45), rate(45, 57)
SWEEP = Sweep(
    "mine", {"ppo": "ppo", "dpo": "dpo"}, (0, 1, 2), 3, 64, 0, seed_looks=(3, 5, 8), arguments=("+sweep=mine",)
)


def answer(reply):
    return reply and Answer("?", reply, "", (), "")


@pytest.fixture
def recommend(synthetic):
    def make(gold=EVEN, ppo=CLEAR, dpo=CLEAR, base=None, switch=None, sweep=SWEEP, staged=None, **changes):
        ahead = gold and (("ppo" if gold.value > 50 else "dpo") if gold.excludes(50) else None)
        final = (
            Final("ppo", "dpo", "PPO", "DPO", "gold", gold, ahead, "", "vader", gold, True, (0, 1, 2)) if gold else None
        )
        final = replace(final, **changes) if final else None
        return recommendation.recommend(
            sweep,
            final,
            "moderate",
            {"ppo": ppo, "dpo": dpo} | ({"both": staged} if staged else {}),
            Questions(answer(base), None, answer(switch), "point 3"),
            ConfidenceRules(**synthetic.RULES["confidence"]),
            DecisionRules(**synthetic.RULES["decision"]),
            "both" if staged else None,
        )

    return make


ROWS = [  # arguments -> row, what to do, confidence
    ({"ppo": FAILED, "dpo": FAILED}, 0, "base", "moderate"),
    ({"gold": WON, "staged": CLEAR}, 1, "PPO then DPO", "moderate"),
    ({"gold": WON, "switch": "yes"}, 2, "PPO then DPO", "low"),
    ({"gold": WON, "switch": "no", "staged": FAILED}, 3, "PPO", "moderate"),
    ({"gold": LOST, "ppo": OPEN}, 4, "DPO", "moderate"),
    ({"dpo": FAILED}, 5, "PPO", "moderate"),
    ({"ppo": FAILED}, 6, "DPO", "moderate"),
    ({"base": "yes"}, 7, "DPO", "low"),
    ({"base": "no"}, 8, "PPO", "low"),
    ({"base": "inconclusive"}, 9, "inconclusive", "inconclusive"),
]


@pytest.mark.parametrize(("case", "row", "choice", "confidence"), ROWS)
def test_every_row_is_reached(recommend, case, row, choice, confidence):
    found = recommend(**case)
    assert (found.row, found.choice, found.confidence) == (row, choice, confidence)
    assert found.would_change


def test_no_row_is_left_out():
    assert [row for _, row, *_ in ROWS] == list(range(len(recommendation.RULES)))


@pytest.mark.parametrize(
    "case",
    [
        {"gold": WON, "ppo": OPEN},
        {"gold": WON, "ppo": FAILED, "dpo": OPEN},
        {"gold": LOST, "dpo": OPEN},
        {"ppo": OPEN, "dpo": OPEN, "base": "yes"},
        {"gold": None},
    ],
)
def test_an_open_gate_is_no_recommendation(recommend, case):
    assert recommend(**case).choice == "inconclusive"


def test_sentences_name_arm_and_point(recommend):
    assert recommend(gold=WON, switch="yes").sentence == "Shape with PPO (ppo) up to point 3, then set with DPO."
    assert recommend(gold=LOST).sentence == "Set with DPO now (dpo)."
    assert recommend(gold=WON, ppo=OPEN).sentence == "Do not choose yet: ppo leads, but is inconclusive in Measure."
    assert recommend(gold=None).sentence == "Do not choose yet: there is no comparison of a PPO arm with a DPO arm."
    assert recommend(staged=CLEAR).sentence == "Shape with PPO, then set with DPO, as both did."
    led = recommend(gold=WON, ppo=OPEN, staged=FAILED)
    assert led.sentence == "Do not choose yet: both leads PPO's arm and DPO's, but fails Measure."
    assert led.because[2] == "both: fails Measure"
    assert recommend(ppo=OPEN).because == ("ppo: is inconclusive in Measure", "dpo: clears every gate")


def test_one_algorithm_alone_cannot_send_anyone_back_to_the_base():
    now = recommendation.situation(
        replace(SWEEP, algorithms={"ppo": "ppo"}), None, {"ppo": FAILED}, Questions(nearly_right=None)
    )
    assert now == Situation(None, None, False, "not shown", None, None)


def test_an_arm_that_clears_keeps_the_base_from_being_recommended(recommend, synthetic):
    found = recommendation.situation(
        replace(SWEEP, algorithms={"ppo": "ppo", "ppo_b": "ppo", "dpo": "dpo"}),
        None,
        {"ppo": FAILED, "ppo_b": OPEN, "dpo": FAILED},
        Questions(nearly_right=None),
    )
    assert not found.all_fail


class TestNextRuns:
    def test_one_seed_asks_for_three_before_it_asks_for_prompts(self, recommend):
        runs = recommend(sweep=replace(SWEEP, planned_seeds=(4,), num_seeds=1)).next_runs
        assert [run.command for run in runs] == [
            "python -m runner +sweep=mine seed=0,1,4",
            # 51 ± 6 on the 32 of 64 that were reported on: 36 times as many
            "",
        ]
        assert "too small to be shown with 2000 evaluation prompts" in runs[1].why

    def test_a_lead_within_reach_asks_for_its_prompts(self, recommend):
        runs = recommend(gold=rate(47, 61)).next_runs  # 54 ± 7: 49/16 of 64
        assert runs[0].command == "python -m runner +sweep=mine name=mine_200 budget.num_evaluation_prompts=200"
        assert runs[1].command == "python -m runner +sweep=mine seed=0,1,2,3,4"

    def test_commands_keep_all_that_the_sweep_was_started_with(self, recommend):
        """A name of one's own, a folder with a space, several arms: but not what is to change."""
        arguments = (
            "+arm=ppo,dpo",
            "name=x",
            "seed=0,1,2",
            "model.path=/my models/é",
            "++budget.num_evaluation_prompts=64",
        )
        sweep = replace(SWEEP, name="x", arguments=arguments, identity="ab12cd34")
        prompts, seeds = (run.command for run in recommend(gold=rate(47, 61), sweep=sweep).next_runs)
        kept = "python -m runner +arm=ppo,dpo"
        assert seeds == f"{kept} name=x 'model.path=/my models/é' ++budget.num_evaluation_prompts=64 seed=0,1,2,3,4"
        more = "name=x_200_ab12cd budget.num_evaluation_prompts=200"
        assert prompts == f"{kept} seed=0,1,2 'model.path=/my models/é' {more}"

    def test_a_sweep_that_does_not_say_how_it_was_started_gets_no_command(self, recommend):
        runs = recommend(sweep=replace(SWEEP, arguments=(), num_missing=1)).next_runs
        assert [run.command for run in runs] == [""] * len(runs)

    def test_a_lead_that_the_correction_takes_away_asks_for_prompts_that_show_it(self, recommend):
        found = recommend(gold=WON, ahead=None, wider=simultaneous(3))
        assert found.choice == "inconclusive"
        assert (
            recommend(gold=rate(52, 72), ahead=None, wider=simultaneous(3)).next_runs[0].command.endswith("prompts=70")
        )

    def test_seeds_come_first_where_the_uncertainty_is_theirs(self, recommend):
        runs = recommend(gold=rate(47, 61), seed_share=0.7).next_runs
        assert "seed=" in runs[0].command

    def test_missing_runs_are_repeated_before_anything_else(self, recommend):
        runs = recommend(sweep=replace(SWEEP, num_missing=2)).next_runs
        assert runs[0].command == "python -m runner +sweep=mine"
        assert runs[0].why.startswith("2 planned runs are missing")

    def test_nobody_looks_for_a_lead_among_arms_that_fail(self, recommend):
        runs = recommend(gold=rate(47, 61), ppo=FAILED, dpo=FAILED).next_runs
        assert [run.command for run in runs] == ["python -m runner +sweep=mine seed=0,1,2,3,4"]

    def test_the_schedule_ends(self, recommend):
        assert recommend(gold=WON, sweep=replace(SWEEP, planned_seeds=tuple(range(8)), num_seeds=8)).next_runs == ()


def test_questions_that_were_not_assessed_say_so():
    shown = Questions(nearly_right=answer("yes")).shown()
    assert [item.reply for item in shown] == ["yes", "not assessable", "not assessable"]
    assert all("Not assessable yet" in item.sentence for item in shown[1:])
