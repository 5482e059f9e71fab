from __future__ import annotations

import math

import pytest
import torch

from experiments.algorithms import kl, ppo

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)


def random_like_mask(seed: int) -> torch.Tensor:
    return torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestTokenRewards:
    def test_each_row_sums_to_the_score_minus_beta_times_its_kl(self) -> None:
        logp, ref, score = random_like_mask(0), random_like_mask(1), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        rewards = ppo.token_rewards(score, logp, ref, MASK, kl_coefficient=0.3)
        expected = score - 0.3 * ((logp - ref) * MASK).sum(dim=1)
        torch.testing.assert_close(rewards.sum(dim=1), expected)

    def test_without_a_penalty_only_the_last_response_token_is_rewarded(self) -> None:
        rewards = ppo.token_rewards(
            torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), MASK, MASK * 0, MASK, kl_coefficient=0.0
        )
        assert rewards.tolist() == [[0, 0, 1], [0, 2, 0], [3, 0, 0]]

    def test_padding_is_never_rewarded(self) -> None:
        rewards = ppo.token_rewards(
            torch.zeros(3, dtype=torch.float64), random_like_mask(0), random_like_mask(1), MASK, 1.0
        )
        assert (rewards[MASK == 0] == 0).all()


class TestAdvantages:
    rewards = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 0.25, 0.125]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.float64)

    def test_lambda_1_is_the_return_to_go_minus_the_value(self) -> None:
        advantages, returns = ppo.generalised_advantages(self.rewards, self.values, self.mask, 1.0, 1.0)
        assert advantages.tolist() == [[0.5, 0.75, 0.875]]
        assert returns.tolist() == [[1.0, 1.0, 1.0]]

    def test_lambda_0_is_the_one_step_error(self) -> None:
        advantages, _ = ppo.generalised_advantages(self.rewards, self.values, self.mask, 0.5, 0.0)
        assert advantages.tolist() == [[0.5 * 0.25 - 0.5, 0.5 * 0.125 - 0.25, 1 - 0.125]]

    def test_hand_worked_numbers_in_between(self) -> None:
        advantages, _ = ppo.generalised_advantages(self.rewards, self.values, self.mask, 1.0, 0.5)
        last, middle = 0.875, -0.125 + 0.5 * 0.875
        assert advantages.tolist() == [[-0.25 + 0.5 * middle, middle, last]]

    def test_what_stands_on_padding_changes_nothing(self) -> None:
        junk = torch.full((3, 1), 1e6, dtype=torch.float64)
        rewards, values = random_like_mask(0) * MASK, random_like_mask(1)
        narrow = ppo.generalised_advantages(rewards, values, MASK, 0.9, 0.8)
        wide = ppo.generalised_advantages(
            torch.cat([rewards, junk * 0], 1), torch.cat([values, junk], 1), torch.cat([MASK, junk * 0], 1), 0.9, 0.8
        )
        for a, b in zip(narrow, wide, strict=True):
            assert torch.equal(a, b[:, :3])
            assert (b[:, 3] == 0).all()

    def test_returns_are_raw_advantages_plus_values(self) -> None:
        values = random_like_mask(1) * MASK
        advantages, returns = ppo.generalised_advantages(random_like_mask(0) * MASK, values, MASK, 1.0, 0.95)
        torch.testing.assert_close(returns, advantages + values)


class TestWhitening:
    def test_mean_0_and_variance_1_over_the_mask(self) -> None:
        white = ppo.whiten(random_like_mask(3) * 7 + 4, MASK)
        assert ppo.masked_mean(white, MASK).item() == pytest.approx(0, abs=1e-12)
        assert ppo.masked_mean(white**2, MASK).item() == pytest.approx(1, abs=1e-6)

    def test_padding_changes_nothing(self) -> None:
        x = random_like_mask(3)
        wide = ppo.whiten(torch.cat([x, x * 100], 1), torch.cat([MASK, MASK * 0], 1))
        torch.testing.assert_close(wide[:, :3], ppo.whiten(x, MASK), rtol=1e-12, atol=1e-12)


class TestPolicyLoss:
    def loss(self, log_ratio: float, advantage: float) -> tuple[float, float]:
        logp = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
        one = torch.ones(1, 1, dtype=torch.float64)
        loss = ppo.policy_loss_sum(logp, one * 0, one * advantage, one, clip_range=0.2)
        (gradient,) = torch.autograd.grad(loss, logp)
        return loss.item(), gradient.item()

    def test_at_ratio_1_the_gradient_is_minus_the_advantage(self) -> None:
        assert self.loss(0.0, 3.0) == (-3.0, -3.0)

    @pytest.mark.parametrize(
        ("ratio", "advantage", "clipped"), [(1.5, 1, True), (0.5, -1, True), (1.5, -1, False), (0.5, 1, False)]
    )
    def test_only_a_move_that_pays_too_much_is_clipped(self, ratio: float, advantage: float, clipped: bool) -> None:
        loss, gradient = self.loss(math.log(ratio), advantage)
        assert (gradient == 0) is clipped
        expected = (1.2 if ratio > 1 else 0.8) if clipped else ratio
        assert loss == pytest.approx(-expected * advantage)

    @pytest.mark.parametrize("log_ratio", [100.0, -100.0, 1e30])
    @pytest.mark.parametrize("advantage", [1.0, -1.0])
    def test_extreme_ratios_give_finite_numbers(self, log_ratio: float, advantage: float) -> None:
        assert all(map(math.isfinite, self.loss(log_ratio, advantage)))

    def test_padding_has_no_gradient(self) -> None:
        logp = random_like_mask(0).requires_grad_()
        ppo.policy_loss_sum(logp, random_like_mask(1), random_like_mask(2), MASK, 0.2).backward()
        assert logp.grad is not None
        assert (logp.grad[MASK == 0] == 0).all()
        assert (logp.grad[MASK == 1] != 0).any()


class TestValueLoss:
    def loss(self, value: float, old: float, target: float, clip: float) -> tuple[float, float]:
        v = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
        one = torch.ones(1, 1, dtype=torch.float64)
        loss = ppo.value_loss_sum(v, one * old, one * target, one, clip)
        (gradient,) = torch.autograd.grad(loss, v)
        return loss.item(), gradient.item()

    def test_is_half_the_squared_error_near_the_old_value(self) -> None:
        assert self.loss(0.1, 0.0, 1.0, clip=0.2) == (pytest.approx(0.5 * 0.81), pytest.approx(-0.9))

    def test_has_no_gradient_beyond_the_clip_when_that_is_worse(self) -> None:
        assert self.loss(0.5, 0.0, 1.0, clip=0.2)[1] == 0

    def test_an_infinite_range_does_not_clip(self) -> None:
        assert self.loss(0.5, 0.0, 1.0, clip=math.inf)[1] == pytest.approx(-0.5)


def test_clip_fraction_counts_tokens_outside() -> None:
    logp = torch.log(torch.tensor([[1.0, 1.3, 9.0], [0.5, 1.1, 9.0], [1.0, 9.0, 9.0]], dtype=torch.float64))
    assert ppo.clip_fraction(logp, logp * 0, MASK, 0.2).item() == pytest.approx(3 / 6)


def test_explained_variance_of_perfect_constant_and_opposite_values() -> None:
    returns = random_like_mask(5)
    assert ppo.explained_variance(returns, returns, MASK).item() == pytest.approx(1)
    assert ppo.explained_variance(returns * 0 + 3, returns, MASK).item() == pytest.approx(0)
    assert ppo.explained_variance(-returns, returns, MASK).item() < 0


def test_kl_estimators_agree_with_the_exact_kl_of_a_small_vocabulary() -> None:
    pi, ref = (torch.log_softmax(random_like_mask(seed).flatten(), dim=0) for seed in (0, 1))
    exact = (pi.exp() * (pi - ref)).sum()
    torch.testing.assert_close((pi.exp() * kl.k1(pi, ref)).sum(), exact)
    torch.testing.assert_close((pi.exp() * kl.k3(pi, ref)).sum(), exact)
    assert (kl.k3(pi, ref) >= 0).all()
    assert (kl.k1(pi, ref) < 0).any()
