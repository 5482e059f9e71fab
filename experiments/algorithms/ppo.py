"""PPO for language models: per-token rewards, advantages, losses.

Sources: Schulman et al. 2017 (PPO, arXiv:1707.06347), Schulman et al. 2016 (GAE, arXiv:1506.02438), Stiennon et al.
2020 (KL in the reward, arXiv:2009.01325), Huang et al. 2024 (implementation details, arXiv:2403.17031).
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.algorithms import kl

LOG_RATIO_LIMIT = 20.0  # exp(20) is finite in float32, and far above any ratio of a healthy policy


def masked_mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over all masked positions together (a token mean, not a mean of row means); 0 if the mask is empty."""
    return (x_BT * mask_BT).sum() / mask_BT.sum().clamp_min(1)


def token_rewards(
    score_B: Tensor, logp_BT: Tensor, ref_logp_BT: Tensor, mask_BT: Tensor, kl_coefficient: float
) -> Tensor:
    """Reward of each token: minus beta times the k1 estimate of KL, plus the score on the last token.

    k1 = log pi - log pi_ref in the *reward* gives the gradient of the exact KL; k3 would not (arXiv:2512.21852).
    So each row sums to score - beta * sum(k1). Without the penalty only the last token has a reward.

    Args:
        score_B: sequence score, reward units.
        logp_BT: log-probs of the sampled tokens under the policy that sampled them, nats; detached.
        ref_logp_BT: the same under the reference.
        mask_BT: response mask; every row has at least one token.
        kl_coefficient: beta, reward units per nat.

    Returns:
        Rewards [B, T], zero on padding.
    """
    rewards_BT = -kl_coefficient * (logp_BT - ref_logp_BT) * mask_BT
    last_B = mask_BT.sum(dim=1).long() - 1
    rows_B = torch.arange(len(last_B), device=last_B.device)
    rewards_BT[rows_B, last_B] += score_B.to(rewards_BT.dtype)
    return rewards_BT


def generalised_advantages(
    rewards_BT: Tensor,
    values_BT: Tensor,
    mask_BT: Tensor,
    discount: float,
    gae_lambda: float,
    final_value_B: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """GAE (arXiv:1506.02438, equations 11 and 16): A_t = delta_t + gamma * lambda * A_{t+1}.

    Args:
        rewards_BT: reward of each token.
        values_BT: V of the state *before* each token.
        mask_BT: response mask.
        discount: gamma.
        gae_lambda: lambda.
        final_value_B: value of the state after each row's last token: 0 if the episode ends there; the critic's value
            if the episode was only cut and should be bootstrapped.

    Returns:
        Advantages [B, T] and returns [B, T] = advantages + values, both zero on padding.
    """
    values_BT = values_BT * mask_BT
    advantages_BT = torch.zeros_like(rewards_BT)
    next_advantage_B = torch.zeros_like(rewards_BT[:, 0])
    next_value_B = final_value_B * torch.ones_like(next_advantage_B)
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + discount * next_value_B - values_BT[:, t]
        next_advantage_B = (delta_B + discount * gae_lambda * next_advantage_B) * mask_BT[:, t]
        next_value_B = torch.where(mask_BT[:, t].bool(), values_BT[:, t], next_value_B)
        advantages_BT[:, t] = next_advantage_B
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def whiten(x_BT: Tensor, mask_BT: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Normalise to mean 0 and variance 1 over all masked positions of the batch of rollouts; zero elsewhere."""
    mean = masked_mean(x_BT, mask_BT)
    variance = masked_mean((x_BT - mean) ** 2, mask_BT)
    return (x_BT - mean) * torch.rsqrt(variance + epsilon) * mask_BT


def log_ratio(logp_BT: Tensor, old_logp_BT: Tensor) -> Tensor:
    """log(pi / pi_old) per token, limited so that its exponential stays finite."""
    return (logp_BT - old_logp_BT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def policy_loss_sum(
    logp_BT: Tensor, old_logp_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip_range: float
) -> Tensor:
    """Clipped surrogate (arXiv:1707.06347, equation 7), negated and *summed* over tokens.

    The caller divides by the token count of the whole minibatch, so that the gradient does not depend on micro-batches.
    """
    ratio_BT = log_ratio(logp_BT, old_logp_BT).exp()
    clipped_BT = ratio_BT.clamp(1 - clip_range, 1 + clip_range)
    objective_BT = torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    return -(objective_BT * mask_BT).sum()


def value_loss_sum(
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip_range: float
) -> Tensor:
    """Half the squared error, clipped around the old value as in PPO's reference code, summed over tokens."""
    clipped_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip_range, clip_range)
    error_BT = torch.maximum((values_BT - returns_BT) ** 2, (clipped_BT - returns_BT) ** 2)
    return 0.5 * (error_BT * mask_BT).sum()


def approximate_kl(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(pi_old || pi) per token from samples of pi_old: mean of ratio - 1 - log ratio (Schulman 2020), nats."""
    return masked_mean(kl.k3(old_logp_BT, old_logp_BT + log_ratio(logp_BT, old_logp_BT)), mask_BT)


def clip_fraction(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor, clip_range: float) -> Tensor:
    """Share of tokens whose ratio is outside 1 +- clip_range."""
    outside_BT = (log_ratio(logp_BT, old_logp_BT).exp() - 1).abs() > clip_range
    return masked_mean(outside_BT.to(mask_BT.dtype), mask_BT)


def explained_variance(values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """1 - Var(return - value) / Var(return) over tokens: 1 is perfect, 0 a constant, below 0 worse than a constant."""
    residual_BT = returns_BT - values_BT
    variance = masked_mean((returns_BT - masked_mean(returns_BT, mask_BT)) ** 2, mask_BT)
    residual_variance = masked_mean((residual_BT - masked_mean(residual_BT, mask_BT)) ** 2, mask_BT)
    return 1 - residual_variance / variance.clamp_min(torch.finfo(variance.dtype).tiny)
