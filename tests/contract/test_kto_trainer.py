"""What we rely on in TRL's KTO trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from experiments.algorithms.kto import kto_loss
from experiments.arms import dpo, kto, resume
from experiments.artifacts import ranking
from experiments.artifacts.ranking import RankedPrompt
from experiments.catalogue import KTO
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import total_logprobs
from experiments.spec import DPO, ArmJobSpec
from experiments.stages import run_stage


@pytest.fixture
def kto_arm() -> KTO:
    return KTO(
        algorithm="kto", name="kto", beta=0.1, desirable_weight=1.0, undesirable_weight=1.0, learning_rate=1e-2,
        pairs_per_step=8, pairs_per_microbatch=4, max_gradient_norm=1.0, max_skipped_steps=3,
    )  # fmt: skip


@pytest.fixture
def ranked(artifacts: dict[str, Path]) -> list[RankedPrompt]:
    return ranking.load(artifacts["ranking_data"])


@pytest.fixture
def make_trainer(arm_job: Any, ranked: list[RankedPrompt], cache_dir: Path, tmp_path: Path) -> Any:
    def make(arm: Any, steps_done: int = 0, **changes: Any) -> Any:
        return kto.make_trainer(arm_job(arm, **changes), ranked, cache_dir, tmp_path, steps_done)

    return make


def ratios(trainer: Any, rows: list[Any], completions: str, reference: str) -> torch.Tensor:
    ids = [row["prompt_ids"] for row in rows], [row[completions] for row in rows]
    now = total_logprobs(trainer.model, *ids, temperature=1.0, pad_id=PAD_ID)
    return torch.tensor(now) - torch.tensor([row[reference] for row in rows])


def test_the_loss_is_that_of_the_paper_on_every_micro_batch(make_trainer: Any, kto_arm: KTO, tiny: Any) -> None:
    arm = kto_arm.model_copy(update={"desirable_weight": 1.5})
    trainer = make_trainer(arm, model=tiny.model_copy(update={"dtype": "float64"}), num_prompts=16)
    trainer.train()  # so that the policy is no longer its reference
    rows = [trainer.train_dataset[index] for index in range(8)]
    batch = trainer.data_collator(rows)
    ratio = ratios(trainer, rows, "completion_ids", "ref_logps")
    mismatched = ratios(trainer, rows, "KL_completion_ids", "ref_KL_logps")
    assert abs(ratio).max() > 1e-3
    expected = kto_loss(ratio[:4], ratio[4:], mismatched, arm.beta, arm.desirable_weight)
    assert float(trainer.compute_loss(trainer.model, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_no_prompt_of_a_micro_batch_meets_its_own_response_in_the_kl_term(make_trainer: Any, kto_arm: KTO) -> None:
    rows = list(make_trainer(kto_arm, num_prompts=32).train_dataset)
    for first in range(0, len(rows), 8):
        batch = rows[first : first + 8]
        assert [row["label"] for row in batch] == [True] * 4 + [False] * 4
        assert [row["KL_completion_ids"] for row in batch] == [batch[place - 1]["completion_ids"] for place in range(8)]
        places = {tuple(row["prompt_ids"]): place for place, row in enumerate(batch)}
        for place, row in enumerate(batch):
            assert places[tuple(row["prompt_ids"])] != places[tuple(batch[place - 1]["prompt_ids"])]
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        KTO.model_validate(kto_arm.model_dump() | {"pairs_per_microbatch": 1, "pairs_per_step": 8})


def test_prompts_come_in_the_order_of_dpo_and_a_resume_keeps_the_pairing(
    make_trainer: Any, kto_arm: KTO, dpo_arm: DPO, arm_job: Any, ranked: Any, cache_dir: Path, tmp_path: Path
) -> None:
    ours = list(make_trainer(kto_arm, num_prompts=32).train_dataset)
    theirs = dpo.make_trainer(arm_job(dpo_arm, num_prompts=32), ranked, cache_dir, tmp_path).train_dataset
    desirable = [(row["prompt_ids"], row["completion_ids"]) for row in ours if row["label"]]
    assert desirable == [(row["prompt_ids"], row["chosen_ids"]) for row in theirs]
    assert list(make_trainer(kto_arm, steps_done=2, num_prompts=32).train_dataset) == ours[32:]


class Killed(BaseException):
    """Not an Exception, so that nothing on the way handles it."""


def test_an_arm_that_is_killed_ends_as_if_nothing_had_happened(
    arm_job: Any, kto_arm: KTO, artifacts: Any, cache_dir: Path, tmp_path: Path, make_recorder: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(resume, "MAX_SHARE_OF_TIME", float("inf"))
    spec: ArmJobSpec = arm_job(kto_arm, num_prompts=32)

    def run(name: str, recorder: Any) -> dict[str, bytes]:
        (tmp_path / name).mkdir(exist_ok=True)
        run_stage("arm", spec, artifacts, tmp_path / name, cache_dir, recorder)
        return {p.parent.name: p.read_bytes() for p in (tmp_path / name).rglob("adapter_model.safetensors")}

    whole = make_recorder()
    expected = run("whole", whole)
    cut = make_recorder()
    cut.progress = lambda stage, done, *_: (_ for _ in ()).throw(Killed) if done > 2 else None
    with pytest.raises(Killed):
        run("cut", cut)
    del cut.progress
    assert run("cut", cut) == expected
    assert whole.values("train/loss") == cut.values("train/loss")
    assert whole.values("train/loss")[0] == pytest.approx(0.5, abs=1e-6)  # the policy is its reference
    assert {"kto/kl", "kto/reward_margin", "flag/likelihood_displacement"} <= set(whole.rows[-1][1])
