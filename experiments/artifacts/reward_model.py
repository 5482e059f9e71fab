"""The proxy reward model: TRL's RewardTrainer, LoRA and a scalar head on the same base (scored by reward_scorer.py).

A response's score is the mean of the head's outputs over its tokens, without the end-of-sequence token. Usually the
score is the output at the last token alone. That learns far worse from the few comparisons of a small sweep: on 1,343
comparisons of SmolLM2-135M's samples it ordered 53 % of held-out pairs as the measure does, which is chance. The mean
also gives every prefix a score, and PPO's critic starts from these.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from peft import get_peft_model
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from experiments.algorithms.dpo import ranking_loss
from experiments.artifacts.ranking import RankedPrompt
from experiments.artifacts.ranking import load as load_ranking
from experiments.inputs.lora import lora_config
from experiments.inputs.models import decoder_of, language_head, load_base, precision, takes_any_mask, trl_arguments
from experiments.inputs.tokens import Tokens
from experiments.intervals import share, with_interval
from experiments.meter import Meter
from experiments.passes import recompute_in_backward
from experiments.records import Recorder
from experiments.rewards.trained import RewardModel
from experiments.sampling.batch import PAD_ID, make_batches, tokens_per_pass
from experiments.seeding import derive_seed, numpy_generator
from experiments.spec import RewardModelJobSpec
from experiments.tasks import TASKS
from experiments.tasks.task import TRAINING_REWARD


def build(
    spec: RewardModelJobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Train on the comparisons of most prompts; measure accuracy and normalise scores on the held-out prompts."""
    meter, settings = Meter(), spec.reward_model
    assert isinstance(settings, RewardModel)
    tokenizer = Tokens.load(spec.model, cache_dir).tokenizer
    ranked = load_ranking(needs["ranking_data"])
    num_held_out = max(1, round(settings.held_out_fraction * len(ranked)))
    held_out, training = ranked[:num_held_out], ranked[num_held_out:]
    trainer = _trainer(spec, settings, training, tokenizer, cache_dir, meter, recorder)
    trainer.train()
    model = trainer.model.eval()
    # As many as held out: enough to show how far the training prompts were memorised.
    seen = training[:num_held_out]
    train_scores, held_out_scores = (_score_all(model, part) for part in (seen, held_out))
    all_held_out = np.concatenate(held_out_scores)
    model.save_pretrained(folder / "adapter")
    head = next(module for name, module in model.named_modules() if name.endswith("score.modules_to_save.default"))
    save_file({"weight": head.weight.detach().contiguous().cpu()}, folder / "head.safetensors")
    scale = {"mean": float(all_held_out.mean()), "standard_deviation": float(all_held_out.std())}
    (folder / "scale.json").write_text(json.dumps(scale))
    correlation = f"reward_model/{TRAINING_REWARD.name}_{TASKS[spec.task].measure}_correlation"
    values = {
        **_accuracy("reward_model/train_accuracy", seen, train_scores, spec),
        **_accuracy("reward_model/held_out_accuracy", held_out, held_out_scores, spec),
        **_rank_correlation(correlation, held_out, held_out_scores, spec.seed),
        "reward_model/num_comparisons": sum(len(prompt.comparisons(spec.comparisons)) for prompt in training),
        "reward_model/num_held_out_comparisons": sum(len(prompt.comparisons(spec.comparisons)) for prompt in held_out),
    }
    recorder.metrics("artifact", values, meter.axes())


class _RankingTrainer(RewardTrainer):  # type: ignore[misc]
    """A RewardTrainer whose examples are prompts: each sample is scored once for all comparisons (arXiv:2203.02155)."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # token ids already; TRL would append an end-of-sequence token to samples that were cut

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        self._total_train_tokens += sum(map(len, [*inputs["prompt_ids"], *inputs["text_ids"]]))
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]  # as RewardTrainer logs it
        scores_B = _raw_scores(model, inputs["prompt_ids"], inputs["text_ids"])
        loss = ranking_loss(scores_B, inputs["winner"], inputs["loser"])
        return (loss, {"scores": scores_B}) if return_outputs else loss


def _trainer(
    spec: RewardModelJobSpec,
    settings: RewardModel,
    training: Sequence[RankedPrompt],
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    meter: Meter,
    recorder: Recorder,
) -> RewardTrainer:
    seed = derive_seed(spec.seed, "reward model") % 2**32
    torch.manual_seed(seed)  # PEFT initialises the adapter from the global generator
    model = get_peft_model(with_scalar_head(load_base(spec.model, cache_dir)), lora_config(spec.model.lora, "SEQ_CLS"))
    rows = [prompt for prompt in training if prompt.comparisons(spec.comparisons)]
    comparisons_per_prompt = sum(len(prompt.comparisons(spec.comparisons)) for prompt in rows) / len(rows)
    prompts_per_step = max(1, round(settings.comparisons_per_step / comparisons_per_prompt))
    arguments = RewardConfig(
        **trl_arguments(tempfile.gettempdir()),
        per_device_train_batch_size=prompts_per_step,
        num_train_epochs=settings.num_epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        seed=seed,
    )
    return _RankingTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([_example(prompt, spec.comparisons) for prompt in rows]),
        data_collator=_collate,
        processing_class=tokenizer,
        callbacks=[_Progress(recorder, meter)],
    )


def with_scalar_head(base: Any) -> PreTrainedModel:
    """The causal model with a head named `score` on its last hidden states, like its family's classifier.

    Some families (Granite) have no classifier. The language-model head is kept but unused.
    """
    size = language_head(base).weight_VH.shape[1]
    # In float32 at least: bfloat16 would lose the head's small steps.
    head = nn.Linear(size, 1, bias=False, device="meta", dtype=precision(base.dtype)).to_empty(device=base.device)
    nn.init.normal_(head.weight)  # uses the random numbers that a classifier's head uses before the adapter's
    nn.init.zeros_(head.weight)  # all scores start equal; a random head's scores would first have to be unlearnt
    base.score = head
    base.config.num_labels = 1  # RewardTrainer reads it
    return base  # type: ignore[no-any-return]


def _raw_scores(model: Any, prompt_ids: Sequence[list[int]], text_ids: Sequence[list[int]]) -> Tensor:
    """Unnormalised scores [B]: the scalar head at every token of a text, averaged."""
    head, device = model.get_base_model().score, model.device
    batches = make_batches(prompt_ids, text_ids, tokens_per_pass(device), PAD_ID, device, packed=takes_any_mask(model))
    scores = []
    for _, batch in batches:
        hidden = recompute_in_backward(batch.hidden_states)(decoder_of(model))[batch.states[:, 1:]]
        scores_BT = head(hidden.to(precision(hidden.dtype)))[..., 0] * batch.response_mask
        scores.append(scores_BT.sum(dim=1) / batch.response_mask.sum(dim=1).clamp_min(1))
    order = torch.tensor([row for rows, _ in batches for row in rows], device=device)
    return torch.cat(scores)[order.argsort()]


def _example(prompt: RankedPrompt, which: Literal["all", "best_worst"]) -> dict[str, Any]:
    winner, loser = zip(*prompt.comparisons(which), strict=True)
    return {"prompt": prompt.prompt_ids, "texts": prompt.text_ids, "winner": list(winner), "loser": list(loser)}


def _collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn prompts with samples into one prompt and one text per sample, with comparisons as indices into these."""
    offsets = np.cumsum([0, *(len(example["texts"]) for example in examples)])
    batch: dict[str, Any] = {
        "prompt_ids": [example["prompt"] for example in examples for _ in example["texts"]],
        "text_ids": [text for example in examples for text in example["texts"]],
    }
    for role in ("winner", "loser"):
        batch[role] = torch.tensor(
            [offset + i for offset, example in zip(offsets, examples, strict=False) for i in example[role]]
        )
    return batch


class _Progress(TrainerCallback):
    """Writes the loss of every step to the ledger."""

    def __init__(self, recorder: Recorder, meter: Meter) -> None:
        self.recorder, self.meter = recorder, meter

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.meter.optimizer_steps = state.global_step
            self.meter.tokens_trained = int(logs["num_tokens"])
            self.recorder.metrics("train", {"reward_model/loss": float(logs["loss"])}, self.meter.axes())
            self.recorder.progress("train the reward model", state.global_step, state.max_steps, "steps")


@torch.no_grad()
def _score_all(model: Any, ranked: Sequence[RankedPrompt]) -> list[NDArray[np.float64]]:
    """Raw scores of all samples: one array per prompt."""
    texts = [prompt.text_ids for prompt in ranked]
    prompts = [prompt.prompt_ids for prompt in ranked for _ in prompt.text_ids]
    flat = _raw_scores(model, prompts, [ids for some in texts for ids in some]).cpu().numpy()
    return np.split(flat, np.cumsum(list(map(len, texts)))[:-1])


def _accuracy(
    name: str, ranked: Sequence[RankedPrompt], scores: Sequence[Any], spec: RewardModelJobSpec
) -> dict[str, float]:
    """Share of comparisons that the scores order as the measure does."""
    pairs = [prompt.comparisons(spec.comparisons) for prompt in ranked]
    hits = [sum(bool(of[winner] > of[loser]) for winner, loser in some) for some, of in zip(pairs, scores, strict=True)]
    statistic = share(hits, list(map(len, pairs)))
    return with_interval(name, len(ranked), statistic, numpy_generator(spec.seed, name))


def _rank_correlation(name: str, ranked: Sequence[RankedPrompt], scores: Sequence[Any], seed: int) -> dict[str, float]:
    """Spearman correlation of the reward and the measure over samples."""
    measured = [np.array(prompt.score) for prompt in ranked]

    def statistic(groups: NDArray[np.intp]) -> float:
        rewards = np.concatenate([scores[group] for group in groups])
        return float(spearmanr(rewards, np.concatenate([measured[group] for group in groups])).statistic)

    return with_interval(name, len(ranked), statistic, numpy_generator(seed, name))
