"""Answers of a chat endpoint, and their cache: what was paid for is on disk at once and is never asked again.

One small file an answer, written atomically under the hash of everything that was asked, so that a killed job, a
second sweep and a shared file system are all safe.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.foreign import MALFORMED, read_object

MOST_TOKENS = 10_000_000  # of one request: no model reads or writes as many


@dataclass(frozen=True)
class ChatAnswer:
    """What an endpoint said."""

    content: str | None
    refusal: str | None
    finish_reason: str | None
    model: str | None  # as the server names what answered
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ChatAnswer:
        """The answer that a file holds.

        Raises:
            TypeError: a key is missing or unknown, or a value is of another type than here.
        """
        answer = cls(**content)
        texts = (answer.content, answer.refusal, answer.finish_reason, answer.model)
        counts = (answer.prompt_tokens, answer.completion_tokens)
        if not all(text is None or isinstance(text, str) for text in texts) or not all(map(is_count, counts)):
            raise TypeError("no answer")
        return answer


def is_count(value: object) -> bool:
    """Whether a request can have had so many tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


class AnswerCache:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> ChatAnswer | None:
        """The answer kept under `key`; a file that cannot be read counts as none."""
        try:
            return ChatAnswer.of(read_object(self._path(key)))
        except (OSError, *MALFORMED):
            return None

    def put(self, key: str, answer: ChatAnswer) -> None:
        """Keep an answer."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        temporary.write_text(json.dumps(asdict(answer)), encoding="utf-8")
        temporary.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def cache_key(base_url: str, body: Mapping[str, Any]) -> str:
    """SHA-256 of who is asked what: the address, and the request with model, both texts, template and decoding."""
    return hashlib.sha256(json.dumps([base_url, body], sort_keys=True).encode()).hexdigest()
