"""Answers of a chat endpoint, and their cache: every paid answer is saved at once and never asked for again.

Each answer is one small file, written atomically under the hash of the whole request. So the cache is safe when a job
is killed, when two sweeps run at once, and on a shared file system.
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

MOST_TOKENS = 10_000_000  # of one request: more than any model reads or writes


@dataclass(frozen=True)
class ChatAnswer:
    """One answer of an endpoint."""

    content: str | None
    refusal: str | None
    finish_reason: str | None
    model: str | None  # the server's name of the model that answered
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ChatAnswer:
        """The answer in a file's content.

        Raises:
            TypeError: a key is missing or unknown, or a value has the wrong type.
        """
        answer = cls(**content)
        texts = (answer.content, answer.refusal, answer.finish_reason, answer.model)
        counts = (answer.prompt_tokens, answer.completion_tokens)
        if not all(text is None or isinstance(text, str) for text in texts) or not all(map(is_count, counts)):
            raise TypeError("no answer")
        return answer


def is_count(value: object) -> bool:
    """Whether a value is a possible number of tokens of a request."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


class AnswerCache:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> ChatAnswer | None:
        """The answer saved under `key`; None if there is no file or it cannot be read."""
        try:
            return ChatAnswer.of(read_object(self._path(key)))
        except (OSError, *MALFORMED):
            return None

    def put(self, key: str, answer: ChatAnswer) -> None:
        """Save an answer."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        temporary.write_text(json.dumps(asdict(answer)), encoding="utf-8")
        temporary.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def cache_key(base_url: str, body: Mapping[str, Any]) -> str:
    """SHA-256 of the address and the request: model, both texts, template and decoding settings."""
    return hashlib.sha256(json.dumps([base_url, body], sort_keys=True).encode()).hexdigest()
