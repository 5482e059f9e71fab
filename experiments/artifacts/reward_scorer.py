"""Score responses with the trained reward model: an adapter beside the policy's on one base. Imports no trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from experiments.inputs.lora import lora_config
from experiments.inputs.models import REWARD, adapter, decoder_of, device, precision, takes_any_mask
from experiments.model_spec import Model
from experiments.sampling.batch import PAD_ID, Batch, is_end, make_batches, tokens_per_pass


@dataclass(frozen=True)
class RewardScorer:
    """The trained reward model as an adapter on a policy's base. Scores are in standard deviations of base samples."""

    model: PeftModel
    weight: Tensor  # [H], of the scalar head, in normalised units
    bias: Tensor  # scalar
    eos_ids: Tensor  # [E]

    @classmethod
    def attach(cls, policy: PeftModel, spec: Model, folder: Path, eos_ids: Sequence[int]) -> RewardScorer:
        """Add the adapter in `folder` to `policy` under the name "reward"."""
        policy.add_adapter(REWARD, lora_config(spec.lora))
        state = load_file(folder / "adapter" / "adapter_model.safetensors")
        set_peft_model_state_dict(policy, {k: v for k, v in state.items() if "lora_" in k}, adapter_name=REWARD)
        with adapter(policy, REWARD):
            policy.to(device())
        scale = json.loads((folder / "scale.json").read_text())
        weight = load_file(folder / "head.safetensors")["weight"][0].to(device(), precision(policy.dtype))
        bias = torch.tensor(-scale["mean"] / scale["standard_deviation"], dtype=weight.dtype, device=device())
        return cls(policy, weight / scale["standard_deviation"], bias, torch.tensor(list(eos_ids), device=device()))

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """Last hidden states [B, T + 1, H] in the head's precision; index t is the state *before* response token t."""
        with adapter(self.model, REWARD):
            return batch.hidden_states(decoder_of(self.model))[batch.states].to(self.weight.dtype)

    def prefix_scores(self, batch: Batch, features_BTH: Tensor, texts: Sequence[str] = ()) -> Tensor:
        """Scores [B, T + 1] of each prefix: index t scores the first t response tokens (none: 0, the base's mean).

        `texts` are for rewards that read texts; this one reads tokens.

        An end-of-sequence token is not text: the prefix that ends with it has the score of the prefix before it.
        """
        is_text_BT = batch.response_mask * ~is_end(batch.response_ids, self.eos_ids)
        token_scores_BT = (features_BTH[:, 1:] @ self.weight) * is_text_BT
        count_BT = is_text_BT.cumsum(dim=1)
        raw_BT = token_scores_BT.cumsum(dim=1) / count_BT.clamp_min(1)
        scores_BT = torch.where(count_BT > 0, raw_BT + self.bias, 0.0)
        return torch.cat([torch.zeros_like(scores_BT[:, :1]), scores_BT], dim=1)

    def score_all(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], texts: Sequence[str] = ()
    ) -> list[float]:
        """One score per response; `texts` as in `prefix_scores`."""
        scores = [0.0] * len(response_ids)
        device, packed = self.model.device, takes_any_mask(self.model)
        batches = make_batches(prompt_ids, response_ids, tokens_per_pass(device), PAD_ID, device, packed=packed)
        for rows, batch in batches:
            for row, score in zip(rows, self.prefix_scores(batch, self.features(batch))[:, -1].tolist(), strict=True):
                scores[row] = score
        return scores
