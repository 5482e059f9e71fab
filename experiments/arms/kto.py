"""KTO: TRL's trainer on the pairs that DPO learns from, each as one desirable and one undesirable response.

The KL term is estimated within a micro-batch: each prompt with the response before its own. All desirable responses of
a micro-batch stand before its undesirable ones, so that with two pairs or more no prompt meets a response of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from experiments.arms import dpo
from experiments.artifacts.ranking import DPO_TEMPERATURE, RankedPrompt
from experiments.artifacts.same_base import NUM_RESPONSES
from experiments.catalogue import KTO
from experiments.meter import Meter
from experiments.records import Recorder
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import total_logprobs
from experiments.spec import ArmJobSpec
from experiments.training_signs import DISPLACED, NOT_FINITE


def train(spec: ArmJobSpec, ranking_folder: Path, folder: Path, cache_dir: Path, recorder: Recorder) -> None:
    """Train one KTO arm on the ranking data's comparisons, from its last checkpoint if it has one.

    Raises:
        InputError: the ranking data has no comparison, or the policy is not its reference before the first step.
        DivergedError: more than `max_skipped_steps` optimizer steps had no finite gradient.
    """
    dpo.train_pairs(METHOD, spec, dpo.Stage(Meter()), ranking_folder, folder, cache_dir, recorder)


class FastKTOTrainer(dpo.OnSampledTokens, KTOTrainer):  # type: ignore[misc]
    """KTOTrainer on sampled tokens."""


def make_trainer(
    spec: ArmJobSpec,
    ranked: Sequence[RankedPrompt],
    cache_dir: Path,
    scratch: Path,
    steps_done: int = 0,
    start: Path | None = None,
) -> FastKTOTrainer:
    """The trainer of one arm; see `experiments.arms.dpo.make_trainer`.

    Raises:
        InputError: the ranking data has no comparison (all samples tie).
    """
    arm = spec.arm
    assert isinstance(arm, KTO)
    assert start is None
    rows = _rows(dpo.presented_pairs(spec, ranked, 0), arm.pairs_per_microbatch)
    arguments = KTOConfig(
        beta=arm.beta,
        desirable_weight=arm.desirable_weight,
        undesirable_weight=arm.undesirable_weight,
        per_device_train_batch_size=2 * arm.pairs_per_microbatch,
        **dpo.shared_arguments(spec, arm, scratch, steps_done),
    )
    trainer = FastKTOTrainer(**dpo.shared_parts(spec, cache_dir), args=arguments, train_dataset=Dataset.from_list(rows))
    # Of all rows, whatever is left to train on: in other company a log-prob differs in its last digits.
    mismatched = total_logprobs(
        trainer.model,
        [row["prompt_ids"] for row in rows],
        [row["KL_completion_ids"] for row in rows],
        temperature=DPO_TEMPERATURE,
        pad_id=PAD_ID,
    )
    rows = [row | {"ref_KL_logps": value} for row, value in zip(rows, mismatched, strict=True)]
    trainer.train_dataset = Dataset.from_list(rows[2 * arm.pairs_per_step * steps_done :])
    return trainer


def _rows(pairs: Sequence[tuple[RankedPrompt, int, int]], pairs_per_microbatch: int) -> list[dict[str, Any]]:
    """Two rows a pair, micro-batch by micro-batch, each with the response before its own in its micro-batch."""
    rows: list[dict[str, Any]] = []
    for first in range(0, len(pairs), pairs_per_microbatch):
        batch = pairs[first : first + pairs_per_microbatch]
        desirable = [_row(prompt, winner, True) for prompt, winner, _ in batch]
        undesirable = [_row(prompt, loser, False) for prompt, _, loser in batch]
        both = desirable + undesirable
        before = [both[-1], *both[:-1]]
        rows += [row | {"KL_completion_ids": other["completion_ids"]} for row, other in zip(both, before, strict=True)]
    return rows


def _row(prompt: RankedPrompt, index: int, desirable: bool) -> dict[str, Any]:
    return {
        "prompt_ids": prompt.prompt_ids,
        "completion_ids": prompt.response_ids[index],
        "label": desirable,
        "ref_logps": prompt.reference_logp[index],
    }


def _first_responses(dataset: Dataset) -> tuple[list[list[int]], list[list[int]], list[float]]:
    """Prompts, responses and their log-probs under the reference."""
    rows = dataset[:NUM_RESPONSES]
    return rows["prompt_ids"], rows["completion_ids"], rows["ref_logps"]


METHOD = dpo.Method(
    "KTO", make_trainer, _first_responses, dpo.logged("kto") | {"kl": "kto/kl"}, (DISPLACED, NOT_FINITE)
)
