"""Where the optimum is known in closed form, PPO and DPO must find it, and best-of-n must cost the KL it should.

Maximising E[r] - beta * KL(pi || pi_ref) gives pi* proportional to pi_ref * exp(r / beta) (arXiv:2305.18290, equation
4), so two toys whose responses can be enumerated have a known end point for every beta, and a known frontier of reward
against KL. The policies are tables of logits; all losses are the project's own.

Shapes: B every response, N rollouts, T steps, S prefixes (one row of logits and one value each), V tokens, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from experiments.algorithms import kl, ppo
from experiments.algorithms.dpo import dpo_loss
from experiments.sampling.sampler import common_uniforms, draw

BETAS = [0.3, 1.0, 3.0]  # from the reference, pi* is 0.11 to 0.69 away in total variation, and 0.04 to 1.5 nats of KL


@dataclass(frozen=True, eq=False)  # compared and hashed as an object, so that trained policies can be cached by toy
class Toy:
    ref_SV: Tensor
    reward_B: Tensor  # of complete responses
    tokens_BT: Tensor
    rows_BT: Tensor  # of the prefix before each token: the root is row 0, the children of row s follow V * s

    @classmethod
    def of(cls, num_steps: int, vocabulary: int) -> Toy:
        tokens_BT = torch.cartesian_prod(*[torch.arange(vocabulary)] * num_steps).reshape(-1, num_steps)
        rows = [torch.zeros(len(tokens_BT), dtype=torch.long)]
        for t in range(num_steps - 1):
            rows.append(vocabulary * rows[-1] + 1 + tokens_BT[:, t])
        rows_BT = torch.stack(rows, dim=1)
        rng = torch.Generator().manual_seed(0)
        ref_SV = torch.randn(int(rows_BT.max()) + 1, vocabulary, generator=rng, dtype=torch.float64)
        reward_B = 2 * torch.randn(len(tokens_BT), generator=rng, dtype=torch.float64)
        return cls(ref_SV, reward_B, tokens_BT, rows_BT)

    def token_logps(self, logits_SV: Tensor) -> Tensor:
        """[B, T], nats."""
        return torch.log_softmax(logits_SV, dim=-1)[self.rows_BT, self.tokens_BT]

    def logps(self, logits_SV: Tensor) -> Tensor:
        """[B], nats, of complete responses."""
        return self.token_logps(logits_SV).sum(dim=1)

    @property
    def ref_logps(self) -> Tensor:
        return self.logps(self.ref_SV)

    def optimum(self, beta: float) -> Tensor:
        """log pi* [B]."""
        return torch.log_softmax(self.ref_logps + self.reward_B / beta, dim=0)

    def mean_reward(self, logp_B: Tensor) -> float:
        return float(logp_B.exp() @ self.reward_B)

    def kl(self, logp_B: Tensor) -> float:
        return float(logp_B.exp() @ kl.k1(logp_B, self.ref_logps))

    def frontier(self, nats: float) -> float:
        """The most reward that `nats` of KL can buy: that of the pi* which spends them, found by bisection."""
        low, high = 1e-3, 1e3
        for _ in range(60):
            beta = math.sqrt(low * high)
            low, high = (beta, high) if self.kl(self.optimum(beta)) > nats else (low, beta)
        return self.mean_reward(self.optimum(low))


TOYS = {"one step": Toy.of(num_steps=1, vocabulary=6), "three steps": Toy.of(num_steps=3, vocabulary=3)}
each_toy = pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS.keys())
each_beta = pytest.mark.parametrize("beta", BETAS)


def total_variation(logp_B: Tensor, other_logp_B: Tensor) -> float:
    return float(0.5 * (logp_B.exp() - other_logp_B.exp()).abs().sum())


# ---------------------------------------------------------------------------------------------------------------- PPO

NUM_UPDATES, NUM_ROLLOUTS, NUM_EPOCHS, NUM_MINIBATCHES = 60, 2048, 2, 4
CLIP_RANGE, VALUE_CLIP_RANGE, GAE_LAMBDA = 0.2, 0.2, 0.95  # as in conf/arm/ppo.yaml


@dataclass(frozen=True)
class Rollouts:
    rows_NT: Tensor
    tokens_NT: Tensor
    logp_NT: Tensor
    values_NT: Tensor
    advantages_NT: Tensor
    returns_NT: Tensor


@torch.no_grad()
def roll_out(toy: Toy, theta_SV: Tensor, value_S: Tensor, beta: float, rng: torch.Generator) -> Rollouts:
    chosen_N = torch.multinomial(toy.logps(theta_SV).exp(), NUM_ROLLOUTS, replacement=True, generator=rng)
    rows_NT, tokens_NT = toy.rows_BT[chosen_N], toy.tokens_BT[chosen_N]
    logp_NT, ref_logp_NT = toy.token_logps(theta_SV)[chosen_N], toy.token_logps(toy.ref_SV)[chosen_N]
    values_NT, mask_NT = value_S[rows_NT], torch.ones_like(logp_NT)
    rewards_NT = ppo.token_rewards(toy.reward_B[chosen_N], logp_NT, ref_logp_NT, mask_NT, beta)
    advantages_NT, returns_NT = ppo.generalised_advantages(rewards_NT, values_NT, mask_NT, 1.0, GAE_LAMBDA)
    return Rollouts(rows_NT, tokens_NT, logp_NT, values_NT, ppo.whiten(advantages_NT, mask_NT), returns_NT)


def ppo_loss(rollouts: Rollouts, chosen: Tensor, theta_SV: Tensor, value_S: Tensor) -> Tensor:
    old_logp_NT, old_values_NT = rollouts.logp_NT[chosen], rollouts.values_NT[chosen]
    rows_NT, mask_NT = rollouts.rows_NT[chosen], torch.ones_like(old_logp_NT)
    logp_NT = torch.log_softmax(theta_SV, dim=-1)[rows_NT, rollouts.tokens_NT[chosen]]
    policy_loss = ppo.policy_loss_sum(logp_NT, old_logp_NT, rollouts.advantages_NT[chosen], mask_NT, CLIP_RANGE)
    value_loss = ppo.value_loss_sum(
        value_S[rows_NT], old_values_NT, rollouts.returns_NT[chosen], mask_NT, VALUE_CLIP_RANGE
    )
    return (policy_loss + value_loss) / mask_NT.sum()


@cache
def train_ppo(toy: Toy, beta: float) -> tuple[Tensor, Tensor]:
    """PPO from the reference: log-probs [B] of every response, and values [S]."""
    rng = torch.Generator().manual_seed(1)
    theta_SV = toy.ref_SV.clone().requires_grad_()
    value_S = torch.zeros(len(theta_SV), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta_SV, value_S], lr=0.1, eps=1e-5)
    # whitened advantages are as large at the optimum as anywhere: only a falling rate brings the policy to rest there
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, NUM_UPDATES)
    for _ in range(NUM_UPDATES):
        rollouts = roll_out(toy, theta_SV, value_S, beta, rng)
        for _ in range(NUM_EPOCHS):
            for chosen in torch.randperm(NUM_ROLLOUTS, generator=rng).chunk(NUM_MINIBATCHES):
                optimizer.zero_grad()
                ppo_loss(rollouts, chosen, theta_SV, value_S).backward()
                optimizer.step()
        schedule.step()
    return toy.logps(theta_SV.detach()), value_S.detach()


@each_toy
class TestPPO:
    @each_beta
    def test_converges_to_the_optimum(self, toy: Toy, beta: float) -> None:
        optimum_B = toy.optimum(beta)
        assert total_variation(train_ppo(toy, beta)[0], optimum_B) < 0.02  # measured, over 5 seeds: at most 0.011
        assert total_variation(toy.ref_logps, optimum_B) > 0.1  # there was something to learn

    @each_beta
    def test_its_critic_knows_what_the_optimum_is_worth(self, toy: Toy, beta: float) -> None:
        """E[r] - beta * KL at pi* is beta * log E_ref[exp(r / beta)]: the value before the first token."""
        worth = beta * float(torch.logsumexp(toy.ref_logps + toy.reward_B / beta, dim=0))
        assert float(train_ppo(toy, beta)[1][0]) == pytest.approx(worth, abs=0.02)  # measured: at most 0.006

    def test_its_runs_lie_on_the_frontier(self, toy: Toy) -> None:
        """Each at its own place: without a penalty all would end at the same end of it."""
        for beta in BETAS:
            logp_B = train_ppo(toy, beta)[0]
            nats, gap = toy.kl(logp_B), toy.frontier(toy.kl(logp_B)) - toy.mean_reward(logp_B)
            assert nats == pytest.approx(toy.kl(toy.optimum(beta)), abs=0.05)  # measured: at most 0.017
            assert -1e-9 < gap < 0.002  # measured: at most 0.0005; nothing lies above the frontier


# ---------------------------------------------------------------------------------------------------------------- DPO

NUM_LABELS = 100_000


def minimise(toy: Toy, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Log-probs [B] where `loss`, a function of log-probs [B], is least; the search starts at the reference."""
    theta_SV = toy.ref_SV.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta_SV], max_iter=200, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        value = loss(toy.logps(theta_SV))
        value.backward()
        return value

    optimizer.step(evaluate)
    return toy.logps(theta_SV.detach())


@each_toy
@each_beta
class TestDPO:
    def test_converges_to_the_optimum_on_expected_labels(self, toy: Toy, beta: float) -> None:
        """Every ordered pair, weighted by the probability that it is labelled in that order."""
        ref_B, num_responses = toy.ref_logps, len(toy.reward_B)
        winner_P, loser_P = (1 - torch.eye(num_responses)).nonzero().T
        label_P = torch.sigmoid(toy.reward_B[winner_P] - toy.reward_B[loser_P])
        loss_of_pairs = torch.vmap(partial(dpo_loss, beta=beta))

        def expected_loss(logp_B: Tensor) -> Tensor:
            loss_P = loss_of_pairs(logp_B[winner_P], logp_B[loser_P], ref_B[winner_P], ref_B[loser_P])
            return (label_P * loss_P).sum() / label_P.sum()

        actual_B = minimise(toy, expected_loss)
        assert total_variation(actual_B, toy.optimum(beta)) < 1e-6  # measured: 2e-8

    def test_comes_near_the_optimum_on_sampled_labels(self, toy: Toy, beta: float) -> None:
        ref_B, rng = toy.ref_logps, torch.Generator().manual_seed(2)
        one_P, other_P = torch.randint(len(ref_B), (2, NUM_LABELS), generator=rng)
        one_wins_P = torch.rand(NUM_LABELS, generator=rng) < torch.sigmoid(toy.reward_B[one_P] - toy.reward_B[other_P])
        winner_P, loser_P = torch.where(one_wins_P, one_P, other_P), torch.where(one_wins_P, other_P, one_P)

        def sampled_loss(logp_B: Tensor) -> Tensor:
            return dpo_loss(logp_B[winner_P], logp_B[loser_P], ref_B[winner_P], ref_B[loser_P], beta)

        actual_B = minimise(toy, sampled_loss)
        # the labels leave an error in the rewards, which the policy divides by beta (measured: half of this)
        assert total_variation(actual_B, toy.optimum(beta)) < 0.02 / beta


# ---------------------------------------------------------------------------------------------------------- Best of n

VOCABULARY, NUM_DRAWS, TEMPERATURE = 4096, 16_384, 0.7


@dataclass(frozen=True)
class Pool:
    """Draws from one distribution over many tokens, the better the higher their number; none has 1 % probability.

    So best-of-n looks at the upper end of the sampler's CDF, where a skew would show.
    """

    logp_V: Tensor
    token_N: Tensor
    logp_N: Tensor  # as the sampler reports them

    def best_of(self, n: int) -> Tensor:
        """Log-probs [V] under best-of-n: y is the best with F(y)^n - F(y-)^n, F the CDF."""
        prob_V = self.logp_V.exp()
        cdf_V = prob_V.cumsum(dim=0)
        return (cdf_V**n - (cdf_V - prob_V) ** n).log()


@cache
def draw_pool() -> Pool:
    logits_V = 0.7 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3))
    uniform_N = common_uniforms(0, 0, [str(row) for row in range(NUM_DRAWS // 16)], 16).flatten()
    drawn = [draw(logits_V.repeat(len(chunk), 1), chunk, TEMPERATURE) for chunk in uniform_N.split(1024)]
    token_N, logp_N = (torch.cat(part) for part in zip(*drawn, strict=True))
    return Pool(torch.log_softmax(logits_V.double() / TEMPERATURE, dim=0), token_N, logp_N.double())


def best_of_n_kl(n: int) -> float:
    """Nats, where no two responses share a score (arXiv:2009.01325, appendix G.3)."""
    return math.log(n) - (n - 1) / n


@pytest.mark.parametrize("n", [2, 4, 16])
class TestBestOfN:
    def test_costs_the_known_kl(self, n: int) -> None:
        pool = draw_pool()
        best_logp_V = pool.best_of(n)
        exact = float(best_logp_V.exp() @ kl.k1(best_logp_V, pool.logp_V))
        # what a continuum of scores would cost is an upper bound (arXiv:2401.01879), and close with this many tokens
        assert 0 <= best_of_n_kl(n) - exact < 2e-5  # measured: at most 5e-6

    def test_sampled_log_ratios_average_to_it(self, n: int) -> None:
        pool = draw_pool()
        best_M1 = pool.token_N.reshape(-1, n).argmax(dim=1, keepdim=True)
        token_M, logp_M = (x_N.reshape(-1, n).gather(1, best_M1)[:, 0] for x_N in (pool.token_N, pool.logp_N))
        k1_M = kl.k1(pool.best_of(n)[token_M], logp_M)
        standard_error = float(k1_M.std()) / len(k1_M) ** 0.5
        assert standard_error < 0.04  # of a KL of 0.19 to 1.84
        assert float(k1_M.mean()) == pytest.approx(best_of_n_kl(n), abs=4 * standard_error)  # measured: 1.1
