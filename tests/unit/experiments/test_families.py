"""Every family of causal models: sampler, pass and the library's own logits agree, in training mode too; all train."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from experiments.errors import InputError
from experiments.inputs.models import load_base, prepare_model, takes_any_mask, with_policy
from experiments.model_spec import Model
from experiments.sampling.batch import make_batch
from experiments.sampling.logprobs import response_logprobs, total_logprobs
from experiments.sampling.sampler import common_uniforms, sample
from experiments.spec import DPO, PPO, RankingJobSpec, RewardModel, RewardModelJobSpec
from experiments.stages import run_stage
from experiments.tasks.sentiment import SentimentData

PROMPTS = [[65, 66, 67] * length for length in (1, 3, 7)] + [[80], [65, 66, 67]]  # of four lengths, one of them twice
TRAINED = ["bloom", "cohere", "falcon_alibi", "falcon_rotary", "gemma2", "granite", "olmo2"]


COMMON: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 256,
    "pad_token_id": 256,
}  # fmt: skip
WINDOW = {"sliding_window": 5}  # shorter than prompts
# family -> (transformers' name of it, what is its own); every dropout that a configuration has is large
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"attention_dropout": 0.5, "tie_word_embeddings": False}),
    "biogpt": ("biogpt", {"layerdrop": 0.9}),
    "bloom": ("bloom", {"hidden_dropout": 0.5, "attention_dropout": 0.5}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "cohere2": ("cohere2", {"logit_scale": 0.25, "layer_types": ["sliding_attention", "full_attention"], **WINDOW}),
    "falcon_alibi": ("falcon", {"alibi": True, "hidden_dropout": 0.5, "attention_dropout": 0.5}),
    "falcon_rotary": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "gemma2": (
        "gemma2",
        {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "head_dim": 8, "query_pre_attn_scalar": 8}
        | WINDOW,
    ),
    "gemma3_text": ("gemma3_text", {"head_dim": 8, "query_pre_attn_scalar": 8, **WINDOW}),
    "gpt2": ("gpt2", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
    "gpt_bigcode": ("gpt_bigcode", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
    "gpt_neox": ("gpt_neox", {"hidden_dropout": 0.5}),
    "granite": (
        "granite",
        {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_dropout": 0.5},
    ),
    "mistral": ("mistral", WINDOW),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}),
    "olmo2": ("olmo2", {}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16, "dropout": 0.5, "layerdrop": 0.5}),
    "phi": ("phi", {"resid_pdrop": 0.5}),
    "persimmon": ("persimmon", {"hidden_dropout": 0.5, "attention_dropout": 0.5}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "seed_oss": ("seed_oss", {"residual_dropout": 0.5, "head_dim": 8}),
    "stablelm": ("stablelm", {"hidden_dropout": 0.5}),
    "xglm": ("xglm", {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, "activation_dropout": 0.5}),
}


def make(family: str, tokenizer_folder: Path, folder: Path) -> Path:
    """A checkpoint whose logits differ between tokens, so that a wrong number shows."""
    name, own = FAMILIES[family]
    common = {key: value for key, value in COMMON.items() if (name, key) != ("xglm", "max_position_embeddings")}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**common, **own}), dtype=torch.float32)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=random)
            parameter.copy_(0.3 * noise) if parameter.ndim > 1 else parameter.add_(0.1 * noise)
    model.save_pretrained(folder)
    for file in tokenizer_folder.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def model_of(tiny: Model, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model of a family, made once."""
    folder, tokenizer_folder = tmp_path_factory.mktemp("families"), Path(prepare_model(tiny, cache_dir))

    @cache
    def model(family: str) -> Model:
        return tiny.model_copy(update={"path": str(make(family, tokenizer_folder, folder / family))})

    return model


def plain_logps(model: Any, responses: list[list[int]]) -> list[float]:
    """Of each whole response, from the library's logits of one unpadded row at a time."""
    sums = []
    for prompt, response in zip(PROMPTS, responses, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
        logps = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
        sums.append(float(logps.gather(1, torch.tensor(response)[:, None]).sum()))
    return sums


@pytest.mark.parametrize("name", FAMILIES)
def test_sampler_pass_and_training_mode_give_the_librarys_logprobs(name: str, model_of: Any, cache_dir: Path) -> None:
    base = load_base(model_of(name), cache_dir)
    uniforms = common_uniforms(0, 0, [str(row) for row in range(len(PROMPTS))], 10)
    sampled = sample(base, PROMPTS, uniforms, temperature=1.0, eos_ids=[256], rows_per_batch=len(PROMPTS))
    responses = [response.token_ids for response in sampled]
    plain = AutoModelForCausalLM.from_pretrained(model_of(name).path).eval()  # fresh, whatever `load_base` changed
    right = pytest.approx(plain_logps(plain, responses), abs=1e-3)
    assert [sum(response.logps) for response in sampled] == right
    assert total_logprobs(base, PROMPTS, responses, temperature=1.0, pad_id=0) == right
    base.train()
    assert total_logprobs(base, PROMPTS, responses, temperature=1.0, pad_id=0) == right


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gradient_reaches_every_adapter(name: str, model_of: Any, cache_dir: Path) -> None:
    policy = with_policy(load_base(model_of(name), cache_dir), model_of(name).lora, seed=0).train()
    batch = make_batch(PROMPTS[1:], PROMPTS[:-1], 0, policy.device, packed=takes_any_mask(policy))
    response_logprobs(policy, batch, 1.0).logp_BT.sum().backward()
    gradients = [parameter.grad for key, parameter in policy.named_parameters() if ".lora_B." in key]
    assert len(gradients) >= 8
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_no_dropout_of_a_kind_is_left(model_of: Any, cache_dir: Path) -> None:
    base = load_base(model_of("opt"), cache_dir)
    config, layer = base.config, base.model.decoder.layers[0]
    assert (config.dropout, config.layerdrop, layer.dropout) == (0, 0, 0)
    assert load_base(model_of("persimmon"), cache_dir).model.layers[0].self_attn.attention_dropout.p == 0
    assert load_base(model_of("gpt2"), cache_dir).transformer.drop.p == 0


def test_in_bfloat16_a_position_bias_is_added_once(model_of: Any, cache_dir: Path) -> None:
    """Falcon's plain attention adds ALiBi twice: more than 0.1 nats a token here."""
    spec, texts = model_of("falcon_alibi"), [[70, 71, 72, 73, 74, 75, 76, 77]] * len(PROMPTS)
    base = load_base(spec.model_copy(update={"dtype": "bfloat16"}), cache_dir)
    right = total_logprobs(load_base(spec, cache_dir), PROMPTS, texts, temperature=1.0, pad_id=0)
    assert total_logprobs(base, PROMPTS, texts, temperature=1.0, pad_id=0) == pytest.approx(right, abs=0.5)


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_sampled_scored_and_trained(
    name: str, model_of: Any, data: SentimentData, arm_job: Any, ppo_arm: PPO, dpo_arm: DPO,
    artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, make_recorder: Any,
) -> None:  # fmt: skip
    """Each stage as the runner starts it, with the check that the base is the one that was sampled."""
    model, folders, told = model_of(name), {"measure": artifacts["measure"]}, {}
    reward = RewardModel(learning_rate=1e-3, num_epochs=1, comparisons_per_step=24, held_out_fraction=0.25)
    jobs = {
        "ranking_data": ("ranking_data", RankingJobSpec(model=model, data=data, num_ranking_prompts=8)),
        "reward_model": (
            "reward_model",
            RewardModelJobSpec(task="sentiment", model=model, reward_model=reward, comparisons="all", seed=0),
        ),
        "ppo": ("arm", arm_job(ppo_arm, model=model, num_prompts=8, num_points=2)),
        "dpo": ("arm", arm_job(dpo_arm, model=model, num_prompts=8, num_points=2)),
    }
    for job, (kind, spec) in jobs.items():
        folder, told[job] = tmp_path / job, make_recorder()
        folder.mkdir()
        run_stage(kind, spec, folders, folder, cache_dir, told[job])
        folders[job] = folder
    assert told["dpo"].values("train/loss") == [pytest.approx(0.693147, abs=1e-4)]  # ln 2: policy = reference
    assert told["reward_model"].values("reward_model/loss")[0] == pytest.approx(0.693147, abs=1e-6)
    assert told["ppo"].values("ppo/kl")[0] == pytest.approx(0, abs=1e-4)
    for arm in ("ppo", "dpo"):
        assert all((folders[arm] / "adapters" / "point_1").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma2", "falcon_alibi"])
def test_it_finishes_the_smoke_sweep(name: str, model_of: Any, tmp_path: Path) -> None:
    settings = {"name": "c", "model.path": model_of(name).path, "model.dtype": "float32", "tracker": "none"}
    folders = {"runs_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    command = [
        sys.executable,
        "-m",
        "runner",
        "+sweep=smoke",
        *(f"{k}={v}" for k, v in {**settings, **folders}.items()),
    ]
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "c" / "report" / "report.json").is_file()


def test_a_head_that_is_adapted_is_refused_in_words(model_of: Any, cache_dir: Path) -> None:
    lora = model_of("llama").lora.model_copy(update={"target_modules": ["lm_head"]})
    policy = with_policy(load_base(model_of("llama"), cache_dir), lora, seed=0)
    with pytest.raises(InputError, match="must stay frozen"):
        total_logprobs(policy, [[65]], [[66]], temperature=1.0, pad_id=0)
