"""Answers of a chat endpoint, and their cache: what was paid for is on disk at once and is never asked again.

One small file an answer, written atomically under the hash of everything that was asked, so that a killed job, a
second sweep and a shared file system are all safe.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What an endpoint said."""

    content: str | None
    refusal: str | None
    finish_reason: str | None
    model: str | None  # as the server names what answered
    prompt_tokens: int
    completion_tokens: int


class AnswerCache:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Answer | None:
        """The answer kept under `key`; a file that cannot be read counts as none."""
        try:
            return Answer(**json.loads(self._path(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(answer)), encoding="utf-8")
        temporary.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def cache_key(base_url: str, body: Mapping[str, Any]) -> str:
    """SHA-256 of who is asked what: the address, and the request with model, both texts, template and decoding."""
    return hashlib.sha256(json.dumps([base_url, body], sort_keys=True).encode()).hexdigest()
