"""What an arm needs to go on exactly where it was killed: one folder, replaced as a whole, of tensors and numbers.

Everything random in an arm is derived from its seed and the number of the update, so there is no generator to save.
Tensors are safetensors and numbers JSON: nothing is unpickled.
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

MAX_SHARE_OF_TIME = 0.05  # a checkpoint is written as soon as that costs no larger share of the time since the last one


@dataclass(frozen=True)
class State:
    """After some update."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]  # JSON values


class Checkpoints:
    """Writes an arm's state now and then, so that little is lost and little time is spent."""

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
        """The last state that is whole, as are the adapters kept by then, and is of this specification, or None."""
        for folder in (self._folder / RESUME_FOLDER, self._folder / f".{RESUME_FOLDER}.old"):
            try:
                content = json.loads(read_plain(folder / "state.json"))
                kept = content["kept"].items() <= self._kept().items()  # later ones will be written again
                whole = content["tensors"] == _digest(folder / "state.safetensors") and kept
                if content["identity"] == self._identity and whole:
                    print(f"goes on from the checkpoint in {folder}", flush=True)
                    return State(load_file(folder / "state.safetensors"), content["numbers"])
            except (OSError, SafetensorError, *MALFORMED):
                continue
        return None

    def _kept(self) -> dict[str, str]:
        """Digests of the adapters that the arm has kept so far: going on, it does not write them again."""
        files = sorted(self._folder.glob("adapters/*/*"))
        return {str(path.relative_to(self._folder)): _digest(path) for path in files}

    def remove(self) -> None:
        """The arm has finished."""
        for path in self._folder.glob(f"*{RESUME_FOLDER}*"):
            shutil.rmtree(path, ignore_errors=True)


def _replace(new: Path, place: Path) -> None:
    """A folder cannot be replaced in one step; killed in between, the old one is still there under another name."""
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
    """Put back what `training_tensors` gave."""
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
