from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.evaluation.judging.endpoint import judge_pairs
from experiments.evaluation.judging.judgement import Judgement
from experiments.evaluation.judging.pairs import Pair
from experiments.judge_spec import EndpointJudge


@pytest.fixture
def make_pairs() -> Callable[..., list[Pair]]:
    """`count` pairs; ours is the longer where the number is even."""

    def make(count: int = 4, ours: str | None = None) -> list[Pair]:
        return [
            Pair("ppo", "base", 0, f"p{i}", 0, f"The film {i}", ours or f"w{i} " * (2 + i % 2 * -1), f"x{i} xx")
            for i in range(count)
        ]

    return make


@pytest.fixture
def endpoint_judge(chat_server: Any) -> Callable[..., EndpointJudge]:
    def make(**changes: Any) -> EndpointJudge:
        settings = {
            "base_url": chat_server.url,
            "model": "judge",
            "api_key_variable": None,
            "base_model": None,
            "criterion": "the longer is better",
            "max_samples_per_prompt": 1,
            "max_tokens": 4,
            "max_requests": 1000,
            "max_cost": 1.0,
            "currency": "EUR",
            "prompt_price": 1.0,
            "completion_price": 4.0,
            "concurrency": 1,
            "timeout_seconds": 10.0,
            "max_attempts": 3,
            "max_wait_seconds": 0.02,
            "max_failed_requests": 0,
        }
        return EndpointJudge.model_validate(settings | changes)

    return make


@pytest.fixture
def judged(endpoint_judge: Callable[..., EndpointJudge], tmp_path: Path, recorder: Any) -> Callable[..., Judgement]:
    """Judge pairs by the running server; keywords change the judge's settings."""

    def judge(pairs: list[Pair], **changes: Any) -> Judgement:
        return judge_pairs(endpoint_judge(**changes), pairs, tmp_path / "cache", recorder)

    return judge
