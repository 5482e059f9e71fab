"""Smaller passes: less memory at a time, the same result. In float64, so that only the order of sums differs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaModel

from experiments import passes
from experiments.errors import is_out_of_memory
from experiments.model_spec import Model
from experiments.spec import DPO, PPO, EvaluationJobSpec, RewardModel, RewardModelJobSpec
from experiments.stages import run_stage


@pytest.fixture
def tiny64(tiny: Model) -> Model:
    return tiny.model_copy(update={"dtype": "float64"})


@pytest.fixture
def run(artifacts: dict[str, Path], cache_dir: Path, make_recorder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Does a job's work; returns its adapters and the most tokens that one pass with a gradient had."""
    forward = LlamaModel.forward
    sizes: list[int] = []

    def spy(self: Any, *args: Any, **inputs: Any) -> Any:
        if torch.is_grad_enabled():
            sizes.append(inputs["input_ids"].numel())
        return forward(self, *args, **inputs)

    monkeypatch.setattr(LlamaModel, "forward", spy)

    def make(kind: str, spec: Any, folder: Path, divisor: int) -> tuple[dict[str, torch.Tensor], int]:
        folder.mkdir()
        sizes.clear()
        with passes.divided(divisor):
            run_stage(kind, spec, artifacts, folder, cache_dir, make_recorder())
        weights = {
            f"{path.relative_to(folder)}/{name}": tensor
            for path in sorted(folder.rglob("*.safetensors"))
            for name, tensor in load_file(path).items()
        }
        return weights, max(sizes, default=0)

    return make


def check_same(run: Any, kind: str, spec: Any, tmp_path: Path) -> None:
    whole, most = run(kind, spec, tmp_path / "whole", 1)
    for divisor in (4, 10**6):
        cut, fewer = run(kind, spec, tmp_path / f"cut{divisor}", divisor)
        assert fewer <= most / 3
        assert cut.keys() == whole.keys()
        assert whole
        for name, tensor in whole.items():
            torch.testing.assert_close(cut[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


def test_sizes() -> None:
    assert [passes.smaller(size) for size in (1, 7, 8)] == [1, 7, 8]
    with passes.divided(4):
        assert [passes.smaller(size) for size in (1, 7, 8, 9)] == [1, 2, 2, 3]
    assert passes.smaller(8) == 8


def test_ppo(run: Any, arm_job: Any, ppo_arm: PPO, tiny64: Model, tmp_path: Path) -> None:
    arm = ppo_arm.model_copy(update={"tokens_per_microbatch": 10**3})
    check_same(run, "arm", arm_job(arm, model=tiny64), tmp_path)


@pytest.mark.parametrize("loss", ["sigmoid", "aot"])
def test_dpo_and_a_loss_that_looks_at_all_pairs_of_a_step(
    run: Any, arm_job: Any, dpo_arm: DPO, tiny64: Model, tmp_path: Path, loss: str
) -> None:
    arm = dpo_arm.model_copy(update={"losses": (loss,), "pairs_per_microbatch": 8})
    check_same(run, "arm", arm_job(arm, model=tiny64), tmp_path)


def test_reward_model(run: Any, tiny64: Model, tmp_path: Path) -> None:
    settings = RewardModel(learning_rate=1e-2, num_epochs=2, comparisons_per_step=24, held_out_fraction=0.25)
    spec = RewardModelJobSpec(task="sentiment", model=tiny64, reward_model=settings, comparisons="all", seed=0)
    check_same(run, "reward_model", spec, tmp_path)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", [2, 6]), ("bfloat16", [2, 2])])
def test_the_evaluation_samples_in_smaller_batches_only_where_that_cannot_change_a_sample(
    artifacts: dict[str, Path], cache_dir: Path, evaluation_job: EvaluationJobSpec, tiny: Model,
    monkeypatch: pytest.MonkeyPatch, recorder: Any, dtype: str, expected: list[int],
) -> None:  # fmt: skip
    from experiments.evaluation import evaluate
    from experiments.inputs import models

    monkeypatch.setattr(models, "arithmetic", lambda model: getattr(torch, model.dtype))
    spec = evaluation_job.model_copy(update={"model": tiny.model_copy(update={"dtype": dtype})})
    evaluator = evaluate.Evaluator(spec, artifacts["measure"], artifacts["reward_model"], cache_dir)
    found = []
    for divisor in (1, 4):
        with passes.divided(divisor):
            found.append(evaluator.evaluate(1, recorder, f"divisor {divisor}"))
    steps = [sum(stage == f"divisor {divisor}" for stage, *_ in recorder.steps) for divisor in (1, 4)]
    batches = [number - 1 for number in steps]  # one says what begins
    assert batches == expected
    assert [row["response"] for row in found[0]] == [row["response"] for row in found[1]]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("CUDA error: out of memory"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_what_the_allocator_really_says_counts() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
