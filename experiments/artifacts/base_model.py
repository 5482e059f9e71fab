"""The base model that comes in a package, converted once for all sweeps that share a cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.inputs.models import prepare_model
from experiments.records import Recorder
from experiments.spec import BaseModelJobSpec


def build(spec: BaseModelJobSpec, _: Mapping[str, Path], __: Path, cache_dir: Path, recorder: Recorder) -> None:
    """Convert the model before any job loads it.

    The job's own folder stays empty: jobs find a converted model in the cache by its hash. A job that finds none, or a
    damaged one, converts it again.
    """
    recorder.progress("convert the base model", 0, 1, "model")
    prepare_model(spec.model, cache_dir)
    recorder.progress("convert the base model", 1, 1, "model")
