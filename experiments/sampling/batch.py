"""Prompts and responses as tensors: responses to one prompt share its pass, and rows have little padding.

A *unit* is one prompt and one or several responses to it, one after the other; a row holds one or several units. The
attention mask lets a token see its prompt and what comes before it in its own response, and positions count as if each
response stood alone, so hidden states are those of separate rows. A model that does not take such a mask gets one
response a row.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.passes import smaller

ATTENTION_COST = 1e-3  # what each further column of a row adds to the cost of its tokens, which all look at it
MOST_UNITS_IN_A_ROW = 8
PAD_ID = 0  # any token of the model will do: padding is masked everywhere

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Batch:
    """B responses of at most T tokens and their prompts, laid out in R rows of L columns."""

    input_ids: Tensor  # [R, L]
    position_ids: Tensor  # [R, L], 0 on each prompt's first token
    attention_mask: Tensor  # bool: [R, 1, L, L] what each token sees or, with one response a row, [R, L] the real ones
    response_ids: Tensor  # [B, T]
    response_mask: Tensor  # [B, T] float, 1 on response tokens
    states: Tensor  # [B, T + 1]: where in the R x L hidden states the one before response token t lies; last, the end's
    num_tokens: int  # real ones, each response's prompt included

    def hidden_states(self, decoder: Any) -> Tensor:
        """Last hidden states [R x L, H] of a model without its head, adapters as they are switched now."""
        mask = self.attention_mask
        if mask.ndim == 4:
            nothing = torch.zeros(mask.shape, dtype=decoder.dtype, device=mask.device)
            mask = nothing.masked_fill(~mask, torch.finfo(decoder.dtype).min)
        output = decoder(input_ids=self.input_ids, attention_mask=mask, position_ids=self.position_ids, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden.flatten(0, 1)


def left_pad(rows: Ids, pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, P] padded on the left, and their attention mask. Masks come from lengths, so pad may equal eos."""
    width = max(map(len, rows))
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def is_end(token_ids: Tensor, eos_ids: Tensor) -> Tensor:
    """Which tokens, of any shape, are one of the ends [E]. Never makes a GPU wait."""
    return (token_ids[..., None] == eos_ids).any(dim=-1)


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids that start at 0 on the first real token, whatever the padding."""
    return (attention_mask.cumsum(dim=1) - 1).clamp_min(0)


def make_batch(prompt_ids: Ids, response_ids: Ids, pad_id: int, device: torch.device, *, packed: bool) -> Batch:
    """Lay out prompts and responses.

    Args:
        prompt_ids: B prompts, none empty.
        response_ids: B responses.
        pad_id: any token id; it is masked everywhere.
        device: where the tensors go.
        packed: whether a row may hold more than one response (`models.takes_any_mask`).
    """
    rows = _rows(_units(prompt_ids, response_ids, packed), packed)
    lines, width = [_Line() for _ in rows], max(sum(unit.length for unit in row) for row in rows)
    states: list[list[int]] = [[] for _ in response_ids]
    for number, (line, row) in enumerate(zip(lines, rows, strict=True)):
        for unit in row:
            prompt = prompt_ids[unit.responses[0]]
            line.put(prompt, 0, branch=0)
            before = number * width + len(line.tokens) - 1
            for branch, response in enumerate(unit.responses, start=1):
                first = number * width + len(line.tokens)
                line.put(response_ids[response], len(prompt), branch)
                states[response] = [before, *range(first, number * width + len(line.tokens))]
            line.unit += 1
    lengths = torch.tensor([len(ids) for ids in response_ids], device=device)
    longest = max(map(len, response_ids))
    unit_RL = _right_pad([line.units for line in lines], [-1] * len(lines), width, device)
    branch_RL = _right_pad([line.branches for line in lines], [-1] * len(lines), width, device)
    return Batch(
        _right_pad([line.tokens for line in lines], [pad_id] * len(lines), width, device),
        _right_pad([line.positions for line in lines], [0] * len(lines), width, device),
        _visible(unit_RL, branch_RL)[:, None] if packed else unit_RL >= 0,
        _right_pad(response_ids, [pad_id] * len(response_ids), longest, device),
        (torch.arange(longest, device=device) < lengths[:, None]).to(torch.float32),
        _right_pad(states, [row[-1] for row in states], longest + 1, device),
        sum(map(len, prompt_ids)) + int(lengths.sum()),
    )


def make_batches(
    prompt_ids: Ids, response_ids: Ids, max_tokens: int, pad_id: int, device: torch.device, *, packed: bool
) -> list[tuple[list[int], Batch]]:
    """Batches of at most `max_tokens` (`length_groups`), each with the numbers of its responses."""
    return [
        (
            group,
            make_batch([prompt_ids[i] for i in group], [response_ids[i] for i in group], pad_id, device, packed=packed),
        )
        for group in length_groups(prompt_ids, response_ids, max_tokens, packed=packed)
    ]


def tokens_per_pass(device: torch.device) -> int:
    """Padded tokens that one pass without gradient takes at a time: enough to fill the device, few enough to group."""
    return 512 if device.type == "cpu" else 32768


def length_groups(prompt_ids: Ids, response_ids: Ids, max_tokens: int, *, packed: bool) -> list[list[int]]:
    """Responses to one prompt together, and units of like length, so that little is computed on padding.

    Args:
        prompt_ids: N prompts.
        response_ids: N responses.
        max_tokens: the most that a group has as a batch, padding included; where a response with its prompt alone is
            longer, a group of its own. Where passes are to be smaller, a part of that, and of all tokens.
        packed: as for `make_batch`.

    Returns:
        Numbers of the responses of each group, every response once.
    """
    max_tokens = smaller(min(max_tokens, _padded_tokens(_units(prompt_ids, response_ids, packed), packed)))
    units = sorted(_units(prompt_ids, response_ids, packed, max_tokens), key=lambda unit: (unit.length, unit.responses))
    fewest = min(len(units), -(-sum(unit.length for unit in units) // max_tokens))
    for count in range(fewest, len(units) + 1):
        cuts = np.linspace(0, len(units), count + 1).round().astype(int)  # of equal size: the largest sets the memory
        groups = [units[start:stop] for start, stop in itertools.pairwise(cuts)]
        if all(_padded_tokens(group, packed) <= max_tokens for group in groups):
            break
    return [[response for unit in group for response in unit.responses] for group in groups]


@dataclass(frozen=True)
class _Unit:
    """Responses to one prompt that share its pass."""

    responses: list[int]  # their numbers
    length: int  # tokens


@dataclass
class _Line:
    """One row while it is filled."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)  # 0 for a prompt, 1 … for the responses to it
    unit: int = 0

    def put(self, tokens: Sequence[int], position: int, branch: int) -> None:
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))
        self.units += [self.unit] * len(tokens)
        self.branches += [branch] * len(tokens)


def _units(prompt_ids: Ids, response_ids: Ids, packed: bool, max_tokens: float = math.inf) -> list[_Unit]:
    """Which responses share a pass: of one prompt, as many as make it cheapest, within `max_tokens` if possible."""
    by_prompt: dict[Hashable, list[int]] = {}
    for number, prompt in enumerate(prompt_ids):
        by_prompt.setdefault(tuple(prompt) if packed else number, []).append(number)
    units = []
    for numbers in by_prompt.values():
        length = len(prompt_ids[numbers[0]])
        splits = [
            [
                _Unit(some, length + sum(len(response_ids[number]) for number in some))
                for some in (numbers[start : start + size] for start in range(0, len(numbers), size))
            ]
            for size in range(1, len(numbers) + 1)
        ]
        fitting = [split for split in splits if max(unit.length for unit in split) <= max_tokens] or splits[:1]
        units += min(fitting, key=lambda split: sum(_cost(unit.length, 1) for unit in split))
    return units


def _rows(units: Sequence[_Unit], packed: bool) -> list[list[_Unit]]:
    """The cheapest way found to put units into rows: a few of them in each, the rows of like length."""
    most = MOST_UNITS_IN_A_ROW if packed else 1
    ways = [_even(units, -(-len(units) // count)) for count in range(1, most + 1)]
    return min(ways, key=lambda rows: _cost(max(sum(unit.length for unit in row) for row in rows), len(rows)))


def _even(units: Sequence[_Unit], num_rows: int) -> list[list[_Unit]]:
    """The longest units first, each into the row that is the shortest so far."""
    rows: list[list[_Unit]] = [[] for _ in range(num_rows)]
    filled = [(0, number) for number in range(num_rows)]
    for unit in sorted(units, key=lambda unit: -unit.length):
        length, number = heapq.heappop(filled)
        rows[number].append(unit)
        heapq.heappush(filled, (length + unit.length, number))
    return rows


def _cost(width: int, num_rows: int) -> float:
    """Of a pass over rows, in tokens of a very short row."""
    return num_rows * width * (1 + ATTENTION_COST * width)


def _padded_tokens(units: Sequence[_Unit], packed: bool) -> int:
    rows = _rows(units, packed)
    return len(rows) * max(sum(unit.length for unit in row) for row in rows)


def _right_pad(rows: Ids, fill: Sequence[int], width: int, device: torch.device) -> Tensor:
    """[N, width]; each row is filled up with its own value."""
    padded = [[*row, *[value] * (width - len(row))] for row, value in zip(rows, fill, strict=True)]
    return torch.tensor(padded, device=device)


def _visible(unit_RL: Tensor, branch_RL: Tensor) -> Tensor:
    """What each token may look at, [R, L, L]: itself, and before it its own branch and its unit's prompt."""
    own = branch_RL[:, :, None] == branch_RL[:, None, :]
    prompt = (branch_RL == 0)[:, None, :]
    seen = (unit_RL[:, :, None] == unit_RL[:, None, :]) & (own | prompt)
    return seen.tril()
