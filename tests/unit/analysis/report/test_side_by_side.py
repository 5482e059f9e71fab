from __future__ import annotations

import numpy as np

from analysis.report import side_by_side


def test_cells_follow_the_rule_by_hand():
    # two arms, nine prompts, one sample
    first = np.array([0.10, 0.11, 0.12, 0.9, 0.8, 0.7, -0.6, -0.7, -0.8])
    second = np.array([0.10, 0.11, 0.12, -0.1, -0.1, -0.1, -0.6, -0.7, -0.8])
    chosen = list(side_by_side._cells(np.stack([first, second])[:, :, None]))
    assert {cell[0] for why, cell in chosen if why == "typical"} == {0, 1, 2}
    assert [cell[0] for why, cell in chosen if why == "arms disagree"] == [3, 4, 5]
    assert [cell[0] for why, cell in chosen if why == "largest drop"] == [8, 7, 6]


def test_a_prompt_is_shown_once_and_texts_belong_to_it(make_ledger):
    ledger = make_ledger(num_prompts=30)
    samples = side_by_side.choose_samples(ledger)
    assert len({sample["prompt"] for sample in samples}) == len(samples) == 9
    base = dict(zip(ledger.array("base", "response").ravel(), ledger.array("base", "prompt").ravel(), strict=True))
    for sample in samples:
        assert [answer["arm"] for answer in sample["responses"]] == ["base", "ppo", "dpo"]
        assert base[sample["responses"][0]["text"]] == sample["prompt"]


def test_few_prompts_and_a_single_arm_are_enough(make_ledger, synthetic):
    samples = side_by_side.choose_samples(make_ledger({"ppo": synthetic.Arm("ppo", (0.1,))}, num_prompts=2))
    assert [sample["why"] for sample in samples] == ["typical", "typical"]
