"""What computes the next hidden states while responses are sampled: prompts first, then one token per row and step.

`LlamaDecoder` knows the layers of the Llama family: products that read the same input are one product, the adapter is
merged where the base is not bfloat16, keys and values are written into a cache that never moves, and a step makes a
third of the library's calls. On CUDA its step has fixed shapes and addresses, so that it can be captured as a graph.
`LibraryDecoder` runs any causal language model of transformers, slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers import DynamicCache

from experiments.inputs.lora import LoraLinear, low_rank
from experiments.inputs.models import decoder_of, precision, takes_any_mask
from experiments.inputs.projections import joint_weight
from experiments.sampling.batch import left_pad, positions

PARTS_OF_PREFILL = 4  # fewer pad more, more are smaller products
LLAMA_FAMILY = {"LlamaModel", "MistralModel", "Qwen2Model"}


class Decoder(Protocol):
    """Rows that are decoded together."""

    def prefill(self, prompt_ids: Sequence[Sequence[int]], num_steps: int) -> Tensor:
        """Read the prompts; room for `num_steps` more tokens. The last hidden states [B, H]."""

    def step(self, token_B: Tensor) -> Tensor:
        """Append one token to each row: its hidden states [B, H]."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""


def make_decoder(model: Any) -> Decoder:
    """The fastest decoder for a model, adapters as they are switched now."""
    return LlamaDecoder(model) if LlamaDecoder.knows(model) else LibraryDecoder(model)


class LibraryDecoder:
    """The model's own forward pass with a growing cache."""

    def __init__(self, model: Any) -> None:
        self.decoder = decoder_of(model)

    def prefill(self, prompt_ids: Sequence[Sequence[int]], num_steps: int) -> Tensor:
        """Read each different prompt once."""
        self.cache = DynamicCache(config=self.decoder.config)
        distinct, which = _distinct(prompt_ids)
        ids, mask = left_pad(distinct, 0, self.decoder.device)
        hidden_B1H = self._forward(ids, mask, positions(mask))
        self.cache.batch_select_indices(which.to(mask.device))
        self.mask, self.position_B1 = mask[which], positions(mask)[which][:, -1:]
        return hidden_B1H[which, -1]

    def step(self, token_B: Tensor) -> Tensor:
        """One token per row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.position_B1 = self.position_B1 + 1
        return self._forward(token_B[:, None], self.mask, self.position_B1)[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Drop the other rows' cache."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position_B1 = self.mask[rows], self.position_B1[rows]

    def _forward(self, ids: Tensor, mask: Tensor, position_ids: Tensor) -> Tensor:
        output = self.decoder(
            input_ids=ids, attention_mask=mask, position_ids=position_ids, past_key_values=self.cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


class LlamaDecoder:
    """The Llama family's layers (arXiv:2302.13971, section 2.2) with fused products and a cache that never moves.

    Shape suffixes: B rows, S new tokens, C columns of the cache, K key-value heads, G query heads of each, D head size.
    """

    def __init__(self, model: Any) -> None:
        decoder = decoder_of(model)
        self.config = decoder.config
        self.embedding, self.rotary, self.norm = decoder.embed_tokens, decoder.rotary_emb, decoder.norm
        self.layers = [_Layer.of(layer) for layer in decoder.layers[: self.config.num_hidden_layers]]
        self.num_kv_heads = self.config.num_key_value_heads
        self.num_groups = self.config.num_attention_heads // self.num_kv_heads
        head_size = getattr(self.config, "head_dim", None)
        self.head_size = head_size or self.config.hidden_size // self.config.num_attention_heads

    @staticmethod
    def knows(model: Any) -> bool:
        """Whether the model is one of the family, without sliding windows, and adapted by our layers or not at all."""
        decoder = decoder_of(model)
        if any(hasattr(module, "base_layer") and not isinstance(module, LoraLinear) for module in decoder.modules()):
            return False
        known = type(decoder).__name__ in LLAMA_FAMILY and decoder.config.hidden_act == "silu"
        return known and takes_any_mask(model)

    def prefill(self, prompt_ids: Sequence[Sequence[int]], num_steps: int) -> Tensor:
        """Read each different prompt once, in parts of like length."""
        weight = self.embedding.weight
        distinct, which = _distinct(prompt_ids)
        ids, mask = left_pad(distinct, 0, weight.device)
        num_rows, width = ids.shape
        shape = (num_rows, self.num_kv_heads, width + num_steps, self.head_size)
        self.cache = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.layers]
        self.bias_BC = torch.full((num_rows, width + num_steps), -torch.inf, dtype=weight.dtype, device=weight.device)
        self.bias_BC[:, :width] = torch.where(mask.bool(), 0.0, -torch.inf)
        self.num_filled = width
        self.position_B1 = positions(mask)[:, -1:]
        size = num_rows if bool(mask.all()) else -(-num_rows // PARTS_OF_PREFILL)
        parts = [slice(start, start + size) for start in range(0, num_rows, size)]
        hidden_BH = torch.cat([self._read(ids[part], mask[part], part) for part in parts])
        self.column = torch.tensor([width], device=weight.device)
        self.keep(which.to(weight.device))
        return hidden_BH[which]

    def _read(self, ids: Tensor, mask: Tensor, rows: slice) -> Tensor:
        """The last hidden states [B, H] of some rows' prompts, which fill the right end of their columns."""
        everything, total = self.cache, ids.shape[1]
        width = int(mask.sum(dim=1).max())
        ids, mask = ids[:, total - width :], mask[:, total - width :]
        # A padding column sees itself, so that its softmax is defined; nothing else ever sees it.
        causal_SC = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
        seen_BSC = (causal_SC & mask[:, None].bool()) | torch.eye(width, dtype=torch.bool, device=ids.device)
        mask_BSC = torch.zeros(seen_BSC.shape, dtype=self.bias_BC.dtype, device=ids.device)
        here = rows, slice(None), slice(total - width, None)
        self.cache = [(keys[here], values[here]) for keys, values in everything]
        self.column = torch.arange(width, device=ids.device)
        hidden_BSH = self._forward(ids, positions(mask), mask_BSC.masked_fill(~seen_BSC, -torch.inf), width)
        self.cache = everything
        return hidden_BSH[:, -1]

    def step(self, token_B: Tensor) -> Tensor:
        """One token per row, in place: on CUDA nothing but the buffers' contents changes from step to step."""
        self.bias_BC.index_fill_(1, self.column, 0.0)
        self.position_B1.add_(1)
        self.num_filled += 1
        width = self.bias_BC.shape[1] if token_B.is_cuda else self.num_filled
        hidden_BSH = self._forward(token_B[:, None], self.position_B1, self.bias_BC[:, None, :width], width)
        self.column.add_(1)
        return hidden_BSH[:, -1]

    def counters(self) -> list[Tensor]:
        """What a step moves on; the rest that it writes is written again by the step that follows."""
        return [self.column, self.position_B1, self.bias_BC]

    def keep(self, rows: Tensor) -> None:
        """Drop the other rows' cache."""
        self.cache = [(keys[rows], values[rows]) for keys, values in self.cache]
        self.bias_BC, self.position_B1 = self.bias_BC[rows], self.position_B1[rows]

    def _forward(self, ids_BS: Tensor, position_ids: Tensor, mask_BSC: Tensor, width: int) -> Tensor:
        """Hidden states [B, S, H] of new tokens, whose keys and values go to `self.column`."""
        x_BSH = self.embedding(ids_BS)
        cos, sin = (table[:, :, None] for table in self.rotary(x_BSH, position_ids))
        for layer, cache in zip(self.layers, self.cache, strict=True):
            attended = self._attend(layer, layer.input_norm(x_BSH), cos, sin, mask_BSC, cache, width)
            x_BSH = layer.output(attended).add_(x_BSH)
            gate, up = layer.gate_up(layer.post_norm(x_BSH)).chunk(2, dim=-1)
            x_BSH = layer.down(silu(gate).mul_(up)).add_(x_BSH)
        return _Norm.of(self.norm)(x_BSH)

    def _attend(
        self, layer: _Layer, x_BSH: Tensor, cos: Tensor, sin: Tensor, mask_BSC: Tensor,
        cache: tuple[Tensor, Tensor], width: int,
    ) -> Tensor:  # fmt: skip
        """Grouped attention of the new tokens over the first `width` columns: [B, S, heads x D]."""
        num_rows, num_new, _ = x_BSH.shape
        heads = layer.query_key_value(x_BSH).view(num_rows, num_new, -1, self.head_size)
        num_rotated = heads.shape[2] - self.num_kv_heads
        turned = _rotate(heads[:, :, :num_rotated], cos, sin)
        query, key = turned[:, :, : -self.num_kv_heads], turned[:, :, -self.num_kv_heads :]
        for stored, new in zip(cache, (key, heads[:, :, num_rotated:]), strict=True):
            stored.index_copy_(2, self.column, new.transpose(1, 2))
        key_BKCD, value_BKCD = (stored[:, :, :width] for stored in cache)
        query_BKGSD = query.view(num_rows, num_new, self.num_kv_heads, self.num_groups, -1).permute(0, 2, 3, 1, 4)
        query_BKND = query_BKGSD.reshape(num_rows, self.num_kv_heads, -1, self.head_size)
        score_BKNC = query_BKND @ key_BKCD.transpose(2, 3)
        score_BKGSC = score_BKNC.view(num_rows, self.num_kv_heads, self.num_groups, num_new, width)
        masked = torch.add(mask_BSC[:, None, None], score_BKGSC, alpha=self.head_size**-0.5)
        weight = masked.softmax(dim=-1, dtype=precision(x_BSH.dtype)).to(x_BSH.dtype)
        mixed = weight.view(score_BKNC.shape) @ value_BKCD
        mixed_BSKGD = mixed.view(num_rows, self.num_kv_heads, self.num_groups, num_new, -1).permute(0, 3, 1, 2, 4)
        attended: Tensor = mixed_BSKGD.reshape(num_rows, num_new, -1)
        return attended


@dataclass(frozen=True)
class _Projection:
    """Linear layers of one input as one; an active adapter is merged, on a bfloat16 base it stays beside the weights.

    The weights of a bfloat16 base lie on bfloat16's grid: merged, an update below half a step of that grid would
    vanish, which early in training is all of it.
    """

    weight_IO: Tensor
    bias_O: Tensor | None
    low: tuple[Tensor, Tensor] | None  # A^T [I, R], and s B^T [R, O], block-diagonal over the layers

    @classmethod
    def of(cls, *layers: Any) -> _Projection:
        biases = [layer.bias for layer in layers if layer.bias is not None]
        bias_O = torch.cat(biases) if biases else None
        weight_IO = joint_weight([getattr(layer, "base_layer", layer) for layer in layers])
        if not any(isinstance(layer, LoraLinear) and not layer.disable_adapters for layer in layers):
            return cls(weight_IO, bias_O, None)
        factors = [low_rank(layer) for layer in layers]
        down_IR = torch.cat([a_RI for a_RI, _ in factors]).T.to(weight_IO.dtype)
        up_RO = torch.block_diag(*[b_OR for _, b_OR in factors]).T.to(weight_IO.dtype)  # type: ignore[no-untyped-call]
        if weight_IO.dtype == torch.bfloat16:
            return cls(weight_IO, bias_O, (down_IR.contiguous(), up_RO.contiguous()))
        return cls(torch.addmm(weight_IO, down_IR, up_RO), bias_O, None)

    def __call__(self, x: Tensor) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        y_NO = x_NI @ self.weight_IO if self.bias_O is None else torch.addmm(self.bias_O, x_NI, self.weight_IO)
        if self.low is not None:
            down, up = self.low
            y_NO.addmm_(x_NI @ down, up)
        return y_NO.view(*x.shape[:-1], -1)


@dataclass(frozen=True)
class _Norm:
    """Root-mean-square norm, computed in float32 at least (arXiv:1910.07467)."""

    weight_H: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module.weight, module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.to(precision(x.dtype))
        mean_square: Tensor = torch.linalg.vecdot(wide, wide)[..., None] / x.shape[-1]
        normed = wide * mean_square.add_(self.epsilon).rsqrt_()
        return normed.to(x.dtype).mul_(self.weight_H)


@dataclass(frozen=True)
class _Layer:
    input_norm: _Norm
    query_key_value: _Projection
    output: _Projection
    post_norm: _Norm
    gate_up: _Projection
    down: _Projection

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            _Norm.of(layer.input_layernorm),
            _Projection.of(attention.q_proj, attention.k_proj, attention.v_proj),
            _Projection.of(attention.o_proj),
            _Norm.of(layer.post_attention_layernorm),
            _Projection.of(mlp.gate_proj, mlp.up_proj),
            _Projection.of(mlp.down_proj),
        )


def _rotate(x_BSND: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864, equation 34)."""
    half = x_BSND.shape[-1] // 2
    turned = x_BSND * cos
    turned[..., :half].addcmul_(x_BSND[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x_BSND[..., :half], sin[..., half:])
    return turned


def _distinct(prompt_ids: Sequence[Sequence[int]]) -> tuple[list[list[int]], Tensor]:
    """The different prompts, short ones first, and which of them each row has: samples of a prompt share its pass."""
    shortest_first = sorted(set(map(tuple, prompt_ids)), key=lambda prompt: (len(prompt), prompt))
    number = {prompt: index for index, prompt in enumerate(shortest_first)}
    return [list(prompt) for prompt in number], torch.tensor([number[tuple(prompt)] for prompt in prompt_ids])
