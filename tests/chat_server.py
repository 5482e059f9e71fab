"""A server on this machine that speaks the chat-completions protocol, and judges by a function that a test gives."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK = re.compile(r"\[BEGIN (TEXT|A|B) ([0-9a-f]{16})\]\n(.*?)\n\[END \1 \2\]", re.DOTALL)


@dataclass
class Reply:
    """What the server sends back; by default a verdict."""

    content: Any = "tie"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: str | bytes | None = None  # the whole body, in place of a completion
    refusal: str | None = None
    finish_reason: str | None = "stop"
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 1})
    delay: float = 0.0
    drips: bool = False  # one byte after the other, for as long as anybody listens

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw.encode() if isinstance(self.raw, str) else self.raw
        message = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return json.dumps({"model": "judge-2026-11", "choices": [choice], "usage": self.usage}).encode()


@dataclass
class Asked:
    """A request as it came in."""

    body: dict[str, Any]
    path: str
    headers: dict[str, str]
    at: float

    @property
    def blocks(self) -> dict[str, str]:
        """TEXT, A and B as they stand between the fences."""
        return {name: text for name, _, text in BLOCK.findall(self.body["messages"][-1]["content"])}

    @property
    def outside(self) -> str:
        """Everything that is no material: what a judge may take for its instructions."""
        return BLOCK.sub("", self.body["messages"][-1]["content"])


def longer(asked: Asked) -> Reply:
    """Prefers the longer response, whichever comes first."""
    a, b = len(asked.blocks["A"]), len(asked.blocks["B"])
    return Reply("A" if a > b else "B" if b > a else "tie")


class ChatServer:
    """Keeps every request. `judge` may be replaced while it runs."""

    def __init__(self) -> None:
        self.judge: Callable[[Asked], Reply] = longer
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[ChatServer]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                outer._answer(self, Asked(body, self.path, dict(self.headers), time.monotonic()))

            def log_message(self, *_: Any) -> None:
                """Tests print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        reply = self.judge(asked)
        time.sleep(reply.delay)
        with self._lock:
            self._at_once -= 1
        content = reply.body()
        length = {"Transfer-Encoding": "chunked"} if reply.drips else {"Content-Length": str(len(content))}
        try:
            handler.send_response(reply.status)
            for name, value in {**length, **reply.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            while reply.drips:
                handler.wfile.write(b"1\r\n \r\n")
                time.sleep(0.05)
            handler.wfile.write(content)
        except OSError:
            handler.close_connection = True  # the client did not wait
