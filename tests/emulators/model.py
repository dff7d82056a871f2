"""An OpenAI-compatible model server on loopback that answers, stalls and fails on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from aiohttp import web

from bot.domain import Json

How = Literal["status", "refuse", "hang", "cut", "eof", "garbage", "error_event"]

# Longer than any test waits: "for ever", with an end.
_FOREVER = 300.0  # seconds


@dataclass(slots=True)
class Asked:
    """One request as it came in; `at`, and when it was answered, are in seconds since the epoch."""

    messages: list[dict[str, str]]
    body: dict[str, Json]
    headers: Mapping[str, str]
    at: float
    hung_up: bool = False
    finished: bool = False
    first_delta_at: float | None = None
    last_delta_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    how: How
    at_delta: int | None
    status: int
    body: str | None
    headers: Mapping[str, str]


def echo(messages: list[dict[str, str]]) -> str:
    """Answer with the last thing that a user said."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    return f"You said: {said[-1] if said else ''}"


class ModelEmulator:
    """Streams chat completions on 127.0.0.1 while its `async with` block lasts.

    All attributes may be changed between requests. `answer` is what it says, or a function of the
    messages; it travels in deltas of `chunk` characters, `first_delay` seconds after the headers
    and then `delay` seconds apart. `usage` adds the chunk with token counts, whose choices are
    empty; `finish_reason` and the line `done` end a stream. `running` counts the streams open right
    now and `connections` the sockets that brought a request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answer: str | Callable[[list[dict[str, str]]], str] = echo
        self.delay = 0.0
        self.first_delay = 0.0
        self.chunk = 8
        self.usage = False
        self.finish_reason: str | None = "stop"
        self.done = "data: [DONE]"
        self.requests: list[Asked] = []
        self.running = 0
        self.most_running = 0
        self._failures: deque[_Failure] = deque()
        self._peers: set[tuple[str, int]] = set()
        self._runner: web.AppRunner | None = None

    @property
    def connections(self) -> int:
        return len(self._peers)

    def fail(
        self,
        *,
        status: int | None = None,
        body: str | Mapping[str, Json] | None = None,
        headers: Mapping[str, str] | None = None,
        at_delta: int | None = None,
        how: How = "status",
        times: int = 1,
    ) -> None:
        """Let the next `times` requests fail: before headers, or after `at_delta` deltas.

        "status" answers `status` (500) with `body`, chunked when `headers` say so; "refuse" and
        "cut" reset the connection; "hang" says nothing more; "eof" ends the body in good order but
        too early; "garbage" and "error_event" put `body` into a line of the stream.
        """
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        failure = _Failure(how, at_delta, status or 500, text, headers or {})
        self._failures.extend([failure] * times)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/v1/chat/completions", self._completions)
        # Without it a handler does not learn that its client has left.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = Asked(body["messages"], body, request.headers.copy(), time.time())
        self.requests.append(asked)
        self._peers.add(_peer(request))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._respond(request, asked)
        except (asyncio.CancelledError, ConnectionError):
            asked.hung_up = True
            raise
        finally:
            self.running -= 1

    async def _respond(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        failure = self._failures.popleft() if self._failures else None
        if failure is not None and failure.at_delta is None:
            return await self._fail_at_once(request, failure)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self._say(response, _chunk({"role": "assistant", "content": None}))
        await asyncio.sleep(self.first_delay)
        for number, piece in enumerate(self._pieces(asked.messages)):
            if failure is not None and number == failure.at_delta:
                return await self._fail_within(request, response, failure)
            if number:
                await asyncio.sleep(self.delay)
            await self._say(response, _chunk({"content": piece}))
            asked.last_delta_at = time.time()
            asked.first_delta_at = asked.first_delta_at or asked.last_delta_at
        if failure is not None:
            return await self._fail_within(request, response, failure)
        await self._end(response)
        asked.finished = True
        return response

    async def _end(self, response: web.StreamResponse) -> None:
        await self._say(response, _chunk({}, finish_reason=self.finish_reason))
        if self.usage:
            counts: Json = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            await self._say(response, {"choices": [], "usage": counts})
        await response.write(f"{self.done}\n\n".encode())
        await response.write_eof()

    async def _fail_at_once(self, request: web.Request, failure: _Failure) -> web.StreamResponse:
        match failure.how:
            case "status":
                return _refusal(failure)
            case "refuse" | "cut":
                _reset(request)
                return web.Response()
            case "hang":
                await asyncio.sleep(_FOREVER)
                return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        return await self._fail_within(request, response, failure)

    async def _fail_within(
        self, request: web.Request, response: web.StreamResponse, failure: _Failure
    ) -> web.StreamResponse:
        match failure.how:
            case "hang":
                await asyncio.sleep(_FOREVER)
            case "garbage":
                garbage = failure.body or '{"choices": ['
                await response.write(f"data: {garbage}\n\n".encode())
            case "error_event" | "status":
                error = failure.body or json.dumps(_error(failure.status))
                await response.write(f"data: {error}\n\n".encode())
            case "refuse" | "cut":
                _reset(request)
        return response

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        text = self.answer if isinstance(self.answer, str) else self.answer(messages)
        return (text[start : start + self.chunk] for start in range(0, len(text), self.chunk))

    async def _say(self, response: web.StreamResponse, chunk: Mapping[str, Json]) -> None:
        common: dict[str, Json] = {
            "id": "chatcmpl-emulated",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "emulated",
        }
        # Text stays as it is, as llama.cpp sends it: U+2028 is not escaped.
        line = json.dumps({**common, **chunk}, ensure_ascii=False)
        await response.write(f"data: {line}\n\n".encode())


def _chunk(delta: Mapping[str, Json], *, finish_reason: str | None = None) -> dict[str, Json]:
    choice: Json = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
    return {"choices": [choice]}


def _error(status: int) -> dict[str, Json]:
    return {"error": {"message": f"emulated failure {status}", "type": "emulated", "code": status}}


def _refusal(failure: _Failure) -> web.Response:
    headers = dict(failure.headers)
    chunked = headers.pop("Transfer-Encoding", "") == "chunked"
    text = failure.body if failure.body is not None else json.dumps(_error(failure.status))
    headers.setdefault("Content-Type", "application/json")
    response = web.Response(status=failure.status, body=text.encode(), headers=headers)
    if chunked:
        response.enable_chunked_encoding()
    return response


def _peer(request: web.Request) -> tuple[str, int]:
    assert request.transport is not None
    host, port = request.transport.get_extra_info("peername")[:2]
    return str(host), int(port)


def _reset(request: web.Request) -> None:
    """Drop the connection with a TCP reset, and nothing that is still to be sent."""
    if request.transport is None:
        return
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
