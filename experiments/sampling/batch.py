"""Prompts and responses as tensors.

Layout: prompts are padded on the left, responses on the right, so the responses of all rows occupy the last T
columns, and any Hugging Face model can be asked for its head at just these positions (`logits_to_keep`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.passes import smaller


@dataclass(frozen=True)
class Batch:
    """B rows of at most P prompt and T response tokens."""

    input_ids: Tensor  # [B, P + T]
    attention_mask: Tensor  # [B, P + T], 1 on real tokens
    position_ids: Tensor  # [B, P + T], 0 on each row's first real token
    response_mask: Tensor  # [B, T] float, 1 on response tokens

    @property
    def response_ids(self) -> Tensor:
        """[B, T]."""
        return self.input_ids[:, self.input_ids.shape[1] - self.response_mask.shape[1] :]

    @property
    def num_tokens(self) -> int:
        """Real tokens, prompt and response."""
        return int(self.attention_mask.sum())

    @property
    def model_inputs(self) -> dict[str, Tensor]:
        """What a model's forward takes."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "position_ids": self.position_ids}


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, P] padded on the left, and their attention mask. Masks come from lengths, so pad may equal eos."""
    width = max(map(len, rows))
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids that start at 0 on the first real token, whatever the padding."""
    return (attention_mask.cumsum(dim=1) - 1).clamp_min(0)


def make_batch(
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    pad_id: int,
    device: torch.device,
) -> Batch:
    """Pad prompts on the left and responses on the right.

    Args:
        prompt_ids: B prompts, none empty.
        response_ids: B responses, none empty.
        pad_id: any token id; it is masked everywhere.
        device: where the tensors go.
    """
    width = max(map(len, response_ids))
    prompts, prompt_mask = left_pad(prompt_ids, pad_id, device)
    responses = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in response_ids], device=device)
    lengths = torch.tensor([len(row) for row in response_ids], device=device)
    response_mask = (torch.arange(width, device=device) < lengths[:, None]).long()
    attention_mask = torch.cat([prompt_mask, response_mask], dim=1)
    return Batch(
        torch.cat([prompts, responses], dim=1),
        attention_mask,
        positions(attention_mask),
        response_mask.to(torch.float32),
    )


def tokens_per_pass(device: torch.device) -> int:
    """Padded tokens that one pass without gradient takes at a time: enough to fill the device, few enough to group."""
    return 1024 if device.type == "cpu" else 32768


def length_groups(prompt_lengths: Sequence[int], response_lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows of like length together, so that little is computed on padding.

    Args:
        prompt_lengths: tokens of N prompts.
        response_lengths: tokens of N responses, which are padded apart from the prompts.
        max_tokens: the most that a group has, padding included; where a row alone is longer, groups of one row. Where
            passes are to be smaller, a part of that, and of all tokens.

    Returns:
        Indices of the rows of each group, every row once.
    """
    everything = _padded_tokens(range(len(response_lengths)), prompt_lengths, response_lengths)
    max_tokens = smaller(min(max_tokens, everything))
    order = sorted(range(len(response_lengths)), key=lambda i: (response_lengths[i], prompt_lengths[i], i))
    for count in range(1, len(order) + 1):
        groups = [
            chunk.tolist() for chunk in np.array_split(order, count)
        ]  # of equal size: the largest sets the memory
        if all(_padded_tokens(rows, prompt_lengths, response_lengths) <= max_tokens for rows in groups):
            break
    return groups


def _padded_tokens(rows: Sequence[int], prompt_lengths: Sequence[int], response_lengths: Sequence[int]) -> int:
    return len(rows) * (max(prompt_lengths[row] for row in rows) + max(response_lengths[row] for row in rows))
