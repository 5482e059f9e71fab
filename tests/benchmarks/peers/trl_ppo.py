"""TRL 1.12's PPOTrainer on the same model, prompts, adapters and sizes as ours. Runs in its own environment.

Kept from handicapping it: the value model gets LoRA too (with `peft_config` alone TRL would train it in full), the
reward and reference models carry no adapters, and the micro-batches are those that were fastest for it. Its bf16 flag
does nothing under transformers 5, so the base is loaded in the precision asked for.

    <peer python> -m tests.benchmarks.peers.trl_ppo '{"model": FOLDER, …}'
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from tests.benchmarks import probe


class Clock(TrainerCallback):
    """When each update ended, and how long the generation in it took."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.generation: list[float] = []
        generate = ppo_trainer.batch_generation

        def timed(*args: Any, **options: Any) -> Any:
            start = probe.now()
            result = generate(*args, **options)
            self.generation.append(probe.now() - start)
            return result

        ppo_trainer.batch_generation = timed

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.append(probe.now())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(probe.now())


def critic(folder: str, options: dict[str, Any], lora: LoraConfig) -> PreTrainedModel:
    """A value model whose trained part is LoRA in float32 and the scalar head."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **options)
    inject_adapter_in_model(lora, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    model.score.requires_grad_(True)
    return model


def main(a: dict[str, Any]) -> None:
    """Train `1 + repeats` updates and time all but the first."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(a["model"])
    options = {"dtype": getattr(torch, a["dtype"]), "attn_implementation": a["attention"]}
    lora = LoraConfig(
        r=a["rank"], lora_alpha=a["alpha"], target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    num_updates, rows = 1 + a["repeats"], a["rows"]
    prompts = json.loads(Path(a["prompts"]).read_text())
    wanted = (num_updates + 1) * a["num_prompts"]  # the last batch of a pass would make an optimizer step per row group
    prompts = (prompts * (wanted // len(prompts) + 1))[:wanted]
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=scratch,
                per_device_train_batch_size=rows,
                gradient_accumulation_steps=a["num_prompts"] // rows,
                local_rollout_forward_batch_size=a["rollout_rows"],
                total_episodes=num_updates * a["num_prompts"],
                num_ppo_epochs=a["num_epochs"],
                num_mini_batches=1,
                response_length=a["new_tokens"],
                temperature=1.0,
                stop_token="eos",  # noqa: S106 - a token, not a password
                kl_coef=a["kl_coefficient"],
                learning_rate=a["learning_rate"],
                lr_scheduler_type="constant",
                num_sample_generations=0,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=probe.device() == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(a["model"], **options),
            ref_model=None,  # the base with the adapter off
            reward_model=AutoModelForSequenceClassification.from_pretrained(a["model"], num_labels=1, **options),
            value_model=critic(a["model"], options, lora),
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
            eval_dataset=Dataset.from_dict({"input_ids": prompts[: a["num_prompts"]]}),
            peft_config=lora,
            callbacks=[clock],
        )
        trainer.train()
    seconds = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    probe.emit(
        seconds[1:],
        a["num_prompts"],
        {"generate": clock.generation[1:], "rest": [s - g for s, g in zip(seconds, clock.generation, strict=True)][1:]},
        warm_up_seconds=seconds[0],
        policy_dtypes=probe.dtypes(trainer.policy_model),
        value_dtypes=probe.dtypes(trainer.value_model),
        reward_dtypes=probe.dtypes(trainer.reward_model),
        last_metrics=trainer.state.log_history[-1],
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
