"""discord.py's connection to the gateway, led by us, for it has to begin with a RESUME.

All of the library's internals that this needs stand here, and
`tests/discord/gateway/test_connection.py` pins them to discord.py 2.7.1. They are private, so any
minor release may change them: requirements.txt allows the 2.7 series only. Before it allows
another, the test's list has to be read in the new source.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import discord
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from adapters.discord.errors import translated
from adapters.discord.gateway.payload import (
    Payload,
    ids_of,
    located,
    message_id,
    parse_event,
    parse_message,
)
from adapters.discord.gateway.progress import Progress
from bot.errors import WriteRefused
from bot.hearing import Hearing

_log = logging.getLogger(__name__)

# The events that somebody waits for; all others only keep the library's picture of the guilds.
OURS = ("MESSAGE_CREATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK", "INTERACTION_CREATE")
# With 1000 or 1001 the session would be over; with any other code it lives on for a few minutes
# (Discord's documentation, "Gateway", "Initiating a Disconnect").
_LEAVING = 4000
_OPENING = 60.0  # seconds for the connection and its first frame, as in the library
_CLOSING = 5.0  # seconds for the other side's answer, of the library's 30
_DISCORDS_OWN = ".discord.gg"
_FIRST = DiscordWebSocket.DEFAULT_GATEWAY

_Parser = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Session:
    """What a RESUME needs; with the token, `id` lets anybody listen in our place.

    `seq` numbers the last event that is not to be told again; an empty `url` is the first address.
    """

    id: str = field(repr=False)
    seq: int
    url: str


@dataclass(frozen=True, slots=True)
class Starts:
    """How many sessions may still begin, in how many seconds there are more, and how many at once.

    Discord's documentation, "Session Start Limit Object".
    """

    left: int
    renewed_in: float
    at_once: int


class Connection:
    """A logged-in client's connection to the gateway; one at a time.

    `ready` is called when a session has begun, before any of its events is handled.
    """

    def __init__(
        self,
        client: discord.Client,
        journal: Progress,
        *,
        hearing: Hearing,
        ready: Callable[[], None],
    ) -> None:
        self._client = client
        self._journal = journal
        self._hearing = hearing
        self._ready = ready
        self._socket: DiscordWebSocket | None = None

    def attend(self) -> None:
        """Have each event parsed by itself, and the journal know of ours before they go on.

        The library lets what a parser raises end the connection: it would cost the session, and
        what is asked elsewhere until there is another.
        """
        parsers = self._client._connection.parsers
        for name, parse in parsers.items():
            parsers[name] = partial(_parse, name, parse)
        for name in OURS:
            parsers[name] = partial(self._handle, parsers[name])
        parsers["READY"] = partial(self._begin, parsers["READY"])
        parsers["RESUMED"] = partial(self._go_on, parsers["RESUMED"])

    @property
    def session(self) -> Session | None:
        """The session as far as it was received, on the connection there is or the last one."""
        socket = self._socket
        if socket is None or socket.session_id is None or socket.sequence is None:
            return None
        return Session(socket.session_id, socket.sequence, str(socket.gateway))

    async def run(self, session: Session | None) -> bool:
        """Resume the session, or begin one; return, once the connection is over, if it goes on.

        Raises discord.ConnectionClosed when Discord does not want us back as we are, and what the
        network raises.
        """
        address = _address(session) if session else None
        self._socket = None
        try:
            async with asyncio.timeout(_OPENING):
                self._socket = await DiscordWebSocket.from_client(
                    self._client,
                    # The library asks for no pause before it identifies: the shard has made one.
                    initial=True,
                    gateway=address,
                    shard_id=self._client.shard_id,
                    session=session.id if session else None,
                    sequence=session.seq if session else None,
                    resume=session is not None,
                )
            self._client.ws = self._socket
            while True:
                await self._socket.poll_event()
        except ReconnectWebSocket as over:
            return over.resume
        finally:
            self._hearing.note(is_open=False)

    async def starts(self) -> Starts:
        """Return how many sessions the bot may still begin."""
        _, _, limit = await self._client.http.get_bot_gateway()
        seconds = limit["reset_after"] / 1000
        return Starts(limit["remaining"], seconds, max(1, limit["max_concurrency"]))

    async def leave(self) -> None:
        """Close the connection so that the session can be resumed."""
        if self._socket is not None and self._socket.open:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await self._socket.close(_LEAVING)

    def _handle(self, parse: _Parser, data: Any) -> None:
        self._note(message_id(data), parse, data)

    def _begin(self, parse: _Parser, data: Any) -> None:
        def begin(data: Any) -> None:
            parse(data)
            self._ready()

        self._hearing.note(is_open=True)
        self._journal.new_session()
        self._note(0, begin, data)

    def _go_on(self, parse: _Parser, data: Any) -> None:
        self._hearing.note(is_open=True)
        parse(data)

    def _note(self, message_id: int, parse: _Parser, data: Any) -> None:
        seq = self._socket.sequence if self._socket else None
        with self._journal.heard(seq or 0, message_id) as release:
            try:
                parse(data)
            finally:
                # The library hands an event to tasks, and these have taken their holds when it is
                # this call's turn.
                asyncio.get_running_loop().call_soon(release)


def read_message(channel: discord.abc.Messageable, data: Payload) -> discord.Message | None:
    """Return a message as REST tells it; None, and a line in the log, if it cannot be parsed."""

    def create(data: Any) -> discord.Message:
        return channel._state.create_message(channel=channel, data=data)  # type: ignore[arg-type]

    try:
        return parse_message(create, data)
    except Exception as error:
        _log.warning("Message skipped (%s): parsing failed, %s", ids_of(data), located(error))
        return None


async def fetch_channel(client: discord.Client, channel_id: int) -> object:
    """Return a channel as REST tells it; SurfaceError, also if it cannot be parsed."""
    async with translated():
        try:
            return await client.fetch_channel(channel_id)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise WriteRefused(
                f"channel {channel_id} cannot be parsed: {located(error)}"
            ) from error


def _parse(name: str, parse: _Parser, data: Any) -> None:
    try:
        parse_event(name, parse, data)
    except Exception as error:
        # READY as well: who the bot is it knows from its login, and servers are looked up.
        _log.warning(
            "Event %s skipped, %s cannot be parsed: %s", name, ids_of(data), located(error)
        )


def begin_at(address: str) -> None:
    """Have sessions of this process begin at an address; an empty one is Discord's own."""
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(address) if address else _FIRST


def _address(session: Session) -> yarl.URL | None:
    """Return where to resume: never at an address that is neither Discord's nor the operator's.

    The token goes there, and an address from the store may be older than the settings.
    """
    first = DiscordWebSocket.DEFAULT_GATEWAY
    try:
        url = yarl.URL(session.url)
    except ValueError:
        return None
    theirs = f".{first.host}".endswith(_DISCORDS_OWN) and f".{url.host}".endswith(_DISCORDS_OWN)
    known = url.scheme == first.scheme and (theirs or url.authority == first.authority)
    return url if known else None
