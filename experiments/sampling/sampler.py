"""Sampling by inverse CDF from numbers that were drawn beforehand.

Each row brings one uniform number per step, so its response depends on the model and on these numbers only: not on
the batch it shares (in float32), and two models sampled with the same numbers can be compared pair by pair (common
random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from experiments.algorithms.token_logprobs import Head
from experiments.inputs.models import language_head, precision
from experiments.passes import smaller
from experiments.sampling.batch import is_end
from experiments.sampling.decoders import Decoder, LlamaDecoder, make_decoder
from experiments.seeding import numpy_generator

STOP_CHECK_STEPS = 4  # looking whether rows have ended makes a GPU wait, so it is not done at every token
LARGEST_UNIFORM = 1 - 2**-24  # the largest float32 below 1
COMPACT_BELOW = 0.75  # rows that ended leave the batch once fewer than this share is still going


@dataclass(frozen=True)
class Response:
    """One sampled response."""

    token_ids: list[int]  # the end-of-sequence token included, where there is one
    logps: list[float]  # of each token under the sampled distribution, nats
    finish_reason: Literal["eos", "length"]


def common_uniforms(seed: int, stream: int, row_names: Sequence[str], num_steps: int) -> Tensor:
    """Uniform numbers [N, num_steps] in [0, 1), each row's derived from (seed, stream, its name) alone."""
    rows = [numpy_generator(seed, "sample", stream, name).random(num_steps) for name in row_names]
    return torch.from_numpy(np.stack(rows)).to(torch.float32).clamp_max(LARGEST_UNIFORM)  # rounding could reach 1


@torch.inference_mode()
def sample(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    eos_ids: Sequence[int],
    rows_per_batch: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[Response]:
    """Sample one response per row.

    Args:
        model: a causal language model; its adapters as they are switched now.
        prompt_ids: N prompts, none empty.
        uniforms: [N, T]: one number per row and step; T is the length limit.
        temperature: divides the logits; there is no top-k or top-p.
        eos_ids: any of them ends a row; it belongs to the response.
        rows_per_batch: rows decoded together, in the order given; fewer after a want of memory, but in half precision,
            where the company of a row can change its response.
        on_batch: called with the number of rows done.
    """
    responses: list[Response] = []
    uniforms = uniforms.to(model.device)
    decoder, head = make_decoder(model), language_head(model)
    eos_E = torch.tensor(list(eos_ids), device=model.device)
    rows_per_batch = smaller(rows_per_batch) if model.dtype == precision(model.dtype) else rows_per_batch
    for start in range(0, len(prompt_ids), rows_per_batch):
        rows = slice(start, start + rows_per_batch)
        sampled = _Sampled.empty(uniforms[rows], precision(model.dtype))
        _decode(decoder, head, prompt_ids[rows], sampled, temperature, eos_E)
        responses += sampled.responses(eos_ids)
        on_batch(len(responses))
    return responses


@dataclass
class _Sampled:
    """What has been sampled for B rows; fixed buffers, so that a step can be captured on CUDA."""

    uniform_BT: Tensor
    token_BT: Tensor
    logp_BT: Tensor
    step: Tensor  # [1], the next step

    @classmethod
    def empty(cls, uniform_BT: Tensor, dtype: torch.dtype) -> _Sampled:
        token_BT = torch.zeros(uniform_BT.shape, dtype=torch.long, device=uniform_BT.device)
        return cls(uniform_BT, token_BT, torch.zeros_like(uniform_BT, dtype=dtype), token_BT.new_zeros(1))

    def draw(self, hidden_BH: Tensor, head: Head, temperature: float) -> None:
        """Sample the next token of every row."""
        logits_BV, _ = head.logits(hidden_BH)  # fresh, so that `draw` may work in it
        token_B, logp_B = draw(logits_BV, self.uniform_BT.index_select(1, self.step)[:, 0], temperature)
        self.token_BT.index_copy_(1, self.step, token_B[:, None])
        self.logp_BT.index_copy_(1, self.step, logp_B[:, None])
        self.step.add_(1)

    def last(self) -> Tensor:
        """The newest tokens [B]."""
        return self.token_BT.index_select(1, self.step - 1)[:, 0]

    def keep(self, rows: Tensor) -> _Sampled:
        return _Sampled(self.uniform_BT[rows], self.token_BT[rows], self.logp_BT[rows], self.step)

    def put(self, rows: Tensor, part: _Sampled) -> None:
        self.token_BT[rows], self.logp_BT[rows] = part.token_BT, part.logp_BT

    def responses(self, eos_ids: Sequence[int]) -> list[Response]:
        rows = zip(self.token_BT.tolist(), self.logp_BT.tolist(), strict=True)
        return [_response(tokens, logps, eos_ids) for tokens, logps in rows]


def _decode(
    decoder: Decoder, head: Head, prompt_ids: Sequence[Sequence[int]], everything: _Sampled, temperature: float,
    eos_E: Tensor,
) -> None:  # fmt: skip
    """Fill `everything`; rows that ended leave, and what they would have sampled afterwards is never looked at."""
    num_rows, num_steps = everything.token_BT.shape
    rows = torch.arange(num_rows, device=everything.token_BT.device)  # which of them are still in the running batch
    running = everything.keep(rows)
    running.draw(decoder.prefill(prompt_ids, num_steps - 1), head, temperature)
    advance: Callable[[], object] | None = None
    for step in range(1, num_steps):
        advance = advance or _advance(decoder, head, running, temperature)
        advance()
        if (step + 1) % STOP_CHECK_STEPS or step + 1 == num_steps:
            continue
        going = ~is_end(running.token_BT[:, : step + 1], eos_E).any(dim=1)
        num_going = int(going.sum())
        if num_going < COMPACT_BELOW * len(rows):
            everything.put(rows, running)
            if not num_going:
                return
            kept = going.nonzero()[:, 0]
            decoder.keep(kept)
            rows, running, advance = rows[kept], running.keep(kept), None
    everything.put(rows, running)


def _advance(decoder: Decoder, head: Head, running: _Sampled, temperature: float) -> Callable[[], object]:
    """One step of the running batch as a function; on CUDA it is captured once and replayed."""

    def advance() -> None:
        running.draw(decoder.step(running.last()), head, temperature)

    if not (running.token_BT.is_cuda and isinstance(decoder, LlamaDecoder)):
        return advance
    return _captured(advance, decoder, running)


def _captured(advance: Callable[[], None], decoder: LlamaDecoder, running: _Sampled) -> Callable[[], object]:
    """A CUDA graph of `advance`: one launch instead of some thousand.

    Capturing needs a warm-up on a side stream, which is a step like any other; so what it changed is put back.
    """
    state = [*decoder.counters(), running.step]
    before = [tensor.clone() for tensor in state]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        advance()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        advance()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
    return graph.replay


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Inverse-CDF sampling: the first token whose cumulative probability exceeds the uniform number.

    Args:
        logits_BV: float32 or more; overwritten, because fresh memory for [B, V] costs more than the arithmetic.
        uniform_B: in [0, 1).
        temperature: divides the logits.

    Returns:
        Token ids [B] and their log-probs [B] in nats, both in the logits' arithmetic.
    """
    if temperature != 1:
        logits_BV.div_(temperature)
    logits_BV.sub_(logits_BV.amax(dim=-1, keepdim=True))
    mass_BV = logits_BV.exp().cumsum_(dim=-1)
    total_B1 = mass_BV[:, -1:]
    token_B1 = torch.searchsorted(mass_BV, uniform_B[:, None] * total_B1, right=True)
    token_B1.clamp_max_(logits_BV.shape[-1] - 1)
    return token_B1[:, 0], (logits_BV.gather(1, token_B1) - total_B1.log())[:, 0]


def _response(tokens: list[int], logps: list[float], eos_ids: Sequence[int]) -> Response:
    length = next((place for place, token in enumerate(tokens, start=1) if token in eos_ids), len(tokens))
    return Response(tokens[:length], logps[:length], "eos" if tokens[length - 1] in eos_ids else "length")
