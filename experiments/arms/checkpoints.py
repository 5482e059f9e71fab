"""The adapters that an arm keeps: `adapters/point_1` … `adapters/point_N`, the last one the final model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.records import Axes


def save(model: Any, arm_folder: Path, point: int, axes: Axes) -> None:
    """Write one adapter in PEFT's format, and beside it what had been spent when it was written."""
    folder = arm_folder / "adapters" / f"point_{point}"
    model.save_pretrained(folder, selected_adapters=["default"])
    (folder / "axes.json").write_text(json.dumps(asdict(axes)))


def load_axes(arm_folder: Path, point: int) -> Axes:
    """What the arm had spent at `point`."""
    return Axes(**json.loads((arm_folder / "adapters" / f"point_{point}" / "axes.json").read_text()))


def points(arm_folder: Path) -> list[int]:
    """The points that were kept, in order."""
    return sorted(int(folder.name.removeprefix("point_")) for folder in (arm_folder / "adapters").glob("point_*"))


def weights_file(arm_folder: Path, point: int) -> Path:
    """The adapter's weights at `point`."""
    return arm_folder / "adapters" / f"point_{point}" / "adapter_model.safetensors"
