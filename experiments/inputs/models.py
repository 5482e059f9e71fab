"""The base model and the adapters on it.

Every model is first prepared into a folder of safetensors (packaged and tiny models: once, in the cache), then loaded
from there by `from_pretrained`. Roles (policy, reward) are named LoRA adapters over one frozen base; the reference is
the base with adapters off.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from experiments.errors import InputError
from experiments.inputs.fingerprint import TINY_RECIPE, packaged_gguf, sha256_of_file
from experiments.spec import Lora, Model

POLICY = "default"  # PEFT's own name, so that a saved policy loads with PeftModel.from_pretrained and nothing else
REWARD = "reward"


def device() -> torch.device:
    """The one device that this process was given."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def loading_options(model: Model) -> dict[str, Any]:
    """What every `from_pretrained` of this base is called with.

    On the CPU plain attention beats the fused kernel in bfloat16: for 16 rows of 40 tokens of SmolLM2-135M on one
    core, forward and backward take 3.5 s instead of 4.5 s. Only safetensors are read, so nothing is unpickled.
    """
    attention = "eager" if device().type == "cpu" and model.dtype == "bfloat16" else "sdpa"
    return {
        "revision": model.revision,
        "dtype": getattr(torch, model.dtype),
        "attn_implementation": attention,
        "use_safetensors": True,
    }


def prepare_model(model: Model, cache_dir: Path) -> str:
    """What `from_pretrained` takes: a local folder or a hub id. Packaged and tiny models are converted once.

    The conversion is atomic and safe when several processes ask at once: the first does it, the others wait.
    """
    scheme, _, name = model.path.partition(":")
    if scheme not in {"package", "tiny"}:
        path = Path(model.path).expanduser()
        return str(path) if path.exists() else model.path
    source = packaged_gguf(name) if scheme == "package" else None
    key = sha256_of_file(source)[:16] if source else TINY_RECIPE
    folder = cache_dir / "models" / f"{name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
            try:
                _convert_gguf(source, unfinished) if source else _make_tiny_llama(unfinished)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return str(folder)


def load_tokenizer(model: Model, cache_dir: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer; where it has no pad token, the end-of-sequence token pads (masks come from lengths).

    Raises:
        InputError: the tokenizer has no end-of-sequence token.
    """
    tokenizer = AutoTokenizer.from_pretrained(prepare_model(model, cache_dir), revision=model.revision)
    if tokenizer.eos_token_id is None:
        raise InputError(f"model.path={model.path}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of a response, without its end-of-sequence token."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def load_base(model: Model, cache_dir: Path) -> PreTrainedModel:
    """The frozen base in `model.dtype` on this process's device, in evaluation mode (dropout off)."""
    base: Any = AutoModelForCausalLM.from_pretrained(prepare_model(model, cache_dir), **loading_options(model))
    return base.requires_grad_(False).eval().to(device())  # type: ignore[no-any-return]


def lora_config(lora: Lora, task_type: str = "CAUSAL_LM") -> LoraConfig:
    """PEFT's configuration of the shared LoRA settings; no dropout, so that two forward passes agree."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        lora_dropout=0.0,
        bias="none",
        task_type=task_type,
    )


def with_policy(base: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """The base with a fresh trainable policy adapter (float32; B = 0, so it starts as the base exactly)."""
    torch.manual_seed(seed)  # PEFT initialises A from the global stream
    return get_peft_model(base, lora_config(lora), adapter_name=POLICY).eval()


@contextlib.contextmanager
def reference(policy: PeftModel) -> Iterator[None]:
    """Within it, the model is the base: all adapters off."""
    with policy.disable_adapter():
        yield


@contextlib.contextmanager
def adapter(model: PeftModel, name: str) -> Iterator[None]:
    """Within it, adapter `name` is active and frozen; afterwards the policy is active and trainable again."""
    model.set_adapter(name, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(POLICY)


def _convert_gguf(source: Path, folder: Path) -> None:
    """Dequantise a GGUF file into safetensors.

    transformers refuses to save a model it loaded from GGUF, so the weights move into a fresh model first. bfloat16
    holds more than the four bits that the file had.
    """
    quantised: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    fresh.load_state_dict(quantised.state_dict())
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def _make_tiny_llama(folder: Path) -> None:
    """A random Llama of some 20,000 parameters whose tokens are bytes; as in SmolLM2, pad = eos."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: index for index, byte in enumerate(alphabet)} | {"<eos>": len(alphabet)}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<eos>"
    wrapped: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token=end, pad_token=end
    )
    wrapped.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=len(alphabet), pad_token_id=len(alphabet),
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
