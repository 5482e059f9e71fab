"""DPO: TRL's trainer on token ids, LoRA in float32, the reference fixed to the base with the adapter off."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from experiments.arms import checkpoints
from experiments.artifacts.ranking import RankedPrompt
from experiments.artifacts.ranking import load as load_ranking
from experiments.errors import InputError
from experiments.inputs.models import device, load_base, load_tokenizer, lora_config
from experiments.meter import Meter
from experiments.records import Recorder
from experiments.seeding import derive_seed
from experiments.spec import DPO, ArmJobSpec, evaluation_updates

# TRL's names of what it logs, and ours
LOGGED = {
    "loss": "train/loss",
    "grad_norm": "train/gradient_norm",
    "learning_rate": "train/learning_rate",
    "rewards/margins": "dpo/reward_margin",
    "rewards/accuracies": "dpo/accuracy",
    "rewards/chosen": "dpo/chosen_reward",
    "rewards/rejected": "dpo/rejected_reward",
    "logps/chosen": "dpo/chosen_logp",
    "logps/rejected": "dpo/rejected_logp",
}


class TokenIdsDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on the token ids that were sampled.

    TRL would tokenise text again, which can move the boundary between prompt and response, and append an
    end-of-sequence token to every response, which would teach the model to stop wherever a sample was cut.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def train(spec: ArmJobSpec, ranking_folder: Path, folder: Path, cache_dir: Path, recorder: Recorder) -> None:
    """Train one DPO arm on the ranking data's comparisons."""
    assert isinstance(spec.arm, DPO)
    meter = Meter()
    num_steps = spec.num_prompts // spec.arm.pairs_per_step
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(spec, load_ranking(ranking_folder), cache_dir, Path(scratch))
        trainer.add_callback(_Ledger(folder, recorder, meter, spec.arm, evaluation_updates(num_steps, spec.num_points)))
        trainer.train()


def make_trainer(spec: ArmJobSpec, ranked: list[RankedPrompt], cache_dir: Path, scratch: Path) -> DPOTrainer:
    """The trainer of one arm; `scratch` is a folder for files nobody needs afterwards.

    Raises:
        InputError: the ranking data has no comparison (all samples tie).
    """
    arm = spec.arm
    assert isinstance(arm, DPO)
    rows = [row for prompt in ranked for row in _pairs(prompt, spec)]
    if not rows:
        raise InputError(
            f"arm {arm.name}: the ranking data has no comparison, because gold ties all samples of every prompt"
        )
    seed = derive_seed(spec.seed, "dpo") % 2**32
    arguments = DPOConfig(
        output_dir=str(scratch),
        beta=arm.beta,
        learning_rate=arm.learning_rate,
        lr_scheduler_type="constant",
        max_steps=spec.num_prompts // arm.pairs_per_step,
        per_device_train_batch_size=arm.pairs_per_microbatch,
        gradient_accumulation_steps=arm.pairs_per_step // arm.pairs_per_microbatch,
        max_grad_norm=arm.max_gradient_norm,
        max_length=None,
        seed=seed,
        bf16=False,  # under autocast TRL's chunked head is slower: 11.8 s instead of 8.9 s for 8 pairs on one core
        use_cpu=device().type == "cpu",
        gradient_checkpointing=False,
        precompute_ref_log_probs=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    return TokenIdsDPOTrainer(
        model=load_base(spec.model, cache_dir),
        ref_model=None,  # with peft_config: the reference is the base with the adapter off, never a reload from disk
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(spec.model, cache_dir),
        peft_config=lora_config(spec.model.lora),
    )


def _pairs(prompt: RankedPrompt, spec: ArmJobSpec) -> list[dict[str, list[int]]]:
    return [
        {
            "prompt_ids": prompt.prompt_ids,
            "chosen_ids": prompt.response_ids[winner],
            "rejected_ids": prompt.response_ids[loser],
        }
        for winner, loser in prompt.comparisons(spec.comparisons)
    ]


class _Ledger(TrainerCallback):
    """Rows, progress and adapters, from the trainer's own events."""

    def __init__(self, folder: Path, recorder: Recorder, meter: Meter, arm: DPO, points: list[int]) -> None:
        self.folder, self.recorder, self.meter, self.arm, self.points = folder, recorder, meter, arm, points

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """After each optimizer step."""
        if not logs or "loss" not in logs:
            return
        self.meter.optimizer_steps = state.global_step
        self.meter.prompts_seen = state.global_step * self.arm.pairs_per_step
        self.meter.tokens_trained = int(logs["num_tokens"])
        values = {ours: float(logs[theirs]) for theirs, ours in LOGGED.items() if theirs in logs}
        self.recorder.metrics("train", values, self.meter.axes())
        self.recorder.progress("DPO", state.global_step, state.max_steps, "steps")
        if state.global_step in self.points:
            checkpoints.save(kwargs["model"], self.folder, self.points.index(state.global_step) + 1, self.meter.axes())
