"""Interpolation between the base and a checkpoint of another arm. Nothing is trained.

base + lambda s B A = (1 - lambda) base + lambda (base + s B A). So scaling B by lambda is an exact linear interpolation
of the merged weights (Wortsman et al. 2022, arXiv:2109.01903).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.errors import InputError
from experiments.inputs import adapters as checkpoints
from experiments.meter import Meter
from experiments.records import Recorder
from experiments.spec import ArmJobSpec, Interpolation, start_point


def build(spec: ArmJobSpec, start_folder: Path, folder: Path, _: Path, recorder: Recorder) -> None:
    """Write the adapters of all points: the other arm's up to the checkpoint, then step by step closer to the base.

    Raises:
        InputError: the checkpoint holds more than a low-rank update, and scaling B would not interpolate the rest.
    """
    assert isinstance(spec.arm, Interpolation)
    meter, first = Meter(), start_point(spec.arm.start, spec.num_points)
    meter.resume_from(checkpoints.inherit(folder, start_folder, first))
    tensors = load_file(checkpoints.weights_file(start_folder, first))
    weights = path(spec.arm.weight, spec.num_points - 1 - first)
    for point, weight in enumerate(weights, start=first + 1):
        place = checkpoints.weights_file(folder, point).parent
        shutil.copytree(checkpoints.weights_file(start_folder, first).parent, place, dirs_exist_ok=True)
        save_file(scaled(tensors, weight, spec.arm.start.arm), checkpoints.weights_file(folder, point))
        (place / "axes.json").write_text(json.dumps(asdict(meter.axes())))
        recorder.metrics("train", {"interpolation/weight": weight}, meter.axes())
        recorder.progress("interpolate", point - first, len(weights), "adapters")


def path(weight: float, num_steps: int) -> list[float]:
    """Weights of the checkpoint, evenly spaced from 1 (excluded) to `weight` (included)."""
    return [1 - (1 - weight) * step / num_steps for step in range(1, num_steps + 1)]


def scaled(tensors: dict[str, Tensor], weight: float, arm: str) -> dict[str, Tensor]:
    """The adapter whose update is `weight` times that of `tensors`.

    Raises:
        InputError: some tensor is neither A nor B.
    """
    others = [name for name in tensors if not (".lora_A." in name or ".lora_B." in name)]
    if others:
        raise InputError(f"arm {arm} cannot be interpolated: {others[0]} is no low-rank update of the base")
    return {name: tensor * weight if ".lora_B." in name else tensor for name, tensor in tensors.items()}
