"""Checkpoints from which a killed arm resumes exactly: one folder of tensors and numbers, replaced as a whole.

Everything random in an arm is derived from its seed and the number of the update, so no generator is saved.
Tensors are stored as safetensors and numbers as JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from experiments.foreign import MALFORMED, open_plain, read_plain
from experiments.records import RESUME_FOLDER
from experiments.spec import ArmJobSpec

MAX_SHARE_OF_TIME = 0.05  # largest share of the time since the last checkpoint that writing the next one may take


@dataclass(frozen=True)
class State:
    """The state of training after an update."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]  # JSON values


class Checkpoints:
    """Writes an arm's state often enough that a kill loses little, and seldom enough that it costs little time."""

    def __init__(self, folder: Path, spec: ArmJobSpec, start: Path | None = None) -> None:
        """Args: the arm's folder, its specification, and the weights it started from, if not from the base."""
        self._folder = folder
        content = spec.model_dump_json() + (_digest(start) if start else "")
        self._identity = hashlib.sha256(content.encode()).hexdigest()
        self._written, self._cost = time.monotonic(), 0.0

    def save_if_due(self, current: Callable[[], State]) -> None:
        """Write the current state, unless that would take too large a share of the time."""
        begin = time.monotonic()
        if begin - self._written < self._cost / MAX_SHARE_OF_TIME:
            return
        state = current()
        unfinished = self._folder / f".{RESUME_FOLDER}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        save_file(
            {name: tensor.contiguous() for name, tensor in state.tensors.items()}, unfinished / "state.safetensors"
        )
        digest = _digest(unfinished / "state.safetensors")
        numbers = {"identity": self._identity, "tensors": digest, "kept": self._kept(), "numbers": state.numbers}
        (unfinished / "state.json").write_text(json.dumps(numbers))
        _replace(unfinished, self._folder / RESUME_FOLDER)
        self._written = time.monotonic()
        self._cost = self._written - begin

    def load(self) -> State | None:
        """The last intact state of this specification whose saved adapters are intact too; None if there is none."""
        for folder in (self._folder / RESUME_FOLDER, self._folder / f".{RESUME_FOLDER}.old"):
            try:
                content = json.loads(read_plain(folder / "state.json"))
                kept = content["kept"].items() <= self._kept().items()  # later adapters will be written again
                whole = content["tensors"] == _digest(folder / "state.safetensors") and kept
                if content["identity"] == self._identity and whole:
                    print(f"resumes from the checkpoint in {folder}", flush=True)
                    return State(load_file(folder / "state.safetensors"), content["numbers"])
            except (OSError, SafetensorError, *MALFORMED):
                continue
        return None

    def _kept(self) -> dict[str, str]:
        """Digests of the adapters that the arm has saved so far: after a resume they are not written again."""
        files = sorted(self._folder.glob("adapters/*/*"))
        return {str(path.relative_to(self._folder)): _digest(path) for path in files}

    def remove(self) -> None:
        """Remove all checkpoints: the arm has finished."""
        for path in self._folder.glob(f"*{RESUME_FOLDER}*"):
            shutil.rmtree(path, ignore_errors=True)


def _replace(new: Path, place: Path) -> None:
    """Replace a folder. This takes two steps; after a kill between them the old one still exists under another name."""
    old = place.with_name(f".{place.name}.old")
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str:
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def training_tensors(modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Trainable parameters of each module, and the optimizer's state of each parameter."""
    tensors = {
        f"{prefix}/{name}": parameter.detach()
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
    return tensors


def load_training_tensors(
    tensors: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Load what `training_tensors` returned."""
    with torch.no_grad():
        for prefix, module in modules.items():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"{prefix}/{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
