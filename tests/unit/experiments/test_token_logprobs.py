from __future__ import annotations

import pytest
import torch

from experiments.algorithms import token_logprobs as module
from experiments.algorithms.token_logprobs import Head, token_logprobs


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the 10 rows nor the 23 tokens below fit into one tile, nor into a whole number of them."""
    monkeypatch.setattr(module, "ROWS_PER_TILE", 3)
    monkeypatch.setattr(module, "TOKENS_PER_TILE", 7)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(10, 5, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight, bias = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((23, 5), (23,)))
    tokens = torch.randint(0, 23, (10,), generator=generator)
    return hidden, tokens, weight.to(dtype), bias.to(dtype)


def naive(hidden: torch.Tensor, head: Head, temperature: float) -> torch.Tensor:
    """The whole [N, V] log-distribution."""
    logits = hidden @ head.weight_VH.T + (0 if head.bias_V is None else head.bias_V)
    logits = logits * head.scale
    logits = logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits / temperature, dim=-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("settings", [{}, {"scale": 1.3}, {"softcap": 2.0}, {"scale": 0.5, "softcap": 3.0}])
@pytest.mark.parametrize("with_bias", [False, True])
def test_log_probs_entropy_and_gradient_are_those_of_a_full_softmax(
    temperature: float, settings: dict[str, float], with_bias: bool
) -> None:
    hidden, tokens, weight, bias = inputs()
    head = Head(weight, bias if with_bias else None, **settings)
    found = token_logprobs(hidden, tokens, head, temperature)
    everything = naive(hidden, head, temperature)
    expected = everything.gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(found.logp_N, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.entropy_N, -(everything.exp() * everything).sum(1), rtol=1e-12, atol=1e-12)
    upstream = torch.linspace(-1, 2, 10, dtype=torch.float64)
    gradients = [torch.autograd.grad(logp, hidden, upstream)[0] for logp in (found.logp_N, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_entropy_of_a_uniform_distribution_is_log_v() -> None:
    hidden, tokens, weight, _ = inputs()
    found = token_logprobs(hidden * 0, tokens, Head(weight), 1.0)
    torch.testing.assert_close(found.entropy_N, torch.full((10,), 23.0, dtype=torch.float64).log())
    assert not found.entropy_N.requires_grad


def test_logits_far_apart_stay_finite() -> None:
    hidden, tokens, weight, _ = inputs(torch.float32)
    found = token_logprobs(hidden * 1e4, tokens, Head(weight), 1.0)
    assert found.logp_N.isfinite().all()
    assert found.entropy_N.isfinite().all()
    (gradient,) = torch.autograd.grad(found.logp_N.sum(), hidden)
    assert gradient.isfinite().all()


def test_a_bfloat16_head_is_summed_in_float32() -> None:
    hidden, tokens, weight, _ = inputs(torch.bfloat16)
    found = token_logprobs(hidden, tokens, Head(weight), 1.0)
    assert found.logp_N.dtype == torch.float32
    exact = naive(hidden.double(), Head(weight.double()), 1.0).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(found.logp_N.double(), exact, rtol=0.02, atol=0.05)


def test_on_a_confident_bfloat16_head_no_log_prob_is_above_0_and_the_sampler_agrees() -> None:
    """Own logit and normaliser must come from the same rounded logits: apart they give log-probs of +0.1."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(23, 64, generator=generator).bfloat16()
    tokens = torch.randint(0, 23, (200,), generator=generator)
    hidden = (weight[tokens] * 0.35 + 0.05 * torch.randn(200, 64, generator=generator)).bfloat16()
    head = Head(weight)
    logp = token_logprobs(hidden, tokens, head, 1.0).logp_N
    assert (logp <= 0).all()
    torch.testing.assert_close(
        logp, torch.log_softmax(head.logits(hidden)[0], -1).gather(1, tokens[:, None])[:, 0], atol=1e-5, rtol=1e-5
    )
