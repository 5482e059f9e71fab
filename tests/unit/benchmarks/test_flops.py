"""The counts against numbers worked by hand, and against products that torch itself counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from tests.benchmarks.flops import (
    Llama,
    Product,
    Stage,
    Update,
    causal_attention_flops,
    decoder_backward,
    decoder_forward,
    distinct_shapes,
    floor_seconds,
    update_stages,
)

SMOLLM2 = Llama(hidden=576, intermediate=1536, layers=30, queries=576, keys=192, vocabulary=49152)
TINY = Llama(hidden=8, intermediate=16, layers=2, queries=8, keys=4, vocabulary=32)


def total(products: list[Product]) -> float:
    return sum(product.flops for product in products)


def test_a_product_costs_two_flops_for_each_multiplication() -> None:
    assert Product(2, 3, 5, count=4).flops == 240


def test_smollm2_reads_134_million_weights_a_step() -> None:
    assert SMOLLM2.weights == 134_479_872  # 135M less the norms; the head shares the embeddings


def test_sizes_come_from_a_config_with_and_without_head_dim() -> None:
    config = LlamaConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=32,
    ).to_dict()  # fmt: skip
    assert Llama.from_config(config) == Llama.from_config({**config, "head_dim": None}) == TINY


def test_the_forward_count_is_what_torch_counts() -> None:
    config = LlamaConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=32, attn_implementation="eager",
    )  # fmt: skip
    model, ids = LlamaForCausalLM(config), torch.zeros(3, 5, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    attention = causal_attention_flops(TINY, rows=3, tokens=5) * 2 * 5 / 6  # eager computes the masked half too
    rotary = 2 * 2 * 5  # position · frequency, of a batch of one: [2, 1] @ [1, 5] where the head size is 2
    head = Product(15, 8, 32).flops
    counted = total(decoder_forward(TINY, 15, rank=0, count=1)) + head + attention
    assert counter.get_total_flops() - counted == pytest.approx(0, abs=rotary)


def test_backward_costs_what_forward_does_and_once_more_for_adapters() -> None:
    forward = total(decoder_forward(TINY, 10, rank=0, count=1))
    adapters = total(decoder_forward(TINY, 10, rank=4, count=1)) - forward
    assert total(decoder_backward(TINY, 10, rank=4, count=1)) == forward + 2 * adapters


def test_micro_batches_and_epochs() -> None:
    update = Update(num_prompts=8, prompt_tokens=3, new_tokens=4, num_epochs=1, rank=2, pass_tokens=56)
    whole = update_stages(TINY, update, 2)
    halves = update_stages(TINY, Update(8, 3, 4, 1, 2, pass_tokens=30), 2)
    twice = update_stages(TINY, Update(8, 3, 4, 2, 2, pass_tokens=99), 2)
    for name, stage in whole.items():
        assert halves[name].flops == stage.flops
        assert twice[name].flops == stage.flops * (2 if name == "train" else 1)


def test_decoding_one_token_is_the_prompt_and_one_reading_of_the_weights() -> None:
    decode = update_stages(TINY, Update(1, prompt_tokens=1, new_tokens=1, num_epochs=1, rank=2, pass_tokens=1), 2)[
        "decode"
    ]
    cache = 2 * 2 * 4 * 2  # layers · (key and value) · size · bytes
    assert decode.read_bytes == 2 * TINY.weights + cache
    assert decode.flops == 2 * TINY.weights + causal_attention_flops(TINY, 1, 1)


def test_the_floor_is_products_at_their_own_speed_or_bytes_where_these_take_longer() -> None:
    stages = {"a": Stage([Product(1, 1, 1, 3), Product(2, 1, 1, 1)], attention_flops=8), "b": Stage([], read_bytes=10)}
    seconds = {(1, 1, 1): 1.0, (2, 1, 1): 1.0}  # the best rate is 4 FLOPs a second
    assert distinct_shapes(stages) == [(1, 1, 1), (2, 1, 1)]
    assert floor_seconds(stages, seconds, bytes_per_second=2.0) == {"a": 3 + 1 + 2, "b": 5}
