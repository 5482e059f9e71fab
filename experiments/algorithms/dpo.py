"""DPO's loss as one pure function: what TRL's trainer must agree with (tests/contract/test_dpo_trainer.py)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_loss(
    chosen_logp_B: Tensor, rejected_logp_B: Tensor, ref_chosen_logp_B: Tensor, ref_rejected_logp_B: Tensor, beta: float
) -> Tensor:
    """Mean of -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)) (arXiv:2305.18290, equation 7).

    Args:
        chosen_logp_B: log-prob of each chosen response under the policy, nats, summed over its tokens.
        rejected_logp_B: the same for the rejected response.
        ref_chosen_logp_B: the chosen response under the reference.
        ref_rejected_logp_B: the rejected response under the reference.
        beta: strength of the pull to the reference.

    Returns:
        Scalar; ln 2 if policy and reference agree.
    """
    margin_B = beta * ((chosen_logp_B - ref_chosen_logp_B) - (rejected_logp_B - ref_rejected_logp_B))
    return -logsigmoid(margin_B).mean()


def ranking_loss(scores_B: Tensor, winner_C: Tensor, loser_C: Tensor) -> Tensor:
    """Bradley-Terry: mean of -log sigmoid(score of winner - score of loser) over comparisons (Bradley and Terry 1952).

    As in InstructGPT, each response is scored once for all its comparisons (arXiv:2203.02155, equation 1).

    Args:
        scores_B: one score per response.
        winner_C: index into `scores_B` of each comparison's winner.
        loser_C: index of its loser.
    """
    return -logsigmoid(scores_B[winner_C] - scores_B[loser_C]).mean()
