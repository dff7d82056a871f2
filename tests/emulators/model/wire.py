"""How answers travel: as server-sent events, and how a connection is broken."""

from __future__ import annotations

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
from tests.emulators.model.dialect import Object


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


def peer(request: web.Request) -> tuple[str, int]:
    """Return the client's end of the connection."""
    assert request.transport is not None
    host, port = request.transport.get_extra_info("peername")[:2]
    return str(host), int(port)


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
