"""Slack's side of Socket Mode."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import uuid
from typing import Literal

from aiohttp import WSCloseCode, WSMsgType, web

from tests.emulators.clock import Clock
from tests.emulators.slack.installation import APP_ID
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace

Reason = Literal["warning", "refresh_requested", "link_disabled"]
# docs: Using Socket Mode, "Using multiple connections".
CONNECTIONS = 10
_TICKET_SECONDS = 30.0
# docs: Using Socket Mode, "Disconnecting": a warning comes ten seconds before.
_WARNING_SECONDS = 10.0
_GRACE_SECONDS = 0.3  # that an app has otherwise to leave a socket that will be closed


class SocketMode:
    """Serves an app's WebSockets under `base` (docs: Using Socket Mode)."""

    def __init__(self, clock: Clock) -> None:
        self.base = ""
        self.methods = {"apps.connections.open": self.open}
        self.connected = asyncio.Event()
        self._sockets: dict[web.WebSocketResponse, web.Request] = {}
        self._acks: dict[str, asyncio.Future[str]] = {}
        self._tickets: dict[str, float] = {}  # when each expires, in the clock's seconds
        self._turn = itertools.count()
        self._clock = clock

    @property
    def open_now(self) -> int:
        """How many connections are open."""
        return len(self._sockets)

    def open(self, _workspace: Workspace, _args: Payload) -> Payload:
        """apps.connections.open: an address that opens one connection, once."""
        ticket = secrets.token_hex(8)
        self._tickets[ticket] = self._clock.now() + _TICKET_SECONDS
        address = self.base.replace("http://", "ws://")
        return {"url": f"{address}link/?ticket={ticket}&app_id={APP_ID}"}

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Talk with one connection until either side closes it."""
        if self._tickets.pop(request.query.get("ticket", ""), 0.0) < self._clock.now():
            raise web.HTTPForbidden(text="this address was used, or is too old")
        socket = web.WebSocketResponse(timeout=0.2, compress=False)
        await socket.prepare(request)
        if len(self._sockets) == CONNECTIONS:
            # slackapi/node-slack-sdk issue 1654.
            await socket.send_json({"type": "disconnect", "reason": "too_many_websockets"})
            await socket.close()
            return socket
        self._sockets[socket] = request
        try:
            await socket.send_json(self._hello())
            self.connected.set()
            await self._listen(socket)
        finally:
            del self._sockets[socket]
            if not self._sockets:
                self.connected.clear()
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

    async def disconnect(self, reason: Reason = "refresh_requested") -> None:
        """Close the sockets, after a word with the reason.

        After a warning they stay for ten seconds of the clock.
        """
        await asyncio.gather(*(self._dismiss(socket, reason) for socket in list(self._sockets)))

    async def send_frame(self, text: str) -> None:
        """Tell every connection this, as it is."""
        for socket in list(self._sockets):
            await socket.send_str(text)

    async def stall(self) -> None:
        """Hear nothing more on any connection, pings and acks included, and close none."""
        for request in self._sockets.values():
            if request.transport:
                request.transport.pause_reading()

    async def cut(self) -> int:
        """Cut every connection off; return how many there were."""
        for request in self._sockets.values():
            if request.transport:
                request.transport.abort()
        return len(self._sockets)

    async def close(self) -> None:
        """End all connections."""
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _dismiss(self, socket: web.WebSocketResponse, reason: Reason) -> None:
        with contextlib.suppress(ConnectionError):
            debug: Payload = {"host": "applink-1"}
            await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": debug})
            ends = self._clock.now() + (_WARNING_SECONDS if reason == "warning" else _GRACE_SECONDS)
            while socket in self._sockets and self._clock.now() < ends:
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
