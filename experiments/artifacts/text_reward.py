"""A reward that reads texts and is trained on nothing: what its job leaves, and the same scores for PPO and evaluation.

PPO's critic needs hidden states. They are the base's own, because this reward has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from experiments.artifacts.ranking import load as load_ranking
from experiments.artifacts.reward_scorer import RewardScorer
from experiments.errors import InputError
from experiments.inputs.models import decoder_of, precision, reference
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.model_spec import Model
from experiments.records import Recorder
from experiments.reward_spec import RewardSettings
from experiments.rewards import REWARDS
from experiments.sampling.batch import Batch
from experiments.spec import RewardModelJobSpec
from experiments.tasks import TASKS

FILE = "text_reward.json"


def build(
    spec: RewardModelJobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Find the scale of the scores on the base's ranking samples.

    Raises:
        InputError: a score is not finite, or all are the same.
    """
    meter, tokens, render = Meter(), Tokens.load(spec.model, cache_dir), TASKS[spec.task].work.render
    texts = [
        render(prompt.prompt, text)
        for prompt in load_ranking(needs["ranking_data"])
        for text in tokens.response_texts([prompt.prompt_ids] * len(prompt.response_ids), prompt.response_ids)
    ]
    scores = _scores(spec.reward_model, texts)
    if np.ptp(scores) == 0:
        raise InputError(f"reward_model.kind={spec.reward_model.kind}: all samples of the base score {scores[0]:g}")
    scale = {"mean": float(scores.mean()), "standard_deviation": float(scores.std())}
    (folder / FILE).write_text(json.dumps({"settings": spec.reward_model.model_dump(mode="json")} | scale))
    recorder.metrics("artifact", {"reward_model/num_texts": len(texts)}, meter.axes())


@dataclass(frozen=True)
class TextReward:
    """As `RewardScorer`. Scores: standard deviations of the base's samples."""

    policy: PeftModel
    settings: RewardSettings
    mean: float
    standard_deviation: float

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """Last hidden states of the base [B, T + 1, H]; index t is the state *before* response token t."""
        with reference(self.policy):
            return batch.hidden_states(decoder_of(self.policy))[batch.states].to(precision(self.policy.dtype))

    def prefix_scores(self, batch: Batch, features_BTH: Tensor, texts: Sequence[str]) -> Tensor:
        """Scores [B, T + 1] of each prefix: 0, the base's mean, until the text is whole."""
        scores_B = torch.tensor(self.score_all([], [], texts), dtype=features_BTH.dtype, device=features_BTH.device)
        place_T = torch.arange(features_BTH.shape[1], device=features_BTH.device)
        return torch.where(place_T >= batch.response_mask.sum(dim=1, keepdim=True), scores_B[:, None], 0.0)

    def score_all(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], texts: Sequence[str]
    ) -> list[float]:
        """One score for each rendered text.

        Raises:
            InputError: a score is not finite.
        """
        return [float(score) for score in (_scores(self.settings, texts) - self.mean) / self.standard_deviation]


def attach(policy: PeftModel, model: Model, folder: Path, eos_ids: Sequence[int]) -> RewardScorer | TextReward:
    """What scores as the job reward_model left it in `folder`, of whatever kind."""
    if not (folder / FILE).exists():
        return RewardScorer.attach(policy, model, folder, eos_ids)
    left = json.loads((folder / FILE).read_text())
    settings = REWARDS[left["settings"]["kind"]].settings.model_validate(left["settings"])
    return TextReward(policy, settings, left["mean"], left["standard_deviation"])


def _scores(settings: RewardSettings, texts: Sequence[str]) -> NDArray[np.float64]:
    score = REWARDS[settings.kind].score
    assert score
    scores = np.array(score(settings, texts), dtype=np.float64)
    if scores.shape != (len(texts),) or not np.isfinite(scores).all():
        raise InputError(
            f"reward_model.kind={settings.kind}: its score must give one finite number for each of {len(texts)} texts"
        )
    return scores
