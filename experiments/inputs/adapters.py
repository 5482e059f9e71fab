"""The adapters that an arm keeps: `adapters/point_1` … `adapters/point_N`, the last one the final model.

An arm that starts from another arm's checkpoint has that arm's adapters as its own first points.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from experiments.inputs.models import POLICY
from experiments.records import ADAPTER_FOLDER, Axes

START = "start.json"  # in an arm's folder: the point that it started from, where that is not the base


def save(model: Any, arm_folder: Path, point: int, axes: Axes) -> None:
    """Write one adapter in PEFT's format, and beside it what had been spent when it was written."""
    folder = arm_folder / ADAPTER_FOLDER.format(point=point)
    model.save_pretrained(folder, selected_adapters=["default"])
    (folder / "axes.json").write_text(json.dumps(asdict(axes)))


def load(model: Any, weights: Path) -> None:
    """Make kept weights those of a model's policy adapter."""
    set_peft_model_state_dict(model, load_file(weights), adapter_name=POLICY)


def load_axes(arm_folder: Path, point: int) -> Axes:
    """What the arm had spent at `point`."""
    return Axes(**json.loads((arm_folder / ADAPTER_FOLDER.format(point=point) / "axes.json").read_text()))


def inherit(arm_folder: Path, start_folder: Path, point: int) -> Axes:
    """Make the first `point` points of another arm those of this one; returns what had been spent there."""
    for number in range(1, point + 1):
        name = ADAPTER_FOLDER.format(point=number)
        shutil.copytree(start_folder / name, arm_folder / name, dirs_exist_ok=True)
    (arm_folder / START).write_text(json.dumps({"point": point}))
    return load_axes(start_folder, point)


def inherited_points(arm_folder: Path) -> int:
    """How many of an arm's first points are another arm's."""
    path = arm_folder / START
    return int(json.loads(path.read_text())["point"]) if path.exists() else 0


def points(arm_folder: Path) -> list[int]:
    """The points that were kept, in order."""
    return sorted(int(folder.name.removeprefix("point_")) for folder in (arm_folder / "adapters").glob("point_*"))


def weights_file(arm_folder: Path, point: int) -> Path:
    """The adapter's weights at `point`."""
    return arm_folder / ADAPTER_FOLDER.format(point=point) / "adapter_model.safetensors"
