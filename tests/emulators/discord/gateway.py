"""Discord's gateway, version 10: connections come and go, sessions go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.emulators.clock import Clock
from tests.emulators.discord import frames
from tests.emulators.discord.connection import INVALID_SESSION, Connection
from tests.emulators.discord.frames import HEARTBEAT, IDENTIFY, RESUME, HangUp
from tests.emulators.discord.objects import Payload
from tests.emulators.discord.rules import GatewayRules, Starts
from tests.emulators.discord.sessions import (
    DIRECT_MESSAGES,
    GUILD_MESSAGES,
    GUILDS,
    MESSAGE_CONTENT,
    WHOLE,
    Event,
    Handshake,
    Listener,
    Session,
    Shard,
)

__all__ = ["DIRECT_MESSAGES", "GUILDS", "GUILD_MESSAGES", "Event", "Gateway", "Greeting"]

_VERSION = "10"
_PATH, _RESUME_PATH = "/gateway", "/gateway/resume"
_MEMBERS, _PRESENCES = 1 << 1, 1 << 8
# With these the session is over too (docs: Gateway Close Event Codes); see Connection for 4009.
_FINAL = {
    frames.UNKNOWN_OP,
    frames.WRONG_TOKEN,
    frames.TWICE,
    frames.BAD_SEQ,
    frames.BAD_SHARD,
    frames.NEEDS_SHARDS,
    frames.FORBIDDEN_INTENTS,
}
_FAREWELLS = (1000, 1001)  # a bot that closes so ends its session (docs: Initiating a Disconnect)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a new session is told first: who the bot is, and its guilds."""

    user: Payload
    application: Payload
    guilds: list[Payload]


class Gateway:
    """Serves the sockets that a bot listens on, under `url`.

    `unknown` collects what the bot asked for in vain, `violations` what was wrong with its frames;
    `identified` and `resumed` count; `handshakes` has each session that began, and each try to
    resume one. `odd_greeting` changes what READY tells.
    """

    def __init__(
        self,
        *,
        token: str,
        url: Callable[[], str],
        greet: Callable[[], Greeting],
        message_content: bool,
        rules: GatewayRules,
        clock: Clock,
        unknown: list[str],
        violations: list[str],
    ) -> None:
        self.token = token
        self.connected = asyncio.Event()
        self.refusing = False
        self.odd_greeting: Payload = {}
        self.handshakes: list[Handshake] = []
        self.identified = self.resumed = 0
        self._url = url
        self._greet = greet
        self._forbidden = _MEMBERS | _PRESENCES | (0 if message_content else MESSAGE_CONTENT)
        self._rules = rules
        self._clock = clock
        self._unknown = unknown
        self._violations = violations
        self._starts = Starts(rules, clock)
        self._sessions: dict[str, Session] = {}
        self._connections: set[Connection] = set()

    def mount(self, app: web.Application) -> None:
        """Serve under the path of `url` and under the one for resumes; either takes both."""
        for path in (_PATH, _RESUME_PATH):
            app.router.add_get(path, self._serve)
            app.router.add_get(path + "/", self._serve)

    @property
    def url(self) -> str:
        """Where bots connect."""
        return self._url() + _PATH

    def info(self) -> Payload:
        """Return what "Get Gateway Bot" tells beside the address."""
        return {"shards": self._rules.shards, "session_start_limit": self._starts.payload()}

    def listeners(self) -> list[Listener]:
        """Return every session that was begun, oldest first."""
        self._expire()
        return [session.seen() for session in self._sessions.values()]

    def publish(self, event: Event) -> None:
        """Tell every session that it is for; one without a connection gets it when it resumes."""
        for session in self._sessions.values():
            if session.hears(event):
                session.tell(event)

    async def invalidate(self, *, resumable: bool = False) -> None:
        """Take the session from every connection, and tell the bot; the connections stay open."""
        for connection in self._connections:
            if connection.session:
                connection.say(INVALID_SESSION, resumable)
                self._part(connection, ends=not resumable)

    async def disconnect(self, code: int = 4000) -> None:
        """Close every connection with this code; with the default one a bot can resume."""
        for connection in self._connections:
            self._hang_up(connection, code)

    async def cut(self) -> int:
        """Reset the TCP connections, without a close code; return how many there were."""
        for connection in self._connections:
            connection.cut()
        return len(self._connections)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.refusing and request.transport:
            request.transport.abort()
            return web.Response()
        for key, emulated in (("v", _VERSION), ("encoding", "json"), ("compress", "zlib-stream")):
            if request.query.get(key, emulated) != emulated:
                self._unknown.append(f"gateway {key}={request.query[key]}")
                return web.Response(status=501)
        interval = self._rules.heartbeat_interval
        connection = Connection(request, clock=self._clock, interval=interval)
        return await self._talk(connection)

    async def _talk(self, connection: Connection) -> web.WebSocketResponse:
        """Talk with a bot until either side closes the connection."""

        def leave() -> None:
            self._connections.discard(connection)
            self._part(connection, ends=connection.left_with in _FAREWELLS)

        def receive(data: str | bytes) -> None:
            try:
                self._receive(connection, data)
            except HangUp as why:
                self._violations += [why.problem] if why.problem else []
                self._hang_up(connection, why.code)

        self._connections.add(connection)
        try:
            return await connection.serve(receive, leave)
        except ConnectionResetError:
            raise  # the bot was killed before it was told anything
        except Exception as error:
            self._violations.append(f"the emulator failed: the gateway: {error!r}")
            raise
        finally:
            leave()

    def _hang_up(self, connection: Connection, code: int) -> None:
        self._part(connection, ends=code in _FINAL)
        connection.hang_up(code)

    def _part(self, connection: Connection, *, ends: bool) -> None:
        """Take its session from a connection."""
        session, connection.session = connection.session, None
        if session is None:
            return
        session.send, session.lost_at = None, self._clock.now()
        session.ended |= ends
        if not any(one.send for one in self._sessions.values()):
            self.connected.clear()

    def _receive(self, connection: Connection, data: str | bytes) -> None:
        op, told = frames.read(data)
        if op == HEARTBEAT:
            connection.beat()
        elif connection.session:
            raise HangUp(frames.TWICE)
        elif op == IDENTIFY:
            self._identify(connection, told)
        elif op == RESUME:
            self._resume(connection, told)

    def _identify(self, connection: Connection, asked: dict[str, Any]) -> None:
        if asked["token"] != self.token:
            raise HangUp(frames.WRONG_TOKEN)
        self.identified += 1
        named = frames.shard_of(asked)
        shard = named or WHOLE
        if self._rules.needs_sharding and shard == WHOLE:
            raise HangUp(frames.NEEDS_SHARDS)
        if asked["intents"] & self._forbidden:
            raise HangUp(frames.FORBIDDEN_INTENTS)
        if not self._starts.left():
            # Discord gives the bot another token, which nobody but its owner learns.
            problem = "the bot began more sessions than Discord allows in a day"
            raise HangUp(frames.WRONG_TOKEN, problem)
        if self._starts.take(shard[0]):
            self._begin(connection, Session(asked["intents"], shard, self._rules.replayed), named)
        else:
            connection.say(INVALID_SESSION, False)

    def _begin(self, connection: Connection, session: Session, shard: Shard | None) -> None:
        self._sessions[session.id] = session
        self.handshakes.append(session.asked(time.monotonic(), None))
        session.send, connection.session = connection.send, session
        greeting = self._greet()
        guilds = [Event("GUILD_CREATE", one, intents=GUILDS) for one in greeting.guilds]
        guilds = [one for one in guilds if one.reaches(session.shard)]
        session.tell(Event("READY", self._ready(session, greeting, guilds, shard)))
        for event in guilds:
            if session.hears(event):
                self._show(session, event)
        self.connected.set()

    def _show(self, session: Session, guild: Event) -> None:
        if self._rules.shown_after:
            asyncio.get_running_loop().call_later(self._rules.shown_after, session.tell, guild)
        else:
            session.tell(guild)

    def _ready(
        self, session: Session, greeting: Greeting, guilds: list[Event], shard: Shard | None
    ) -> Payload:
        ready: Payload = {
            "v": int(_VERSION),
            "user": greeting.user,
            "guilds": [{"id": one.data["id"], "unavailable": True} for one in guilds],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": self._url() + _RESUME_PATH,
            "application": greeting.application,
        }
        return ready | ({"shard": list(shard)} if shard else {}) | self.odd_greeting

    def _resume(self, connection: Connection, asked: dict[str, Any]) -> None:
        self._expire()
        session, seq = self._sessions.get(asked["session_id"]), asked["seq"]
        if session:
            self.handshakes.append(session.asked(time.monotonic(), seq))
        # A wrong token is answered so too (discord-api-docs, issue 1209).
        if session is None or session.ended or asked["token"] != self.token:
            connection.say(INVALID_SESSION, False)
            return
        if seq is None or not session.knows(seq):
            session.ended = True
            raise HangUp(frames.BAD_SEQ)
        for holder in [one for one in self._connections if one.session is session]:
            # Version 6 closed it with 4006 (issue 84); version 10 has no such code.
            self._hang_up(holder, frames.TIMED_OUT)
        self.resumed += 1
        connection.session = session
        session.resume(connection.send, seq)
        self.connected.set()

    def _expire(self) -> None:
        """End the sessions whose bot stayed away for too long."""
        now = self._clock.now()
        for session in self._sessions.values():
            away = session.send is None and now - session.lost_at > self._rules.resume_seconds
            session.ended |= away
