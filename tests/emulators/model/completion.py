"""One answer on its way to a client, to its end or to where it breaks; how answers travel."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from uuid import uuid4

from aiohttp import web
from multidict import CIMultiDict

from bot.domain import Json
from tests.emulators.faults import Fault
from tests.emulators.model.asked import Asked
from tests.emulators.model.behaviour import Behaviour, Piece
from tests.emulators.model.servers import Dialect, Object
from tests.emulators.timeline import Delta

_GARBAGE = '{"choices": ['


class Completion:
    """What the model says to one request."""

    def __init__(
        self,
        request: web.Request,
        asked: Asked,
        *,
        behaviour: Behaviour,
        dialect: Dialect,
        fault: Fault | None,
        closing: asyncio.Event,
    ) -> None:
        self._request = request
        self._asked = asked
        self._behaviour = behaviour
        self._dialect = dialect
        self._fault = fault
        self._closing = closing
        self._speech = behaviour.speech(asked)
        self._model = behaviour.served().name
        self._stream = Stream(request, asked, model=self._model)

    async def send(self) -> web.StreamResponse:
        """Answer the request; Asked tells how far it came."""
        await asyncio.sleep(self._behaviour.latency / 2)
        await self._stream.open()
        if not await self._say_all():
            return self._stream.response
        await self._end()
        self._asked.finished = True
        return self._stream.response

    async def _say_all(self) -> bool:
        """Send the deltas; False when the fault ended the stream."""
        fault = self._fault
        if fault is not None and fault.at_delta is None:
            await self._break(fault)
            return False
        if self._dialect.opening is not None:
            await self._stream.choose(self._dialect.opening)
        for piece in self._behaviour.thought(self._asked):
            await piece.rest()
            await self._stream.choose({"content": None, self._behaviour.thinks_in: piece.text})
        for piece in self._speech.pieces:
            if fault is not None and len(self._asked.deltas) == fault.at_delta:
                break
            await piece.rest()
            await self._say(piece)
        for delta in self._dialect.calls(self._speech.calls):
            await self._stream.choose(delta)
        if fault is not None:
            await self._break(fault)
        return fault is None

    async def _say(self, piece: Piece) -> None:
        at = time.monotonic()
        await self._stream.choose({**self._dialect.chorus, "content": piece.text})
        self._asked.deltas.append(Delta(at, piece.text))

    async def _break(self, fault: Fault) -> None:
        """Let the stream go wrong."""
        match fault.how:
            case "hang":
                await self._closing.wait()
            case "drop" | "reset":
                cut(self._request, reset=fault.how == "reset")
            case "garbage":
                line = _text(fault, _GARBAGE)
                # A body with a field name of its own is the whole line.
                await self._stream.line(line if line.startswith("data:") else f"data: {line}")
            case "error_event" | "status":
                await self._stream.line(f"data: {_text(fault, self._error(fault))}")

    async def _end(self) -> None:
        said, usual = self._speech.finish_reason, self._behaviour.finish_reason
        reason = said if said == "length" or usual == "stop" else usual
        await self._stream.choose({}, finish_reason=reason)
        options = self._asked.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            await self._stream.say(usage=self._usage())
        await self._stream.line(self._behaviour.done)
        await self._stream.response.write_eof()

    def _usage(self) -> Object:
        prompt, answer = self._behaviour.need(self._asked).prompt, self._speech.tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }

    def _error(self, fault: Fault) -> str:
        status = fault.status
        return json.dumps(self._dialect.event(status, f"emulated failure {status}"))


def _text(fault: Fault, usual: str) -> str:
    """Return what a fault sends: a string as it is, anything else as JSON."""
    body = fault.body
    if body is None:
        return usual
    return body if isinstance(body, str) else json.dumps(body)


class Stream:
    """The body of one answer, sent line by line."""

    def __init__(self, request: web.Request, asked: Asked, *, model: str) -> None:
        self._request = request
        self._asked = asked
        self._head = head("chat.completion.chunk", model)
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

    async def open(self) -> None:
        await self.response.prepare(self._request)
        self._asked.status = self.response.status

    async def say(self, *, usage: Object | None = None) -> None:
        """Send a chunk without choices."""
        await self._send({"choices": []} if usage is None else {"choices": [], "usage": usage})

    async def choose(self, delta: Object, *, finish_reason: str | None = None) -> None:
        """Send a chunk with one choice."""
        choice: Json = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        await self._send({"choices": [choice]})

    async def line(self, text: str) -> None:
        await self.response.write(f"{text}\n\n".encode())

    async def _send(self, chunk: Object) -> None:
        # Text stays as it is, as llama.cpp sends it: U+2028 is not escaped.
        await self.line(f"data: {json.dumps({**self._head, **chunk}, ensure_ascii=False)}")


def head(kind: str, model: str) -> Object:
    """Return what all chunks of an answer have in common."""
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": "emulated",
    }


def plain(status: int, body: object, headers: Mapping[str, str]) -> web.Response:
    """Return an answer at once: a string as it is, anything else as JSON; chunked on request."""
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": "application/json", **headers}
    chunked = headers.pop("Transfer-Encoding", "") == "chunked"
    response = web.Response(status=status, body=text.encode(), headers=headers)
    if chunked:
        response.enable_chunked_encoding()
    return response


def failed(fault: Fault, body: Json) -> web.Response:
    """Return the answer of a fault of status; `body` is the server's own."""
    headers = CIMultiDict(fault.headers or {})
    if fault.retry_after is not None:
        headers.setdefault("Retry-After", str(math.ceil(fault.retry_after)))
    return plain(fault.status, body if fault.body is None else fault.body, headers)


def cut(request: web.Request, *, reset: bool) -> None:
    """End the connection where it is; with a TCP reset what is still to be sent is lost, too."""
    if request.transport is None:
        return
    if not reset:
        request.transport.close()
        return
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def bound(port: int = 0) -> socket.socket:
    """Return a socket that holds a port of 127.0.0.1 and does not listen yet."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    return holder
