"""Slack's side of Socket Mode."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import time
import uuid

from aiohttp import WSCloseCode, WSMsgType, web

from tests.emulators.slack.workspace import APP_ID, Payload

_TICKET_SECONDS = 30.0
_GRACE_SECONDS = 0.3  # that an app has to leave a socket that will be closed


class SocketMode:
    """Serves an app's WebSockets (docs: Using Socket Mode, Socket Mode implementation)."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self._sockets: dict[web.WebSocketResponse, web.Request] = {}
        self._acks: dict[str, asyncio.Future[str]] = {}
        self._tickets: dict[str, float] = {}  # when each expires, in monotonic seconds
        self._turn = itertools.count()

    def ticket(self) -> str:
        """Return what opens one connection, once."""
        ticket = secrets.token_hex(8)
        self._tickets[ticket] = time.monotonic() + _TICKET_SECONDS
        return ticket

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Talk with one connection until either side closes it."""
        if self._tickets.pop(request.query.get("ticket", ""), 0.0) < time.monotonic():
            raise web.HTTPForbidden(text="this address was used, or is too old")
        socket = web.WebSocketResponse(timeout=0.2, compress=False)
        await socket.prepare(request)
        self._sockets[socket] = request
        try:
            await socket.send_json(self._hello())
            self.connected.set()
            await self._listen(socket)
        finally:
            self._leave(socket)
        return socket

    async def send(self, envelope: Payload) -> str | None:
        """Tell one connection and wait for its ack; None when there is no connection to tell."""
        envelope_id = str(uuid.uuid4())
        ack: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._acks[envelope_id] = ack
        try:
            while not self._sockets:
                await self.connected.wait()
            # Any of an app's connections may get it (docs: "Using multiple connections").
            socket = list(self._sockets)[next(self._turn) % len(self._sockets)]
            await socket.send_json({"envelope_id": envelope_id, **envelope})
            return await ack
        except ConnectionError:
            return None
        finally:
            del self._acks[envelope_id]

    async def disconnect(self, reason: str | None) -> None:
        """Ask every connection to come anew, then close it; without a reason it is cut at once."""
        for socket, request in list(self._sockets.items()):
            if reason is None and request.transport:
                request.transport.abort()
            elif reason is not None:
                await self._dismiss(socket, reason)

    async def close(self) -> None:
        """End all connections."""
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _dismiss(self, socket: web.WebSocketResponse, reason: str) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError):
            await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})
            async with asyncio.timeout(_GRACE_SECONDS):
                while socket in self._sockets:
                    await asyncio.sleep(0.005)
        await socket.close(code=WSCloseCode.OK)

    def _hello(self) -> Payload:
        return {
            "type": "hello",
            "num_connections": len(self._sockets),
            "connection_info": {"app_id": APP_ID},
            "debug_info": {"host": "applink-1", "approximate_connection_time": 18060},
        }

    async def _listen(self, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            frame = json.loads(message.data)
            ack = self._acks.get(frame.get("envelope_id", ""))
            if ack and not ack.done():
                ack.set_result(json.dumps(frame["payload"]) if "payload" in frame else "")

    def _leave(self, socket: web.WebSocketResponse) -> None:
        del self._sockets[socket]
        if not self._sockets:
            self.connected.clear()
