"""What we rely on in TRL's trainers, each with the trap it guards against."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.algorithms.dpo import dpo_loss
from experiments.arms import dpo
from experiments.artifacts import ranking
from experiments.artifacts.ranking import RankedPrompt
from experiments.errors import InputError
from experiments.inputs.models import load_tokenizer, reference
from experiments.sampling.logprobs import total_logps
from experiments.sampling.sampler import Response
from experiments.spec import DPO, Model
from experiments.stages import run_stage


@pytest.fixture
def trainer(arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path) -> Any:
    return dpo.make_trainer(arm_job(dpo_arm), ranking.load(artifacts["ranking_data"]), cache_dir, tmp_path)


def test_the_first_loss_is_ln_2_with_margin_0(
    arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any
) -> None:
    run_stage("arm", arm_job(dpo_arm), artifacts, tmp_path, cache_dir, recorder)
    assert recorder.values("train/loss")[0] == pytest.approx(math.log(2), abs=1e-6)
    assert recorder.values("dpo/reward_margin")[0] == 0
    assert recorder.values("dpo/accuracy")[0] == 0  # strictly greater: equal rewards are no success
    assert recorder.values("dpo/reward_margin")[-1] > 0
    assert [axes.prompts_seen for _, _, axes, _ in recorder.rows] == [8, 16]
    assert sorted(p.name for p in (tmp_path / "adapters").iterdir()) == ["point_1", "point_2"]


def test_token_ids_reach_the_loss_untouched_and_no_end_is_taught_where_a_sample_was_cut(
    arm_job: Any, dpo_arm: DPO, cache_dir: Path, tmp_path: Path, tiny: Model
) -> None:
    eos_id = load_tokenizer(tiny, cache_dir).eos_token_id
    ranked = [
        RankedPrompt(str(i), "p", [1, 2], [[10, 11, 12], [20, eos_id]], [False, True], [0.9, 0.1]) for i in range(8)
    ]
    trainer = dpo.make_trainer(arm_job(dpo_arm), ranked, cache_dir, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    completions = [
        ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert completions[0] == [10, 11, 12]
    assert completions[-1] == [20, eos_id]  # pad = eos here, and the sampled end is still trained on


def test_the_loss_is_our_formula_on_our_log_probs(
    trainer: Any, artifacts: dict[str, Path], tiny: Model, cache_dir: Path
) -> None:
    """After a step the reference must still be the base, and TRL's numbers those of the pure function."""
    trainer.train()
    policy = trainer.model.eval()
    ranked = ranking.load(artifacts["ranking_data"])[:4]
    pairs = [(p, *p.comparisons("best_worst")[0]) for p in ranked]
    examples = [
        {"prompt_ids": p.prompt_ids, "chosen_ids": p.response_ids[w], "rejected_ids": p.response_ids[loser]}
        for p, w, loser in pairs
    ]
    with torch.no_grad():
        theirs = trainer.compute_loss(policy, trainer.data_collator(examples)).item()

    def logps(index: int) -> torch.Tensor:
        responses = [Response(pair[0].response_ids[pair[index]], [], "length") for pair in pairs]
        prompts = [pair[0].prompt_ids for pair in pairs]
        return torch.tensor(total_logps(policy, prompts, responses, temperature=1.0, pad_id=0, rows_per_batch=4))

    chosen, rejected = logps(1), logps(2)
    with reference(policy):
        ref_chosen, ref_rejected = logps(1), logps(2)
    assert not torch.equal(chosen, ref_chosen)
    assert theirs == pytest.approx(dpo_loss(chosen, rejected, ref_chosen, ref_rejected, 0.1).item(), abs=1e-5)


def test_only_the_adapter_trains_in_float32_and_nearly_all_of_it_moves(
    arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, tiny: Model
) -> None:
    model = tiny.model_copy(update={"dtype": "bfloat16"})
    spec = arm_job(dpo_arm, model=model)
    trainer = dpo.make_trainer(spec, ranking.load(artifacts["ranking_data"]), cache_dir, tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    trainable = [name for name, p in after.items() if p.requires_grad]
    assert all("lora_" in name and after[name].dtype == torch.float32 for name in trainable)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed <= set(trainable)
    assert len(changed) > 0.99 * len(trainable)


def test_the_same_seed_gives_the_same_adapter(
    arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        run_stage("arm", arm_job(dpo_arm, seed=seed), artifacts, tmp_path / name, cache_dir, recorder)
    weights = [(tmp_path / name / "adapters/point_2/adapter_model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_ranking_data_without_a_comparison_is_refused(
    arm_job: Any, dpo_arm: DPO, cache_dir: Path, tmp_path: Path
) -> None:
    tied = [RankedPrompt("id", "p", [1], [[2], [3]], [False, False], [0.5, 0.5])]
    with pytest.raises(InputError, match="no comparison"):
        dpo.make_trainer(arm_job(dpo_arm), tied, cache_dir, tmp_path)
