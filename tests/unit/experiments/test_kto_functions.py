from __future__ import annotations

import math

import pytest
import torch

from experiments.algorithms.kto import kto_loss


def test_loss_is_half_the_mean_weight_if_policy_and_reference_agree() -> None:
    none = torch.zeros(2)
    assert kto_loss(none, none, none, beta=0.1).item() == pytest.approx(0.5)
    assert kto_loss(none, none, none, 0.1, desirable_weight=1.0, undesirable_weight=2.0).item() == pytest.approx(0.75)


def test_loss_against_a_hand_worked_pair() -> None:
    loss = kto_loss(torch.tensor([3.0]), torch.tensor([-1.0]), torch.tensor([1.0, 3.0]), beta=0.5)
    desirable, undesirable = (1 - 1 / (1 + math.exp(-value)) for value in (0.5 * (3 - 2), 0.5 * (2 + 1)))
    assert loss.item() == pytest.approx((desirable + undesirable) / 2)


def test_an_estimated_kl_below_zero_counts_as_zero_and_has_no_gradient() -> None:
    ratio, mismatched = torch.tensor([1.0], requires_grad=True), torch.tensor([-5.0], requires_grad=True)
    loss = kto_loss(ratio, ratio, mismatched, beta=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert mismatched.grad is None
