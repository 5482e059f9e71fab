"""What a model must be able to do before a sweep starts: each fault beside a sound twin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MambaConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from experiments import model_check, positions
from experiments.errors import InputError
from experiments.inputs.models import prepare_model
from experiments.judge_spec import RewardModelJudge
from experiments.model_spec import Model
from experiments.tasks.sentiment import TASK

TOKENIZER = "tokenizer*"
SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


@pytest.fixture
def save(tiny: Model, cache_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a model with the tiny model's tokenizer, whose 257 tokens fit into 300 rows."""

    def write(model: Any) -> Path:
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        for file in Path(prepare_model(tiny, cache_dir)).glob(TOKENIZER):
            shutil.copy(file, folder)
        return folder

    return write


@pytest.fixture
def untied(save: Callable[..., Path]) -> Path:
    """A sound Llama with a head of its own and a vocabulary wider than its tokenizer."""
    torch.manual_seed(0)
    return save(LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=False, max_position_embeddings=64)))


def model_at(folder: Path, **changes: Any) -> Model:
    lora = {"rank": 2, "alpha": 2, "target_modules": "all-linear"}
    return Model.model_validate({"path": str(folder), "revision": None, "dtype": "float32", "lora": lora} | changes)


def check_base(folder: Path, cache_dir: Path, **changes: Any) -> None:
    model_check.check_base(model_at(folder, **changes), f"model.path={folder}", cache_dir)


def change_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# ----------------------------------------------------------------------------------------------------------- the base
def test_tied_and_untied_bases_pass_in_every_precision(untied: Path, tiny: Model, cache_dir: Path) -> None:
    for dtype in ("float32", "bfloat16", "float64"):
        check_base(untied, cache_dir, dtype=dtype)
    check_base(Path(prepare_model(tiny, cache_dir)), cache_dir)


@pytest.mark.parametrize("missing", ["lm_head.weight", "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"])
def test_a_base_that_lacks_a_weight_is_refused_by_its_name(untied: Path, cache_dir: Path, missing: str) -> None:
    change_weights(untied, lambda weights: weights.pop(missing))
    with pytest.raises(InputError, match=rf"model\.path=.*its files lack {missing}, which would be drawn at random"):
        check_base(untied, cache_dir)


@pytest.mark.parametrize(
    "ignored", ["lm_head.bias", "model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"]
)
def test_a_weight_that_the_model_would_ignore_is_refused(untied: Path, cache_dir: Path, ignored: str) -> None:
    change_weights(untied, lambda weights: weights.update({ignored: torch.ones(32)}))
    with pytest.raises(InputError, match=rf"hold {ignored}, for which LlamaForCausalLM has no place"):
        check_base(untied, cache_dir)


def test_tables_of_old_checkpoints_and_a_classifiers_head_are_no_fault(untied: Path, cache_dir: Path) -> None:
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "score.weight": torch.ones(2, 32)}
    change_weights(untied, lambda weights: weights.update(more))
    check_base(untied, cache_dir)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.input_layernorm.weight"])
def test_weights_that_are_no_numbers_are_refused(untied: Path, cache_dir: Path, name: str, value: float) -> None:
    change_weights(untied, lambda weights: weights[name].view(-1)[3].fill_(value))
    with pytest.raises(InputError, match=rf"NaN or infinite numbers in {name}"):
        check_base(untied, cache_dir)


def test_weights_of_another_shape_are_refused(untied: Path, cache_dir: Path) -> None:
    change_config(untied, vocab_size=310)
    with pytest.raises(InputError, match=r"has the shape \[300, 32\] in its files and \[310, 32\] by its config"):
        check_base(untied, cache_dir)


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(untied: Path, cache_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(untied)
    tokenizer.add_tokens([f"<{number}>" for number in range(43)])  # 300 tokens fill the 300 rows
    tokenizer.save_pretrained(untied)
    check_base(untied, cache_dir)
    tokenizer.add_tokens(["<one too many>"])
    tokenizer.save_pretrained(untied)
    with pytest.raises(InputError, match="ids go up to 300, but its embedding has only 300 rows"):
        check_base(untied, cache_dir)


def test_a_base_without_an_end_of_sequence_token_is_refused(untied: Path, cache_dir: Path) -> None:
    """Neither by its tokenizer nor by its configurations: any of them would do."""
    for name, nothing in (("tokenizer_config.json", {"eos_token": None}), ("config.json", {"eos_token_id": None})):
        (untied / name).write_text(json.dumps(json.loads((untied / name).read_text()) | nothing))
    (untied / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"^model\.path=.*name an end-of-sequence token"):
        check_base(untied, cache_dir)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoModelForCausalLM.from_config(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1)),
         "Mamba keeps a recurrent state"),
        (lambda: T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=1)),
         "T5 is an encoder-decoder"),
    ],
)  # fmt: skip
def test_models_that_the_sampler_cannot_use_are_refused(
    save: Callable[..., Path], cache_dir: Path, make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_base(save(make()), cache_dir)


def test_a_model_that_sees_later_tokens_is_refused(save: Callable[..., Path], cache_dir: Path) -> None:
    """As BERT in the place of a causal model; its language head is not known either."""
    folder = save(BertForMaskedLM(BertConfig(**SMALL)))
    with pytest.raises(InputError, match=r"^model\.path=.*BertLMHeadModel"):
        check_base(folder, cache_dir)


@pytest.mark.parametrize("model_type", ["made_up", "llama_of_mine"])
def test_custom_code_is_neither_run_nor_offered(
    untied: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a person was asked")

    monkeypatch.setattr("builtins.input", asked)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n"
    (untied / "own.py").write_text(code)
    auto_map = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    change_config(untied, auto_map=auto_map)
    check_base(untied, cache_dir)  # as Falcon's files: transformers has a class of its own for this type
    change_config(untied, model_type=model_type)
    with pytest.raises(InputError, match="needs code of its own"):
        check_base(untied, cache_dir)
    assert not (tmp_path / "ran").exists()


def test_adapted_layers_that_do_not_exist_are_refused(untied: Path, cache_dir: Path) -> None:
    lora = {"rank": 2, "alpha": 2, "target_modules": "c_attn"}
    with pytest.raises(InputError, match=r"model\.lora\.target_modules=c_attn"):
        check_base(untied, cache_dir, lora=lora)


def test_what_is_drawn_at_random_in_each_process_is_found_though_no_key_is_missing(
    untied: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = LlamaModel.__init__

    def with_random_table(self: Any, config: Any) -> None:
        made(self, config)
        self.table = None

    original = LlamaModel.forward

    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        output = original(self, *arguments, **options)
        if self.table is None:
            self.table = torch.randn(32, generator=torch.Generator().manual_seed(torch.initial_seed()))
        output.last_hidden_state = output.last_hidden_state + self.table.to(output.last_hidden_state)
        return output

    monkeypatch.setattr(LlamaModel, "__init__", with_random_table)
    monkeypatch.setattr(LlamaModel, "forward", forward)
    with pytest.raises(InputError, match="other numbers each time it is loaded"):
        check_base(untied, cache_dir)


# ---------------------------------------------------------------------------------------------------------- positions
TEXTS = ["a" * 40, "b"]  # each byte is a token


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, max_position_embeddings=64),
        GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64),
    ],
    ids=["rotary", "learned"],
)
def test_prompts_and_responses_must_fit_into_the_positions(
    save: Callable[..., Path], cache_dir: Path, config: Any
) -> None:
    model = model_at(save(AutoModelForCausalLM.from_config(config)))
    model_check.check_positions(model, None, TEXTS, 24, cache_dir)
    with pytest.raises(InputError, match=r"has 64 positions, but the longest prompt has 40 tokens and .*=25 come"):
        model_check.check_positions(model, None, TEXTS, 25, cache_dir)


def test_the_models_made_here_have_the_positions_that_are_counted_on(tiny: Model, cache_dir: Path) -> None:
    config = json.loads((Path(prepare_model(tiny, cache_dir)) / "config.json").read_text())
    assert config["max_position_embeddings"] == positions.POSITIONS["tiny:llama"]
    with pytest.raises(InputError, match="has 512 positions"):
        model_check.check_positions(tiny, None, ["a" * 500], 13, cache_dir)


# ------------------------------------------------------------------------------------------------------ the embedder
def bert(**options: Any) -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SMALL, max_position_embeddings=40), **options)


def test_an_encoder_with_without_and_under_a_pooler_passes(save: Callable[..., Path]) -> None:
    for model in (bert(), bert(add_pooling_layer=False), BertForMaskedLM(BertConfig(**SMALL))):
        folder = save(model)
        model_check.check_embedder(str(folder))
        shutil.rmtree(folder)


@pytest.mark.parametrize("missing", ["embeddings.LayerNorm.bias", "encoder.layer.1.output.dense.weight"])
def test_an_encoder_that_lacks_a_weight_is_refused(save: Callable[..., Path], missing: str) -> None:
    folder = save(bert())
    change_weights(folder, lambda weights: weights.pop(missing))
    with pytest.raises(InputError, match=rf"evaluation\.embedder=.*lack {missing}"):
        model_check.check_embedder(str(folder))


def test_an_encoder_with_a_layer_too_many_is_refused(save: Callable[..., Path]) -> None:
    folder = save(BertForMaskedLM(BertConfig(**SMALL)))
    change_config(folder, num_hidden_layers=1)
    with pytest.raises(InputError, match=r"hold bert\.encoder\.layer\.1.*has no place"):
        model_check.check_embedder(str(folder))


# ----------------------------------------------------------------------------------------------------------- the judge
@pytest.fixture
def classifier(save: Callable[..., Path]) -> Path:
    torch.manual_seed(0)
    return save(AutoModelForSequenceClassification.from_config(LlamaConfig(**SMALL, num_labels=1, pad_token_id=256)))


def judge_at(folder: Path) -> RewardModelJudge:
    return RewardModelJudge(path=str(folder), chat_template=False, max_samples_per_prompt=1, tie_band=0.0)


def test_a_judge_whose_head_is_missing_is_refused_and_a_whole_one_passes(classifier: Path, cache_dir: Path) -> None:
    model_check.check_judge(judge_at(classifier), TASK, cache_dir)
    change_weights(classifier, lambda weights: weights.pop("score.weight"))
    with pytest.raises(InputError, match=r"judge\.reward_model\.path=.*lack score\.weight"):
        model_check.check_judge(judge_at(classifier), TASK, cache_dir)


def test_our_own_reward_model_passes_and_a_torn_head_does_not(
    artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(artifacts["reward_model"], tmp_path / "rm"))
    spec = {"model": {"path": "tiny:llama", "revision": None, "dtype": "float32"}}
    spec["model"]["lora"] = {"rank": 4, "alpha": 8, "target_modules": "all-linear"}  # type: ignore[assignment]
    rest = {"task": "sentiment", "comparisons": "all", "seed": 0}
    training = {"learning_rate": 1e-3, "num_epochs": 2, "comparisons_per_step": 12, "held_out_fraction": 0.25}
    (copy / "spec.json").write_text(json.dumps({"spec": spec | rest | {"reward_model": training}}))
    model_check.check_judge(judge_at(copy), TASK, cache_dir)
    head = load_file(copy / "head.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in head.items()}, copy / "head.safetensors")
    with pytest.raises(InputError, match=r"judge\.reward_model\.path=.*NaN or infinite numbers in weight"):
        model_check.check_judge(judge_at(copy), TASK, cache_dir)
