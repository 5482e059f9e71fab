"""Check that the base that this process loaded is the one that was sampled.

The ranking data holds log-probs of its responses under the base. Every job that loads the base afterwards scores eight
of them again, without adapters. Two faults would otherwise give meaningless numbers without an error. Weights missing
in a file are drawn at random, differently in each process. An adapter file beside the weights is applied by one way of
loading and not by another.

Rounding differences were measured on 128 samples of SmolLM2-135M of 32 tokens, eight at a time, as `distance` in nats a
token. In float32 the sampler and a forward pass differ by 0.00002. With bfloat16 weights, these differ by 0.03 to 0.11:
a pass in another batch, the sampler, and arithmetic in float32 (on another kind of processor). The tolerances are
larger, for other models and devices. A random head is several nats off, and so is another checkpoint. A LoRA update
whose KL is 5 nats a response is 0.5 to 1.5 off; one of 0.8 nats is 0.1 to 0.4 off, which bfloat16 may hide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from experiments.artifacts.ranking import DPO_TEMPERATURE
from experiments.artifacts.ranking import load as load_ranking
from experiments.errors import InputError
from experiments.inputs.models import every_base_passes
from experiments.model_spec import Model
from experiments.sampling.logprobs import total_logprobs

NUM_RESPONSES = 8
TOLERANCE = {"bfloat16": 0.2, "float32": 0.005, "float64": 0.005}  # nats a token, by the precision of the weights


@contextmanager
def same_as_in(ranking_folder: Path) -> Iterator[None]:
    """Inside the block, `load_base` raises InputError for a base other than that of the ranking data."""
    with every_base_passes(partial(check, ranking_folder)):
        yield


def check(ranking_folder: Path, model: Model, base: PreTrainedModel) -> None:
    """Score responses of the ranking data again.

    Args:
        ranking_folder: of the finished ranking data.
        model: what was to be loaded.
        base: what was loaded, without adapters.

    Raises:
        InputError: the log-probs differ by more than rounding explains.
    """
    rows = [
        (prompt.prompt_ids, ids, logp)
        for prompt in load_ranking(ranking_folder)
        for ids, logp in zip(prompt.response_ids, prompt.reference_logp, strict=True)
        if math.isfinite(logp)
    ]
    if not rows:
        raise InputError(f"{ranking_folder}: the base has given no finite log-prob; model.path={model.path} is unsound")
    prompt_ids, response_ids, recorded = zip(*rows[:NUM_RESPONSES], strict=True)
    found = distance_now(base, prompt_ids, response_ids, recorded)
    if not found <= TOLERANCE[model.dtype]:
        raise InputError(
            f"model.path={model.path}: this is not the base that was sampled: its log-probs of {len(recorded)} texts "
            f"of {ranking_folder} are {found:.3g} nats a token off, and rounding explains {TOLERANCE[model.dtype]}. "
            "Likely causes: the files changed since, they lack weights that were then drawn at random, an adapter file "
            "lies beside them, or another precision or another version of transformers computes something else. "
            "Restore them, or start again with name=… and cache_dir=…"
        )


def distance_now(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    recorded: Sequence[float],
) -> float:
    """`distance` of the recorded log-probs of whole responses from those under a model with its active adapters."""
    now = total_logprobs(model, prompt_ids, response_ids, temperature=DPO_TEMPERATURE, pad_id=0)
    return distance(recorded, now, [len(ids) for ids in response_ids])


def distance(logps: Sequence[float], others: Sequence[float], num_tokens: Sequence[int]) -> float:
    """Root-mean-square difference of two sets of log-probs of whole responses, nats a token.

    Rounding errors of tokens are independent, so the error of a response grows with the square root of its length.
    """
    squares = [(logp - other) ** 2 for logp, other in zip(logps, others, strict=True)]
    return math.sqrt(math.fsum(squares) / sum(num_tokens))
