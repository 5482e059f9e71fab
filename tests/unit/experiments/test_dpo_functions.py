from __future__ import annotations

import math

import pytest
import torch

from experiments.algorithms.dpo import dpo_loss, ranking_loss


def test_loss_is_ln_2_where_policy_and_reference_agree() -> None:
    logp = torch.tensor([-3.0, -7.0])
    assert dpo_loss(logp, logp - 1, logp, logp - 1, beta=0.1).item() == pytest.approx(math.log(2))


def test_loss_against_a_hand_worked_pair() -> None:
    loss = dpo_loss(torch.tensor([-1.0]), torch.tensor([-4.0]), torch.tensor([-2.0]), torch.tensor([-3.0]), beta=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5 * 2)))


def test_ranking_loss_scores_each_response_once_for_all_its_comparisons() -> None:
    scores = torch.tensor([2.0, 0.0, 1.0])
    loss = ranking_loss(scores, torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1]))
    expected = sum(math.log(1 + math.exp(-gap)) for gap in (2, 1, 1)) / 3
    assert loss.item() == pytest.approx(expected)
