"""The base model and the adapters on it.

Every model is first prepared into a folder of safetensors (packaged and tiny models: once, in the cache), then loaded
from there by `from_pretrained`. Roles (policy, reward) are named LoRA adapters over one frozen base; the reference is
the base with adapters off.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from peft import PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from experiments.algorithms.token_logprobs import Head
from experiments.collector import gc_disabled
from experiments.errors import InputError
from experiments.inputs import planned
from experiments.inputs.fingerprint import TINY_RECIPE, is_made_here, packaged_gguf, sha256_of_file
from experiments.inputs.layers import fuse_layers
from experiments.inputs.lora import lora_config
from experiments.inputs.model_files import local_folder
from experiments.model_spec import Lora, Model
from experiments.seeding import derive_seed

POLICY = "default"  # PEFT's own name, so that a saved policy loads with PeftModel.from_pretrained and nothing else
REWARD = "reward"
FULL_ATTENTION = {"LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"}
NOISE = ("drop", "jitter")  # resid_pdrop, layerdrop, nn.Dropout.p; a mixture of experts shakes its router's input
_check_of_base: ContextVar[Callable[[Model, PreTrainedModel], None]] = ContextVar(
    "what a loaded base must pass", default=lambda model, base: None
)
DIGESTS = "digests.json"  # beside a converted model's files: what they were when they were written


def precision(dtype: torch.dtype) -> torch.dtype:
    """What heads, sums and softmaxes are computed in on a base of `dtype`: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def device() -> torch.device:
    """The one device that this process was given."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arithmetic(model: Model) -> torch.dtype:
    """The precision in which this process multiplies: the base's own, or float32 where bfloat16 would be slower.

    On the CPU bfloat16 pays off with AMX, and with AVX-512-BF16 outside of Intel's processors. Without either it is
    emulated or runs at half of float32's rate (165 against 315 GFLOP/s for 1280 x 576 x 1536 on two Sapphire Rapids
    cores without AMX). The weights are bfloat16's values either way. A fixed rule and not a measurement, so that the
    same command gives the same result.
    """
    own: torch.dtype = getattr(torch, model.dtype)
    if own != torch.bfloat16 or device().type != "cpu":
        return own
    has = torch.cpu.get_capabilities()
    fast = has.get("amx_bf16") or (has.get("avx512_bf16") and not str(has.get("cpu_name")).startswith("Intel"))
    return own if fast else torch.float32


def load(auto_class: Any, model: Model, cache_dir: Path, **options: Any) -> PreTrainedModel:
    """A frozen model of `auto_class` with the base's weights, on this process's device, dropout off.

    Only safetensors are read, so nothing is unpickled. Attention is the fused kernel if the family supports it, else
    plain (Gemma 2, BLOOM). On the CPU plain attention beats the fused kernel in bfloat16: for 16 rows of 40 tokens of
    SmolLM2-135M on one core, forward and backward take 3.5 s instead of 4.5 s. It is chosen only for families that are
    known to compute the same with both: Falcon's plain attention adds its position bias (ALiBi) twice.
    """
    dtype = arithmetic(model)
    print(f"{model.path}: weights of {model.dtype}, arithmetic in {str(dtype).removeprefix('torch.')}", flush=True)
    loaded: Any = auto_class.from_pretrained(
        prepare_model(model, cache_dir),
        trust_remote_code=False,
        dtype=getattr(torch, model.dtype),
        attn_implementation=None,  # whatever the folder's configuration says
        use_safetensors=True,
        disable_mmap=True,  # weights in a file that is written anew would change under the job
        **options,
    )
    planned.compare("base_model")
    loaded = (loaded if loaded.dtype == dtype else loaded.to(dtype)).requires_grad_(False).eval().to(device())
    if device().type == "cpu" and dtype == torch.bfloat16 and type(decoder_of(loaded)).__name__ in FULL_ATTENTION:
        loaded.set_attn_implementation("eager")
    fuse_layers(loaded)
    switch_noise_off(loaded)
    return loaded  # type: ignore[no-any-return]


def switch_noise_off(model: nn.Module) -> None:
    """Make training mode compute what evaluation mode computes, since a trainer puts the model in training mode.

    Dropout is a layer in one family, and a number that the forward pass reads in another (of a module or of its
    configuration). So every probability is set to 0 whose own name, or whose layer's name, speaks of such noise.
    """
    modules = list(model.modules())
    for owner in [*modules, *(module.config for module in modules if hasattr(module, "config"))]:
        for name, value in list(vars(owner).items()):
            is_noise = any(word in f"{type(owner).__name__} {name}".lower() for word in NOISE)
            if is_noise and isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
                setattr(owner, name, type(value)(0))


def trl_arguments(folder: str) -> dict[str, Any]:
    """Arguments that all of TRL's trainers get here. Nothing is written to ``folder``."""
    return dict(
        output_dir=folder,
        bf16=False,  # the base has its precision, and LoraLinear follows it; autocast would only add casts
        use_cpu=device().type == "cpu",
        gradient_checkpointing=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )


def prepare_model(model: Model, cache_dir: Path) -> str:
    """The folder that `from_pretrained` takes. A hub id is downloaded, packaged and tiny models are converted once.

    The conversion is atomic and safe when several processes ask at once: the first does it, the others wait. What is
    there is trusted as long as it is what was written, byte for byte, and converted again where it is not.
    """
    scheme, _, name = model.path.partition(":")
    if not is_made_here(model.path):
        return str(local_folder(model.path, "model.path", model.revision))
    source = packaged_gguf(name) if scheme == "package" else None
    key = sha256_of_file(source)[:16] if source else TINY_RECIPE
    folder = cache_dir / "models" / f"{name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):
            for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed: we hold its lock
                shutil.rmtree(left, ignore_errors=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                _convert_gguf(source, unfinished) if source else _make_tiny_llama(unfinished)
                (unfinished / DIGESTS).write_text(json.dumps(_digests(unfinished)))
                if folder.exists():  # aside in one step: another process may have its files open
                    folder.rename(unfinished / "damaged")
                unfinished.rename(folder)
                shutil.rmtree(folder / "damaged", ignore_errors=True)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return str(folder)


def _is_whole(folder: Path) -> bool:
    """Whether a converted model is as it was written."""
    try:
        return bool(json.loads((folder / DIGESTS).read_text()) == _digests(folder))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of a model's files by name."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != DIGESTS]
    return {path.name: sha256_of_file(path) for path in files}


def num_positions(config: Any) -> int | None:
    """The longest sequence that a model of this configuration was made for, in tokens; None: it has no limit."""
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def load_base(model: Model, cache_dir: Path) -> PreTrainedModel:
    """The base as a causal language model.

    Raises:
        InputError: its logits are not those of `language_head`, so that log-probs would be wrong; or it does not pass
            the check of `every_base_passes`.
    """
    base: Any = load(AutoModelForCausalLM, model, cache_dir)
    ids = torch.arange(8, device=base.device)[None]
    with torch.no_grad():
        logits, _ = language_head(base).logits(decoder_of(base)(ids).last_hidden_state)
        theirs = base(ids).logits.to(logits.dtype)
    tolerance = 1e-3 if base.dtype == precision(base.dtype) else 0.02
    if not torch.allclose(logits, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())):
        raise InputError(f"model.path={model.path}: {type(base).__name__} does more to its logits than is known here")
    _check_of_base.get()(model, base)
    return base  # type: ignore[no-any-return]


@contextlib.contextmanager
def every_base_passes(check: Callable[[Model, PreTrainedModel], None]) -> Iterator[None]:
    """Within it, `load_base` hands every base to `check`, which raises where it is not to be used."""
    token = _check_of_base.set(check)
    try:
        yield
    finally:
        _check_of_base.reset(token)


def decoder_of(model: Any) -> Any:
    """The model without its head: token ids to last hidden states, adapters as they are switched now."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return base.base_model


def takes_any_mask(model: Any) -> bool:
    """Whether every layer looks wherever a given mask lets it, at given positions: no window, no bias of its own."""
    decoder = decoder_of(model)
    layers = getattr(decoder.config, "layer_types", None) or ["full_attention"]
    known = type(decoder).__name__ in FULL_ATTENTION
    return known and set(layers) == {"full_attention"} and not getattr(decoder.config, "sliding_window", None)


def language_head(model: Any) -> Head:
    """The head of a causal language model, with or without adapters.

    Raises:
        InputError: the head itself is adapted.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    layer, config = base.get_output_embeddings(), base.config.get_text_config()
    if not isinstance(layer, nn.Linear):
        raise InputError(
            "model.lora.target_modules adapts the language-model head, which must stay frozen: "
            "choose 'all-linear', or names without the head's"
        )
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    return Head(layer.weight, layer.bias, float(scale), getattr(config, "final_logit_softcapping", None))


def adapter_seed(seed: int) -> int:
    """What an arm's adapter is initialised with: PPO and DPO of one seed start from the same numbers."""
    return derive_seed(seed, "adapter") % 2**32  # as wide as transformers takes a seed


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
    """Dequantise a GGUF file into safetensors. bfloat16 holds more than the four bits that the file had.

    transformers refuses to save a model it loaded from GGUF, so a model without weights of its own saves them. The
    tokenizer comes from the file alone: `AutoTokenizer` would read the model's configuration once more first.
    """
    with gc_disabled():  # the reader makes a million objects; looking through them took a third of the time
        read: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, trust_remote_code=False, dtype=torch.float32
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            source.parent, gguf_file=source.name, trust_remote_code=False
        )
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        unfilled: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    unfilled.save_pretrained(folder, state_dict=read.to(torch.bfloat16).state_dict())
    tokenizer.save_pretrained(folder)


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
