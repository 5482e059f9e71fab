"""The arithmetic that one PPO update cannot avoid, as matrix products. Pure functions.

A multiplication and its addition are 2 FLOPs. What is counted, for N prompts of P tokens and T sampled tokens:

    decode     the base on P + T - 1 tokens a row, and the head at the T positions that predict a token
    reference  the base on P + T - 1 tokens and the head at T positions, once
    reward     the base on P + T tokens, once (the critic may read the same pass)
    train      a epochs times: base and adapters on P + T - 1 tokens and the head at T positions, forward and backward

Backward, a frozen weight costs one product (the gradient of its input), an adapter's costs two. The old log-probs come
out of the decoding, and adapters can be merged wherever nothing is trained, so neither is counted. Softmax, norms,
activations, rotary embeddings and the optimizer are not counted either: this is a floor, not a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Product:
    """[rows, inner] @ [inner, columns], `count` times."""

    rows: int
    inner: int
    columns: int
    count: float = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """What its speed depends on."""
        return self.rows, self.inner, self.columns

    @property
    def flops(self) -> float:
        """2 · rows · inner · columns · count."""
        return 2 * self.rows * self.inner * self.columns * self.count


@dataclass(frozen=True)
class Llama:
    """The sizes of a Llama that decide its products."""

    hidden: int
    intermediate: int
    layers: int
    queries: int  # heads x head size
    keys: int  # key-value heads x head size
    vocabulary: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Llama:
        """From a `config.json`."""
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            config["hidden_size"],
            config["intermediate_size"],
            config["num_hidden_layers"],
            heads * size,
            config["num_key_value_heads"] * size,
            config["vocab_size"],
        )

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of one layer's seven linear maps."""
        h, q, kv, i = self.hidden, self.queries, self.keys, self.intermediate
        return [(h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h)]

    @property
    def weights(self) -> int:
        """Weights that one decoding step reads: all linear maps and the head."""
        return self.layers * sum(i * o for i, o in self.linears) + self.hidden * self.vocabulary


@dataclass(frozen=True)
class Update:
    """One PPO update."""

    num_prompts: int
    prompt_tokens: int
    new_tokens: int
    num_epochs: int
    rank: int
    pass_tokens: int  # at most so many in one forward and backward pass


@dataclass(frozen=True)
class Stage:
    """What a part of the update must do at least."""

    products: list[Product]
    attention_flops: float = 0.0
    read_bytes: float = 0.0
    flops: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flops", sum(p.flops for p in self.products) + self.attention_flops)


def decoder_forward(llama: Llama, tokens: int, rank: int, count: float) -> list[Product]:
    """All layers on `tokens` tokens: x·W, and for adapters of rank > 0 (x·A)·B."""
    products = []
    for inputs, outputs in llama.linears:
        products.append(Product(tokens, inputs, outputs, count * llama.layers))
        if rank:
            products.append(Product(tokens, inputs, rank, count * llama.layers))
            products.append(Product(tokens, rank, outputs, count * llama.layers))
    return products


def decoder_backward(llama: Llama, tokens: int, rank: int, count: float) -> list[Product]:
    """dx = dy·Wᵀ + (dy·Bᵀ)·Aᵀ, dA = xᵀ·(dy·Bᵀ), dB = (x·A)ᵀ·dy."""
    products = []
    for inputs, outputs in llama.linears:
        each = count * llama.layers
        products += [
            Product(tokens, outputs, inputs, each),
            Product(tokens, outputs, rank, each),
            Product(tokens, rank, inputs, each),
            Product(inputs, tokens, rank, each),
            Product(rank, tokens, outputs, each),
        ]
    return products


def causal_attention_flops(llama: Llama, rows: int, tokens: int) -> float:
    """Scores and mixing, 4 · queries FLOPs for each of the tokens · (tokens + 1) / 2 pairs of positions."""
    return llama.layers * rows * 4 * llama.queries * tokens * (tokens + 1) / 2


def update_stages(llama: Llama, update: Update, bytes_per_weight: int) -> dict[str, Stage]:
    """The stages of one update, in the module docstring's order."""
    n, p, t, rows, passes = _sizes(update)
    seen = p + t - 1
    head = Product(rows * t, llama.hidden, llama.vocabulary, passes)
    head_backward = Product(rows * t, llama.vocabulary, llama.hidden, passes)
    steps = Product(n, llama.hidden, llama.vocabulary, t)
    decode = [*decoder_forward(llama, n * p, 0, 1), *decoder_forward(llama, n, 0, t - 1), steps]
    context = sum(range(p, seen + 1))  # cached positions that each of the t steps reads, summed
    cache_bytes = n * context * llama.layers * 2 * llama.keys * bytes_per_weight
    train = [
        *decoder_forward(llama, rows * seen, update.rank, passes),
        *decoder_backward(llama, rows * seen, update.rank, passes),
        head,
        head_backward,
    ]
    epochs = update.num_epochs
    return {
        "decode": Stage(
            decode, causal_attention_flops(llama, n, seen), t * llama.weights * bytes_per_weight + cache_bytes
        ),
        "reference": Stage(
            [*decoder_forward(llama, rows * seen, 0, passes), head], causal_attention_flops(llama, n, seen)
        ),
        "reward": Stage(decoder_forward(llama, rows * (p + t), 0, passes), causal_attention_flops(llama, n, p + t)),
        "train": Stage(
            [Product(*product.shape, product.count * epochs) for product in train],
            3 * epochs * causal_attention_flops(llama, n, seen),
        ),
    }


def _sizes(update: Update) -> tuple[int, int, int, int, float]:
    length = update.prompt_tokens + update.new_tokens
    rows = min(max(1, update.pass_tokens // length), update.num_prompts)
    return update.num_prompts, update.prompt_tokens, update.new_tokens, rows, update.num_prompts / rows


def distinct_shapes(stages: Mapping[str, Stage]) -> list[tuple[int, int, int]]:
    """The shapes to measure."""
    return sorted({product.shape for stage in stages.values() for product in stage.products})


def floor_seconds(
    stages: Mapping[str, Stage], seconds: Mapping[tuple[int, int, int], float], bytes_per_second: float
) -> dict[str, float]:
    """Seconds that each stage takes at least: its products at their own measured speed, or its bytes if that is longer.

    Args:
        stages: from `update_stages`.
        seconds: of one product of each shape, measured alone.
        bytes_per_second: measured; bounds the decoding.
    """
    best_rate = max(Product(*shape).flops / taken for shape, taken in seconds.items())
    floors = {}
    for name, stage in stages.items():
        products = sum(product.count * seconds[product.shape] for product in stage.products)
        floors[name] = max(products + stage.attention_flops / best_rate, stage.read_bytes / bytes_per_second)
    return floors


def rate(stages: Sequence[Stage], seconds: float) -> float:
    """FLOPs per second."""
    return sum(stage.flops for stage in stages) / seconds
