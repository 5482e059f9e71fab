"""What only a GPU can show. Skipped aloud where there is none; the mathematics is tested on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.algorithms.token_logprobs import Head, token_logprobs
from experiments.arms.ppo import PPOTrainer
from experiments.inputs.models import load_base, with_policy
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.model_spec import Model
from experiments.sampling import sampler
from experiments.sampling.decoders import LibraryDecoder
from experiments.sampling.sampler import Response, common_uniforms, sample
from experiments.spec import PPO

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [5, 5], [70, 71, 72, 73]] * 4


@pytest.fixture
def policy(tiny: Model, cache_dir: Path) -> Any:
    model = with_policy(load_base(tiny, cache_dir), tiny.lora, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def responses(policy: Any, eos_ids: tuple[int, ...]) -> list[Response]:
    uniforms = common_uniforms(0, 1, [str(row) for row in range(len(PROMPTS))], 24)
    return sample(policy, PROMPTS, uniforms, temperature=1.0, eos_ids=eos_ids, rows_per_batch=20)


def test_the_captured_step_samples_what_the_library_samples(
    policy: Any, tiny: Model, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eos_ids = Tokens.load(tiny, cache_dir).eos_ids
    captured = responses(policy, eos_ids)
    monkeypatch.setattr(sampler, "make_decoder", LibraryDecoder)
    assert [r.token_ids for r in captured] == [r.token_ids for r in responses(policy, eos_ids)]


def test_rows_leave_a_captured_batch_and_the_rest_goes_on(
    policy: Any, tiny: Model, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frequent = responses(policy, -1)[0].token_ids[5]  # a token that occurs plays the end of sequence
    together = responses(policy, frequent)
    monkeypatch.setattr(sampler, "COMPACT_BELOW", 0.0)
    assert [r.token_ids for r in together] == [r.token_ids for r in responses(policy, frequent)]


def test_log_probs_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(600, 64, generator=generator), torch.randn(9000, 64, generator=generator)
    tokens = torch.randint(0, 9000, (600,), generator=generator)
    gradients = []
    for device in ("cpu", "cuda"):
        x = hidden.to(device).requires_grad_()
        token_logprobs(x, tokens.to(device), Head(weight.to(device)), 1.0).logp_N.sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_one_ppo_update_on_the_device(arm_job: Any, ppo_arm: PPO, artifacts: dict[str, Path], cache_dir: Path) -> None:
    trainer = PPOTrainer(
        arm_job(ppo_arm), ppo_arm, artifacts["ranking_data"], artifacts["reward_model"], cache_dir, Meter()
    )
    rollouts = trainer.roll_out(trainer.prompts_of(1), 1)
    assert rollouts.logp_NT.is_cuda
    assert torch.equal(rollouts.logp_NT, rollouts.ref_logp_NT)
    assert trainer.update(rollouts, 1)["train/gradient_norm"] > 0
