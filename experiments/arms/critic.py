"""PPO's critic: the reward model's score of the prefix, plus a trained head on the reward model's hidden states.

The hidden states are causal, so the pass that scores a response computes them anyway: the critic needs no pass of its
own. It starts as the reward model's own estimate (an initialisation in the spirit of arXiv:2403.17031, detail 4). It
shares no weight with the policy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 128


class Critic(nn.Module):
    """A trained correction to the reward model's score of a prefix; it starts at zero."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)  # torch's layers initialise from the global generator
        last = nn.Linear(HIDDEN, 1)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features_BTH: Tensor, prefix_scores_BT: Tensor) -> Tensor:
        """Values [B, T] in reward units."""
        correction_BT: Tensor = self.layers(features_BTH)[..., 0]
        return prefix_scores_BT + correction_BT
