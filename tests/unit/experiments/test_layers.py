"""Our layers against the library's, forward and backward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.autograd import gradcheck
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from experiments.errors import InputError
from experiments.inputs.layers import _RMSNorm, _SwiGLU, fuse_layers
from experiments.inputs.lora import LoraLinear, _Lora, lora_config
from experiments.inputs.models import language_head
from experiments.inputs.projections import joint_weight
from experiments.model_spec import Lora

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
IDS = torch.arange(24).view(2, 12)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def llama() -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def test_gradients_are_those_of_finite_differences() -> None:
    x = random(3, 4, 8).requires_grad_()
    assert gradcheck(lambda x: _RMSNorm.apply(x, random(8, seed=2), 1e-5), (x,))
    assert gradcheck(_SwiGLU.apply, (x,))
    downs = [random(2, 8, seed=3).requires_grad_(), random(1, 8, seed=4).requires_grad_()]
    ups = [random(5, 2, seed=5).requires_grad_(), random(3, 1, seed=6).requires_grad_()]
    assert gradcheck(
        lambda x, *factors: _Lora.apply(x, random(8, 8, seed=7), random(8, seed=8), (0.7, 2.0), *factors),
        (x, *downs, *ups),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_a_model_with_our_layers_computes_what_it_did(llama: Any, dtype: torch.dtype, tolerance: float) -> None:
    llama.lm_head.weight.data *= 20  # logits of a size that a mix-up would change by more than the tolerance
    model = llama.to(dtype)
    ours = copy.deepcopy(model)
    fuse_layers(ours)
    expected = model(IDS).logits
    assert expected.std() > 10 * tolerance
    torch.testing.assert_close(ours(IDS).logits, expected, rtol=tolerance, atol=tolerance)


def test_a_float64_model_is_float64_throughout(llama: Any) -> None:
    """The library's norm rounds to float32; ours must not, or nothing could be compared to twelve digits."""
    model = llama.double()
    fuse_layers(model)
    nudged = copy.deepcopy(model)
    nudged.model.embed_tokens.weight.data *= 1 + 1e-12
    gap = (model(IDS).logits - nudged(IDS).logits).abs().max()
    assert 0 < gap < 1e-11


def test_weights_side_by_side_are_one_without_a_copy(llama: Any) -> None:
    attention = llama.model.layers[0].self_attn
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    before = torch.cat([layer.weight for layer in projections])
    assert torch.equal(joint_weight(projections), before.T)  # a copy still
    fuse_layers(llama)
    joint = joint_weight(projections)
    assert joint.data_ptr() == attention.q_proj.weight.data_ptr()
    assert torch.equal(joint, before.T)
    assert torch.equal(torch.cat([layer.weight for layer in projections]), before)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    torch.manual_seed(0)
    gemma = GemmaForCausalLM(GemmaConfig(**SIZES, head_dim=8)).eval()
    before = gemma(IDS).logits
    fuse_layers(gemma)
    assert torch.equal(gemma(IDS).logits, before)


class TestLora:
    def pair(self, llama: Any, dtype: torch.dtype) -> tuple[PeftModel, PeftModel]:
        """The same adapter in our layers and in PEFT's."""
        models = []
        for own in (True, False):
            config = lora_config(Lora(rank=4, alpha=8, target_modules="all-linear"))
            if not own:
                config._custom_modules = None
            model = get_peft_model(copy.deepcopy(llama).to(dtype), config)
            generator = torch.Generator().manual_seed(7)
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            models.append(model)
        assert any(isinstance(module, LoraLinear) for module in models[0].modules())
        assert not any(isinstance(module, LoraLinear) for module in models[1].modules())
        return models[0], models[1]

    def test_output_and_gradients_are_those_of_pefts_layers(self, llama: Any) -> None:
        found = []
        for model in self.pair(llama, torch.float32):
            model(IDS).logits.square().mean().backward()
            found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        assert len(found[0]) == 2 * 7 * 2
        for name, gradient in found[0].items():
            torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-7)

    def test_adapters_stay_float32_on_a_bfloat16_base(self, llama: Any) -> None:
        ours, theirs = self.pair(llama, torch.bfloat16)
        assert all(p.dtype == torch.float32 for p in ours.parameters() if p.requires_grad)
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=0.1, atol=0.1)

    def test_with_the_adapter_off_it_is_the_base_to_the_last_bit(self, llama: Any) -> None:
        ours, _ = self.pair(llama, torch.float32)
        with ours.disable_adapter():
            assert torch.equal(ours(IDS).logits, llama(IDS).logits)

    def test_an_adapted_head_is_refused(self, llama: Any) -> None:
        config = lora_config(Lora(rank=4, alpha=8, target_modules="lm_head"))
        with pytest.raises(InputError, match=r"model\.lora\.target_modules adapts the language-model head"):
            language_head(get_peft_model(llama, config))
