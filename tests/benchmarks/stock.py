"""What people would use instead and our own environment has: TRL's stock DPOTrainer and transformers' `generate`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from experiments.artifacts import ranking
from experiments.inputs.models import adapter_seed
from tests.benchmarks import probe
from tests.benchmarks.inputs import lora


class GivenIds(DPOTrainer):  # type: ignore[misc]
    """The stock trainer on the token ids that our side gets: re-tokenised text would not be the same pairs."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def _lora() -> LoraConfig:
    settings = lora()
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.target_modules,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def _base(folder: Path, a: dict[str, Any]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=getattr(torch, a["dtype"]), attn_implementation=a["attention"]
    )
    return model.to(probe.device())


def dpo(folder: Path, a: dict[str, Any]) -> None:
    """All steps, set-up included. TRL's defaults but for what makes the work equal; in float32 its autocast is off."""
    pairs = ranking.load(folder / "ranking")[: a["num_distinct_pairs"]]
    rows = [
        {"prompt_ids": p.prompt_ids, "chosen_ids": p.response_ids[0], "rejected_ids": p.response_ids[1]} for p in pairs
    ]
    _base(folder, a)  # into the file cache
    per_device = DPOConfig.per_device_train_batch_size
    with tempfile.TemporaryDirectory() as scratch:
        start = probe.now()
        trainer = GivenIds(
            model=_base(folder, a),
            args=DPOConfig(
                output_dir=scratch,
                learning_rate=a["learning_rate"],
                lr_scheduler_type="constant",
                max_steps=a["num_steps"],
                per_device_train_batch_size=per_device,
                gradient_accumulation_steps=a["pairs_per_step"] // per_device,
                seed=adapter_seed(0),  # as ours: the adapter starts from the same numbers
                use_cpu=probe.device() == "cpu",
                remove_unused_columns=False,
                save_strategy="no",
                logging_steps=1,
                report_to="none",
                disable_tqdm=True,
                **({} if a["dtype"] == "bfloat16" else {"bf16": False}),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            peft_config=_lora(),
        )
        middle = probe.now()
        trainer.train()
        end = probe.now()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    probe.emit(
        [end - start],
        a["num_steps"] * a["pairs_per_step"],
        {"set up": [middle - start], "train": [end - middle]},
        losses=losses,
        policy_dtypes=probe.dtypes(trainer.model),
    )


def generate(folder: Path, a: dict[str, Any]) -> None:
    """`generate` of the policy with its adapter on."""
    policy = get_peft_model(_base(folder, a).eval(), _lora()).eval()
    prompts = torch.tensor(json.loads((folder / "prompts.json").read_text())[: a["rows"]], device=policy.device)

    def draw(new_tokens: int) -> int:
        ids = policy.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new_tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        return int(ids[:, prompts.shape[1] :].numel())

    torch.manual_seed(0)
    draw(4)
    seconds, tokens = [], 0
    for _ in range(a["repeats"]):
        start = probe.now()
        tokens = draw(a["new_tokens"])
        seconds.append(probe.now() - start)
    probe.emit(seconds, tokens, {}, policy_dtypes=probe.dtypes(policy))
