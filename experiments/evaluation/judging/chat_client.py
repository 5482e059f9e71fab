"""One request to an OpenAI-compatible chat endpoint: sent, repeated where that can help, read with suspicion."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import numpy as np

from experiments.errors import InputError
from experiments.evaluation.judging.answers import Answer
from experiments.evaluation.judging.budget import Budget
from experiments.judge_spec import EndpointJudge

FIRST_WAIT_SECONDS = 0.5
PASSING = {408, 425, 429, 500, 502, 503, 504, 529}  # statuses that another attempt may not meet
HOPELESS = {401, 402, 403, 404, 405}  # the key, the account or the address is wrong: no request will succeed
MAX_REASON = 300
TOKENS_AROUND_MESSAGE = 32
PER_MILLION = 1e-6


class FailedRequestError(RuntimeError):
    """A request that came to nothing. The message says why, without the key."""


class PassingError(RuntimeError):
    """An attempt that failed in a way that may pass.

    Attributes:
        wait_seconds: how long the server asks to wait, or None.
        may_be_billed: whether the server may have done the work all the same.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None, may_be_billed: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds, self.may_be_billed = wait_seconds, may_be_billed


class ChatClient:
    """Asks one endpoint. The key is in the client's headers and nowhere else; no text that leaves here holds it."""

    def __init__(self, judge: EndpointJudge, key: str | None, budget: Budget, rng: np.random.Generator) -> None:
        self._judge, self._key, self._budget, self._rng = judge, key, budget, rng
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=judge.timeout_seconds,
            limits=httpx2.Limits(max_connections=judge.concurrency),
            follow_redirects=False,  # the key goes to the address that was given, and to no other
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send a request until it is answered.

        Raises:
            FailedRequestError: it was refused, or failed in every attempt.
            CapReachedError: another attempt might exceed the cap.
            InputError: no request to this endpoint can succeed.
        """
        for attempt in range(1, self._judge.max_attempts + 1):
            try:
                return await self._attempt(body)
            except PassingError as error:
                wait = self._wait(attempt, error)
                if attempt == self._judge.max_attempts or wait > self._judge.max_wait_seconds:
                    raise FailedRequestError(f"{error}, attempt {attempt}") from None
                await asyncio.sleep(wait)
        raise AssertionError("max_attempts is at least 1")

    def cost(self, answer: Answer) -> float:
        """What an answer costs, in the judge's currency."""
        judge = self._judge
        return PER_MILLION * (
            answer.prompt_tokens * judge.prompt_price + answer.completion_tokens * judge.completion_price
        )

    async def _attempt(self, body: Mapping[str, Any]) -> Answer:
        """One attempt, reserved at the highest price and then counted at its own."""
        ceiling = self._ceiling(body)
        await self._budget.reserve(ceiling)
        cost = 0.0
        try:
            answer = self._read(await self._send(body), body)
            cost = self.cost(answer)
            return answer
        except PassingError as error:
            cost = ceiling if error.may_be_billed else 0.0
            raise
        finally:
            await self._budget.settle(ceiling, cost)

    async def _send(self, body: Mapping[str, Any]) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._judge.timeout_seconds):
                return await self._http.post(f"{self._judge.base_url}/chat/completions", json=body)
        except (TimeoutError, httpx2.TimeoutException):
            raise PassingError(f"no answer in {self._judge.timeout_seconds:g} s", may_be_billed=True) from None
        except httpx2.TransportError as error:
            raise PassingError(f"connection failed ({type(error).__name__})") from None

    def _read(self, response: httpx2.Response, body: Mapping[str, Any]) -> Answer:
        status = response.status_code
        if status in PASSING:
            raise PassingError(f"HTTP {status}", retry_after(response.headers.get("retry-after"), time.time()))
        reason = f"HTTP {status}: {self._without_key(response.text)[:MAX_REASON]}"
        if status in HOPELESS or response.is_redirect:
            raise InputError(f"judge.endpoint: {self._judge.base_url} answers {reason}")
        if status != httpx2.codes.OK:
            raise FailedRequestError(reason)
        try:
            return self._answer(response.json(), body)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            reason = f"an answer that is no chat completion ({type(error).__name__})"
            raise PassingError(reason, may_be_billed=True) from None

    def _answer(self, content: Any, body: Mapping[str, Any]) -> Answer:
        choice, usage = content["choices"][0], content.get("usage") or {}
        message = choice["message"]
        return Answer(
            content=self._text(message["content"]),
            refusal=self._text(message.get("refusal")),
            finish_reason=self._text(choice.get("finish_reason")),
            model=self._text(content.get("model")),
            prompt_tokens=max(0, int(usage.get("prompt_tokens", _most_tokens(body)))),
            completion_tokens=max(0, int(usage.get("completion_tokens", self._judge.max_tokens))),
        )

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise TypeError(type(value).__name__)
        return self._without_key(value)

    def _without_key(self, text: str) -> str:
        """A server may repeat the key in what it says."""
        return text.replace(self._key, "[key]") if self._key else text

    def _ceiling(self, body: Mapping[str, Any]) -> float:
        """The most that an attempt can cost."""
        judge = self._judge
        return PER_MILLION * (_most_tokens(body) * judge.prompt_price + judge.max_tokens * judge.completion_price)

    def _wait(self, attempt: int, error: PassingError) -> float:
        """Seconds: what the server asks for, or twice as long each time; with jitter, so that not all come at once."""
        doubled: float = min(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), self._judge.max_wait_seconds)
        jitter = float(self._rng.uniform(0.5, 1.0))
        if error.wait_seconds is None:
            return doubled * jitter
        return error.wait_seconds + min(doubled * jitter, max(0.0, self._judge.max_wait_seconds - error.wait_seconds))


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _most_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a chat at most: no tokenizer makes more of a text than it has bytes, and a few stand around it."""
    return sum(len(message["content"].encode()) + TOKENS_AROUND_MESSAGE for message in body["messages"])
