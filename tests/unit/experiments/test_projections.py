"""Layers of one input as one product, against the same layers one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from experiments.inputs import projections
from experiments.inputs.lora import lora_config
from experiments.inputs.projections import joint_weight, lay_side_by_side, project
from experiments.model_spec import Lora

NAMES = ["q_proj", "k_proj", "v_proj"]


class Siblings(nn.Module):
    """Three layers of 8 inputs and 6, 4 and 4 outputs."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        for name, width in zip(NAMES, (6, 4, 4), strict=True):
            setattr(self, name, nn.Linear(8, width, bias=bias, dtype=torch.float64))


def config_for(adapted: list[str], rank: int) -> Any:
    config = lora_config(Lora(rank=rank, alpha=6, target_modules="all-linear"))
    config.target_modules = set(adapted)
    return config


def siblings(bias: bool, adapted: list[str]) -> Any:
    """The three side by side, some of them with an adapter that does something."""
    torch.manual_seed(0)
    module = Siblings(bias).requires_grad_(False)
    lay_side_by_side(module)
    model = PeftModel(module, config_for(adapted, rank=2))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, dtype=torch.float64)
    return model


def layers_of(model: Any) -> list[Any]:
    return [getattr(model.get_base_model(), name) for name in NAMES]


def outcome(model: Any, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The outputs and all gradients of a sum over them that treats every output differently."""
    torch.manual_seed(1)
    x = torch.randn(2, 5, 8).to(dtype).requires_grad_()
    y = project(layers_of(model), x)
    model.zero_grad()
    (y * torch.randn(y.shape).to(dtype)).sum().backward()
    assert x.grad is not None
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "x": x.grad, **gradients}


def assert_joint_is_apart(model: Any, monkeypatch: pytest.MonkeyPatch, num_trained: int) -> None:
    together = outcome(model)
    with monkeypatch.context() as patched:
        patched.setattr(projections, "_joint_view", lambda _: None)
        apart = outcome(model)
    assert together.keys() == apart.keys()
    assert len(together) == 2 + num_trained
    for name, value in together.items():
        assert (value - apart[name]).norm() <= 1e-12 * apart[name].norm(), name
        assert value.norm() > 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("adapted", [NAMES, ["k_proj"], ["q_proj", "v_proj"]])
def test_outputs_and_gradients_are_those_of_the_layers(
    bias: bool, adapted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_joint_is_apart(siblings(bias, adapted), monkeypatch, num_trained=2 * len(adapted))


@pytest.mark.parametrize("bias", [False, True])
def test_without_adapters_they_are_the_bases(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = siblings(bias, NAMES)
    with model.disable_adapter():
        assert_joint_is_apart(model, monkeypatch, num_trained=0)
        x = torch.randn(3, 8, dtype=torch.float64)
        bases = [layer.base_layer for layer in layers_of(model)]
        torch.testing.assert_close(project(layers_of(model), x), torch.cat([base(x) for base in bases], dim=-1))


def test_a_frozen_adapter_gets_no_gradient_and_the_input_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = siblings(True, NAMES)
    model.set_adapter("default", inference_mode=True)
    assert_joint_is_apart(model, monkeypatch, num_trained=0)


def test_the_adapter_that_is_active_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = siblings(False, NAMES)
    first = outcome(model)["y"]
    torch.manual_seed(2)
    model.add_adapter("other", config_for(NAMES, rank=3))
    model.set_adapter("other")
    for name, parameter in model.named_parameters():
        if "other" in name:
            parameter.data = torch.randn(parameter.shape, dtype=torch.float64)
    assert_joint_is_apart(model, monkeypatch, num_trained=6)
    model.set_adapter("default")
    assert torch.equal(outcome(model)["y"], first)


def test_adapters_of_a_bfloat16_base_get_float32_gradients() -> None:
    model = siblings(True, NAMES).float()
    expected = outcome(model, torch.float32)
    for layer in layers_of(model):
        layer.base_layer.to(torch.bfloat16)
    lay_side_by_side_again(model)
    found = outcome(model, torch.bfloat16)
    assert len(found) == len(expected) == 8
    for name, value in found.items():
        assert value.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)
        torch.testing.assert_close(value.float(), expected[name], rtol=0.05, atol=0.05 * float(expected[name].std()))


def lay_side_by_side_again(model: Any) -> None:
    bases = nn.Module()
    for name, layer in zip(NAMES, layers_of(model), strict=True):
        setattr(bases, name, layer.base_layer)
    lay_side_by_side(bases)


def test_weights_that_were_moved_apart_or_are_trained_give_the_same() -> None:
    model = siblings(False, NAMES)
    expected = outcome(model)
    bases = [layer.base_layer for layer in layers_of(model)]
    assert joint_weight(bases).data_ptr() == bases[0].weight.data_ptr()
    bases[1].weight = nn.Parameter(bases[1].weight.clone())
    assert joint_weight(bases).data_ptr() != bases[0].weight.data_ptr()
    found = outcome(model)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_frozen_bases_only_are_joined() -> None:
    """A gradient of the weights themselves must not get lost."""
    model = siblings(False, NAMES)
    bases = [layer.base_layer for layer in layers_of(model)]
    bases[2].weight.requires_grad_()
    with model.disable_adapter():
        found = outcome(model)
    assert [name for name in found if "v_proj.base_layer.weight" in name]
