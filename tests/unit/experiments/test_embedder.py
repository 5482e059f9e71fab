from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.errors import InputError
from experiments.evaluation.embedder import SentenceEncoder
from experiments.inputs.models import prepare_model
from experiments.model_spec import Model
from experiments.spec import BaseEvaluationJobSpec
from experiments.stages import run_stage


@pytest.fixture
def folder(tiny: Model, cache_dir: Path) -> str:
    """The tiny model: what a sentence encoder is to this code, without having learned to be one."""
    return prepare_model(tiny, cache_dir)


@pytest.fixture
def encoder(folder: str) -> SentenceEncoder:
    return SentenceEncoder.load(folder)


def test_a_vector_is_the_mean_of_the_last_hidden_states_at_length_1(encoder: SentenceEncoder) -> None:
    ids = encoder.tokenizer(["a film"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mean = encoder.model(ids).last_hidden_state[0].mean(dim=0).numpy()
    found = encoder.embed(["a film"], rows_per_batch=4)
    assert found.dtype == np.float16
    assert found[0] == pytest.approx(mean / math.sqrt((mean**2).sum()), abs=1e-3)


def test_neighbours_in_a_batch_change_nothing(encoder: SentenceEncoder) -> None:
    texts = ["a film", "", "a much longer text about a film that goes on", "we saw"]
    together, alone = encoder.embed(texts, rows_per_batch=4), encoder.embed(texts, rows_per_batch=1)
    assert together == pytest.approx(alone, abs=2e-3)
    assert not together[1].any()


def test_what_is_no_encoder_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluation\.embedder=.*cannot be loaded"):
        SentenceEncoder.load(str(tmp_path))


def test_pickled_weights_are_not_loaded(folder: str, tmp_path: Path) -> None:
    for file in Path(folder).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"evaluation\.embedder="):
        SentenceEncoder.load(str(tmp_path))


def test_the_base_is_embedded_under_both_sets_of_random_numbers(
    base_evaluation_job: BaseEvaluationJobSpec,
    folder: str,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path: Path,
    recorder: Any,
) -> None:
    evaluation = base_evaluation_job.evaluation.model_copy(update={"embedder": folder})
    spec = base_evaluation_job.model_copy(update={"evaluation": evaluation})
    run_stage("base_evaluation", spec, artifacts, tmp_path, cache_dir, recorder)
    rows, vectors = recorder.vectors[0]
    assert [row["stream"] for row in rows] == [1] * 12 + [2] * 12  # the further samples are for best-of-n alone
    assert vectors.shape[0] == 24
