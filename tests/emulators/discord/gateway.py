"""Discord's gateway, version 10: sessions that get events, lose their socket and resume."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from tests.emulators.discord.objects import Payload, snowflake

GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 0, 1 << 9, 1 << 12, 1 << 15
_MEMBERS, _PRESENCES = 1 << 1, 1 << 8
_DISPATCH, _HEARTBEAT, _IDENTIFY, _PRESENCE, _RESUME = 0, 1, 2, 3, 6
_INVALID_SESSION, _HELLO, _ACK = 9, 10, 11
_UNKNOWN_OP, _NO_JSON, _NOT_IDENTIFIED, _WRONG_TOKEN, _TWICE, _DISALLOWED_INTENT = (
    4001,
    4002,
    4003,
    4004,
    4005,
    4014,
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell; sessions without one of `intents` do not hear it.

    `veiled` is what a session without the Message Content intent gets; 0 intents means all hear.
    """

    name: str
    data: Payload
    veiled: Payload | None = None
    intents: int = 0


@dataclass(slots=True, eq=False)
class _Session:
    intents: int
    id: str = field(default_factory=snowflake)
    told: list[Payload] = field(default_factory=list)
    socket: _Socket | None = None

    def tell(self, event: Event) -> None:
        if event.intents and not event.intents & self.intents:
            return
        veiled = event.veiled is not None and not self.intents & MESSAGE_CONTENT
        data = event.veiled if veiled else event.data
        frame = {"op": _DISPATCH, "t": event.name, "s": len(self.told) + 1, "d": data}
        self.told.append(frame)
        if self.socket:
            self.socket.outgoing.put_nowait(frame)


@dataclass(slots=True, eq=False)
class _Socket:
    """One connection; `outgoing` keeps the order in which frames were told."""

    ws: web.WebSocketResponse
    outgoing: asyncio.Queue[Payload] = field(default_factory=asyncio.Queue)
    session: _Session | None = None
    closed_by_us: bool = False

    async def close(self, code: int) -> None:
        """Hang up; the bot may resume."""
        self.closed_by_us = True
        await self.ws.close(code=code)

    async def write(self, *, zipped: bool) -> None:
        """Send what is told until the connection is lost."""
        pack = zlib.compressobj()
        with contextlib.suppress(ConnectionError):
            while True:
                text = json.dumps(await self.outgoing.get())
                if not zipped:
                    await self.ws.send_str(text)
                    continue
                data = pack.compress(text.encode()) + pack.flush(zlib.Z_SYNC_FLUSH)
                await self.ws.send_bytes(data)


class Gateway:
    """Serves the socket that a bot listens on.

    `greet` makes the events that a new session begins with, from the session's id; `unknown`
    collects what the bot asked for in vain; `identified` counts the IDENTIFYs.
    """

    def __init__(
        self,
        *,
        token: str,
        greet: Callable[[str], list[Event]],
        message_content: bool,
        unknown: list[str],
    ) -> None:
        self.connected = asyncio.Event()
        self.identified = 0
        self._token = token
        self._greet = greet
        self._message_content = message_content
        self._unknown = unknown
        self._sessions: dict[str, _Session] = {}
        self._sockets: set[_Socket] = set()

    def publish(self, event: Event) -> None:
        """Tell every session that asked for such events; one without a socket gets them later."""
        for session in self._sessions.values():
            session.tell(event)

    async def disconnect(self, code: int) -> None:
        """Close every socket with this code; the sessions can be resumed."""
        for socket in list(self._sockets):
            await socket.close(code)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Talk with one connection until either side closes it."""
        ws = web.WebSocketResponse(timeout=1.0, compress=False)
        await ws.prepare(request)
        socket = _Socket(ws)
        self._sockets.add(socket)
        zipped = request.query.get("compress") == "zlib-stream"
        writer = asyncio.create_task(socket.write(zipped=zipped))
        socket.outgoing.put_nowait({"op": _HELLO, "d": {"heartbeat_interval": 41_250}})
        try:
            await self._listen(socket)
        finally:
            self._leave(socket)
            writer.cancel()
            await asyncio.wait([writer])
        return ws

    def _leave(self, socket: _Socket) -> None:
        self._sockets.discard(socket)
        session = socket.session
        if session and session.socket is socket:
            session.socket = None
            # A bot that closes so has ended its session (docs: Gateway, "Closing").
            ended = socket.ws.close_code in (WSCloseCode.OK, WSCloseCode.GOING_AWAY)
            if ended and not socket.closed_by_us:
                self._sessions.pop(session.id, None)
        if not any(session.socket for session in self._sessions.values()):
            self.connected.clear()

    async def _listen(self, socket: _Socket) -> None:
        async for message in socket.ws:
            if message.type != WSMsgType.TEXT:
                continue
            code = self._receive(socket, message.data)
            if code:
                await socket.close(code)

    def _receive(self, socket: _Socket, text: str) -> int | None:
        """Act on one frame; return the code to close with when it is not acceptable."""
        try:
            frame = json.loads(text)
            op, data = int(frame["op"]), frame.get("d")
        except (ValueError, KeyError, TypeError):
            return _NO_JSON
        if op == _HEARTBEAT:
            socket.outgoing.put_nowait({"op": _ACK})
            return None
        if op in (_IDENTIFY, _RESUME) and isinstance(data, dict):
            if socket.session:
                return _TWICE
            if data.get("token") != self._token:
                return _WRONG_TOKEN
            return (self._identify if op == _IDENTIFY else self._resume)(socket, data)
        if socket.session is None:
            return _NOT_IDENTIFIED
        if op == _PRESENCE:
            return None
        self._unknown.append(f"gateway op {op}")
        return _UNKNOWN_OP

    def _identify(self, socket: _Socket, data: Payload) -> int | None:
        self.identified += 1
        intents = int(str(data.get("intents", 0)))
        forbidden = _MEMBERS | _PRESENCES | (0 if self._message_content else MESSAGE_CONTENT)
        if intents & forbidden:
            return _DISALLOWED_INTENT
        session = _Session(intents)
        self._attach(socket, session)
        for event in self._greet(session.id):
            session.tell(event)
        return None

    def _resume(self, socket: _Socket, data: Payload) -> int | None:
        session = self._sessions.get(str(data.get("session_id")))
        if session is None:
            socket.outgoing.put_nowait({"op": _INVALID_SESSION, "d": False})
            return None
        missed = session.told[int(str(data.get("seq") or 0)) :]
        for frame in missed:
            socket.outgoing.put_nowait(frame)
        self._attach(socket, session)
        session.tell(Event("RESUMED", {}))
        return None

    def _attach(self, socket: _Socket, session: _Session) -> None:
        self._sessions[session.id] = session
        session.socket, socket.session = socket, session
        self.connected.set()
