"""A sentence encoder: it maps texts to vectors whose cosine measures similarity of meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from experiments.errors import InputError
from experiments.inputs import planned
from experiments.inputs.fingerprint import EMBEDDER
from experiments.inputs.model_files import local_folder
from experiments.inputs.models import device, num_positions

MAX_TOKENS = 512  # of a text, if neither tokenizer nor model sets a lower limit; the rest is cut off


@dataclass(frozen=True)
class SentenceEncoder:
    """Mean-pooled last hidden states (Reimers & Gurevych 2019, arXiv:1908.10084), scaled to length 1."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, path: str) -> SentenceEncoder:
        """Load from a folder or a hub id (``hub_id@commit``), only from safetensors and without the model's own code.

        Raises:
            InputError: it cannot be loaded in this way.
        """
        folder = local_folder(path, EMBEDDER)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{EMBEDDER}={path}: it cannot be loaded: {error}") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return cls(model.eval().to(device()), tokenizer)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], rows_per_batch: int) -> NDArray[np.float16]:
        """One row of length 1 for each text, `[N, D]`; zeros if a text has no token."""
        batches = [texts[start : start + rows_per_batch] for start in range(0, len(texts), rows_per_batch)]
        vectors = np.concatenate([self._embed(list(batch)) for batch in batches])
        planned.compare("embedder")
        return vectors

    def _embed(self, texts: list[str]) -> NDArray[np.float16]:
        positions = num_positions(self.model.config) or MAX_TOKENS
        limit = min(MAX_TOKENS, self.tokenizer.model_max_length, positions)
        padded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=limit, padding_side="right", return_tensors="pt"
        ).to(self.model.device)
        if padded["input_ids"].shape[1] == 0:
            return np.zeros((len(texts), self.model.config.hidden_size), np.float16)
        mask_BT1 = padded["attention_mask"].unsqueeze(-1)
        hidden_BTD = self.model(
            input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]
        ).last_hidden_state
        mean_BD = (hidden_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1)
        unit: NDArray[np.float16] = torch.nn.functional.normalize(mean_BD, dim=1).cpu().numpy().astype(np.float16)
        return unit
