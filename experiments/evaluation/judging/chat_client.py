"""Send one request to an OpenAI-compatible chat endpoint, retry it if that can help, and distrust the answer."""

from __future__ import annotations

import asyncio
import json
import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import numpy as np

from experiments.errors import InputError
from experiments.evaluation.judging.answers import ChatAnswer, is_count
from experiments.evaluation.judging.budget import Budget
from experiments.foreign import MALFORMED, clean
from experiments.judge_spec import EndpointJudge

FIRST_WAIT_SECONDS = 0.5
TRANSIENT = {408, 425, 429, 500, 502, 503, 504, 529}  # statuses after which a retry may succeed
PERMANENT = {401, 402, 403, 404, 405}  # the key, the account or the address is wrong: no request will succeed
MAX_REASON = 300  # characters
MAX_BYTES = 2**20  # of an answer, both as sent and decoded: a verdict is one word
TOKENS_AROUND_MESSAGE = 32
PER_MILLION = 1e-6


class FailedRequestError(RuntimeError):
    """A request failed. The message says why, without the key."""


class TransientError(RuntimeError):
    """An attempt failed for a reason that may be temporary.

    Attributes:
        wait_seconds: how long the server asks to wait, or None.
        may_be_billed: whether the server may have done the work nevertheless.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None, may_be_billed: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds, self.may_be_billed = wait_seconds, may_be_billed


@dataclass(frozen=True)
class Reply:
    """An HTTP response, read up to the size limit."""

    status: int
    retry_after: str | None
    is_redirect: bool
    content: bytes | None  # decoded; None if it is longer than MAX_BYTES or cannot be decoded


class ChatClient:
    """Asks one endpoint. The key is only in the client's headers, and removed from every text that is returned."""

    def __init__(self, judge: EndpointJudge, key: str | None, budget: Budget, rng: np.random.Generator) -> None:
        self._judge, self._key, self._budget, self._rng = judge, key, budget, rng
        self._http = httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=judge.timeout_seconds,
            limits=httpx2.Limits(max_connections=judge.concurrency),
            follow_redirects=False,  # the key must go to no address but the given one
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, body: Mapping[str, Any]) -> ChatAnswer:
        """Send a request until it is answered.

        Raises:
            FailedRequestError: it was refused, or failed in every attempt.
            CapReachedError: another attempt might exceed the cap.
            InputError: no request to this endpoint can succeed.
        """
        for attempt in range(1, self._judge.max_attempts + 1):
            try:
                return await self._attempt(body)
            except TransientError as error:
                wait = self._wait(attempt, error)
                if attempt == self._judge.max_attempts or wait > self._judge.max_wait_seconds:
                    raise FailedRequestError(f"{error}, attempt {attempt}") from None
                await asyncio.sleep(wait)
        raise AssertionError("max_attempts is at least 1")

    def cost(self, answer: ChatAnswer) -> float:
        """What an answer costs, in the judge's currency."""
        judge = self._judge
        return PER_MILLION * (
            answer.prompt_tokens * judge.prompt_price + answer.completion_tokens * judge.completion_price
        )

    async def _attempt(self, body: Mapping[str, Any]) -> ChatAnswer:
        """Make one attempt: reserve its highest possible price, then count its real one."""
        ceiling = self._ceiling(body)
        await self._budget.reserve(ceiling)
        cost = 0.0
        try:
            answer = self._read(await self._send(body), body)
            cost = self.cost(answer)
            return answer
        except TransientError as error:
            cost = ceiling if error.may_be_billed else 0.0
            raise
        finally:
            await self._budget.settle(ceiling, cost)

    async def _send(self, body: Mapping[str, Any]) -> Reply:
        address = f"{self._judge.base_url}/chat/completions"
        self._http.cookies.clear()  # no answer may change the next request
        try:
            async with (
                asyncio.timeout(self._judge.timeout_seconds),  # for the whole answer, even if it arrives slowly
                self._http.stream("POST", address, json=body) as response,
            ):
                after = response.headers.get("retry-after")
                return Reply(response.status_code, after, response.is_redirect, await _content(response))
        except (TimeoutError, httpx2.TimeoutException):
            raise TransientError(f"no answer in {self._judge.timeout_seconds:g} s", may_be_billed=True) from None
        except httpx2.RequestError as error:
            sent = not isinstance(error, httpx2.ConnectError)
            raise TransientError(f"connection failed ({type(error).__name__})", may_be_billed=sent) from None

    def _read(self, reply: Reply, body: Mapping[str, Any]) -> ChatAnswer:
        if reply.status in TRANSIENT:
            raise TransientError(f"HTTP {reply.status}", retry_after(reply.retry_after, time.time()))
        reason = f"HTTP {reply.status}: {self._said(reply.content)}"
        if reply.status in PERMANENT or reply.is_redirect:
            raise InputError(f"judge.endpoint: {self._judge.base_url} answers {reason}")
        if reply.status != httpx2.codes.OK:
            raise FailedRequestError(reason)
        if reply.content is None:
            reason = f"an answer of more than {MAX_BYTES:,} bytes, or one that cannot be decoded"
            raise TransientError(reason, may_be_billed=True)
        try:
            return self._answer(json.loads(reply.content), body)
        except MALFORMED as error:
            reason = f"an answer that is no chat completion ({type(error).__name__})"
            raise TransientError(reason, may_be_billed=True) from None

    def _answer(self, content: Any, body: Mapping[str, Any]) -> ChatAnswer:
        choice, usage = content["choices"][0], content.get("usage") or {}
        message = choice["message"]
        return ChatAnswer(
            content=self._text(message["content"]),
            refusal=self._text(message.get("refusal")),
            finish_reason=self._name(choice.get("finish_reason")),
            model=self._name(content.get("model")),
            prompt_tokens=_tokens(usage.get("prompt_tokens"), _most_tokens(body)),
            completion_tokens=_tokens(usage.get("completion_tokens"), self._judge.max_tokens),
        )

    def _said(self, content: bytes | None) -> str:
        """The start of the server's error text, for people."""
        if content is None:
            return "its text cannot be read"
        return clean(self._without_key(content.decode("utf-8", "replace")), MAX_REASON)

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise TypeError(type(value).__name__)
        return self._without_key(value.encode("utf-8", "replace").decode())  # JSON can hold half of a surrogate pair

    def _name(self, value: Any) -> str | None:
        """A text for files and tables: one line of limited length."""
        text = self._text(value)
        return None if text is None else clean(text, MAX_REASON)

    def _without_key(self, text: str) -> str:
        """The text without the key, which a server may repeat in its answer."""
        return text.replace(self._key, "[key]") if self._key else text

    def _ceiling(self, body: Mapping[str, Any]) -> float:
        """The highest possible cost of an attempt."""
        judge = self._judge
        return PER_MILLION * (_most_tokens(body) * judge.prompt_price + judge.max_tokens * judge.completion_price)

    def _wait(self, attempt: int, error: TransientError) -> float:
        """Seconds to wait: as long as the server asks, or twice as long each time; with jitter, to spread requests."""
        doubled: float = min(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), self._judge.max_wait_seconds)
        jitter = float(self._rng.uniform(0.5, 1.0))
        if error.wait_seconds is None:
            return doubled * jitter
        return error.wait_seconds + min(doubled * jitter, max(0.0, self._judge.max_wait_seconds - error.wait_seconds))


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which holds a number or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except MALFORMED:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


async def _content(response: httpx2.Response) -> bytes | None:
    """The decoded body, or None. Decoded here, because a small compressed body may expand to any size."""
    raw = bytearray()
    async for piece in response.aiter_raw():
        raw += piece
        if len(raw) > MAX_BYTES:
            return None
    return _decoded(bytes(raw), response.headers.get("content-encoding", "identity").strip().lower())


def _decoded(raw: bytes, encoding: str) -> bytes | None:
    """Decode a body. We ask for `identity`, but a server may compress nevertheless; one usual encoding is accepted."""
    if encoding in {"", "identity"}:
        return raw
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        return None
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: detect gzip or zlib by the header
    try:
        content = unpacker.decompress(raw, MAX_BYTES + 1)
    except zlib.error:
        return None
    return content if unpacker.eof and len(content) <= MAX_BYTES else None


def _tokens(count: Any, most: int) -> int:
    """The server's count of tokens, or `most` if it gives none or an impossible one.

    Raises:
        TypeError: it is no integer.
    """
    if count is None:
        return most
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(type(count).__name__)
    return count if is_count(count) else most


def _most_tokens(body: Mapping[str, Any]) -> int:
    """Upper limit of a chat's tokens: a text has at most one token per byte, plus a few around each message."""
    return sum(len(message["content"].encode()) + TOKENS_AROUND_MESSAGE for message in body["messages"])
