"""Drives discord.py's gateway connection, because the library cannot start with a RESUME.

This file has all of the library's gateway internals that the adapter uses. They are private:
`tests/discord/gateway/test_connection.py` pins them, and requirements.txt allows the 2.7 series
only. For another series, compare the test's list with the new source first.

The library gets only those parts of a payload that the bot needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import discord
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from adapters.discord.gateway.content import files_in, shown_beside_text
from adapters.discord.gateway.session_store import Session
from adapters.discord.rest import Payload, located, request
from adapters.discord.tuning import Tuning

_log = logging.getLogger(__name__)

# With 1000 or 1001 the session would be over; with any other code it lives on for a few minutes
# (Discord's documentation, "Gateway", "Initiating a Disconnect").
_RESUMABLE_CLOSE = 4000
_DISCORDS_DOMAIN = ".discord.gg"
_DISCORDS_GATEWAY = DiscordWebSocket.DEFAULT_GATEWAY

_ID_FIELDS = ("id", "guild_id", "channel_id", "message_id", "user_id")

_Parser = Callable[[Payload], object]


class SessionBegan:
    """A new session, before whose events messages may have been missed."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A server of the bot, reported at the start of a session or when it joins."""

    server: str
    name: str


@dataclass(frozen=True, slots=True)
class Left:
    """A server that the bot is no longer in."""

    server: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The servers of the bot in this shard, as a new session begins."""

    servers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Frame:
    """An event that the gateway sent, and what the library made of it.

    `message_id` is 0 if it is not a message.
    """

    name: str
    seq: int
    message_id: int
    parsed: list[object]


class Connection:
    """A logged-in client's connection to the gateway; one at a time.

    `is_over`: the last session cannot be resumed.
    """

    def __init__(self, client: discord.Client, tuning: Tuning) -> None:
        self.is_over = False
        self._client = client
        self._tuning = tuning
        self._socket: DiscordWebSocket | None = None
        self._frames: deque[Frame] = deque()
        # Without the library's own dispatch in tasks.
        for name, parse in client._connection.parsers.items():
            client._connection.parsers[name] = partial(self._receive, name, parse)

    @property
    def servers(self) -> int:
        """The number of servers that the library knows."""
        return len(self._client.guilds)

    @property
    def session(self) -> Session | None:
        """The session of the current or last connection, with its last sequence number."""
        socket = self._socket
        if socket is None or socket.session_id is None or socket.sequence is None:
            return None
        return Session(socket.session_id, socket.sequence, str(socket.gateway))

    async def frames(self, session: Session | None) -> AsyncGenerator[Frame]:
        """Resume the session or begin one, and yield its frames until the connection ends.

        Raises discord.ConnectionClosed if Discord refuses the shard, and errors of the network.
        """
        self._socket, self.is_over = None, False
        try:
            async with asyncio.timeout(self._tuning.open_within):
                self._socket = await DiscordWebSocket.from_client(
                    self._client,
                    # The library must not pause before IDENTIFY: the shard has already.
                    initial=True,
                    gateway=_resume_address(session) if session else None,
                    shard_id=self._client.shard_id,
                    session=session.id if session else None,
                    sequence=session.seq if session else None,
                    resume=session is not None,
                )
            while True:
                await self._socket.poll_event()
                while self._frames:
                    yield self._frames.popleft()
        except ReconnectWebSocket as over:
            self.is_over = not over.resume

    async def start_limit(self) -> Payload:
        """Return Discord's "Session Start Limit Object": how many sessions may still begin."""
        limit: Payload = (await request(self._client, "GET", "/gateway/bot"))["session_start_limit"]
        return limit

    async def leave(self) -> None:
        """Close the connection so that the session can be resumed."""
        if self._socket is not None and self._socket.open:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tuning.close_within):
                    await self._socket.close(_RESUMABLE_CLOSE)

    def _receive(self, name: str, parse: _Parser, data: Payload) -> None:
        parsed = self._parse(name, parse, data)
        if name == "READY":
            self._end_own_wait()
            parsed = [Listed(_servers(data))]
        elif name == "GUILD_CREATE" and _is_id(data.get("id")):
            parsed = [Joined(data["id"], str(data.get("name") or ""))]
        # With "unavailable" it is an outage ("Guild Delete" in Discord's documentation).
        elif name == "GUILD_DELETE" and _is_id(data.get("id")) and "unavailable" not in data:
            parsed = [Left(data["id"])]
        seq = (self._socket.sequence if self._socket else None) or 0
        is_message = isinstance(data, dict) and "author" in data and _is_id(data.get("id"))
        message_id = int(data["id"]) if is_message else 0
        self._frames.append(Frame(name, seq, message_id, parsed))

    def _parse(self, name: str, parse: _Parser, data: Payload) -> list[object]:
        """Return what the library dispatches while it parses an event; [] if that fails.

        The library itself lets an error of a parser end the connection, and with it the session.
        """
        found: list[object] = []
        self._client._connection.dispatch = lambda _event, *parsed: found.extend(parsed)
        try:
            parse(_needed(name, data))
        except Exception as error:
            # READY as well: the bot's id is known from the login, and servers are looked up.
            _log.warning("Event %s skipped (%s): %s", name, ids_of(data), located(error))
            return []
        return found

    def _end_own_wait(self) -> None:
        """End the library's own wait for servers, which the catch-up does.

        Its task fails if three sessions begin within two seconds.
        """
        state = self._client._connection
        if state._ready_task:
            state._ready_task.cancel()
        vars(state).pop("_ready_state", None)


def _servers(ready: Payload) -> frozenset[str]:
    found = ready.get("guilds")
    guilds = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return frozenset(one["id"] for one in guilds if _is_id(one.get("id")))


def use_gateway(address: str) -> None:
    """Set the gateway address for this process; an empty one is Discord's own."""
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(address) if address else _DISCORDS_GATEWAY


def _resume_address(session: Session) -> yarl.URL | None:
    """Return the address to resume at; None if it is neither Discord's nor the operator's.

    The token is sent there, and a stored address may be older than the settings.
    """
    first = DiscordWebSocket.DEFAULT_GATEWAY
    try:
        url = yarl.URL(session.url)
    except (ValueError, IndexError):
        # yarl 1.25 raises the latter at "wss://a][@".
        return None
    is_discords = all(f".{one.host}".endswith(_DISCORDS_DOMAIN) for one in (first, url))
    is_known = is_discords or url.authority == first.authority
    return url if is_known and url.scheme == first.scheme else None


def read_message(channel: discord.abc.Messageable, data: Payload) -> discord.Message | None:
    """Parse a message from REST; logs and returns None if that fails."""
    create: Any = channel._state.create_message
    try:
        message: discord.Message = create(channel=channel, data=_message(data))
    except Exception as error:
        _log.warning("Message skipped (%s): %s", ids_of(data), located(error))
        return None
    return message


def beside_text(message: discord.Message) -> str:
    """Return what `_message` has put into the one embed; discord.py has no field for it."""
    return message.embeds[0].description or ""


def add_server(client: discord.Client, data: Payload) -> bool:
    """Add a server fetched by REST to the library's cache; on failure logs and returns False.

    Its threads are unknown, and so are its members, the bot included.
    """
    add: Any = client._connection._add_guild_from_data
    try:
        add({"unavailable": False} | data)
    except Exception as error:
        _log.warning("Server skipped (%s): %s", ids_of(data), located(error))
        return False
    return True


def ids_of(data: object) -> str:
    """Return the ids in a payload, for the log."""
    found = data if isinstance(data, dict) else {}
    ids = [f"{key} {found[key]}" for key in _ID_FIELDS if _is_id(found.get(key))]
    return ", ".join(ids) or "without ids"


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) <= 20


# What the bot needs of a message or an interaction; the library fails for some of the rest, and
# the part of a payload that it is not shown cannot make it fail.
_MESSAGE_FIELDS = (
    *("id", "guild_id", "channel_id", "webhook_id", "type", "flags", "content", "edited_timestamp"),
    *("mention_everyone", "mention_roles", "message_reference", "interaction_metadata"),
)
_UNUSED_GUILD_FIELDS = {
    *("emojis", "stickers", "voice_states", "presences", "stage_instances"),
    *("guild_scheduled_events", "soundboard_sounds", "incidents_data"),
}
_INTERACTION_FIELDS = (
    *("id", "application_id", "type", "token", "guild_id", "guild", "channel", "channel_id"),
    *("locale", "guild_locale", "context", "app_permissions", "user"),
    "authorizing_integration_owners",
)


def _needed(name: str, data: Payload) -> Payload:
    """Return what the bot needs of an event, as the library expects it."""
    match name:
        case "MESSAGE_CREATE" | "MESSAGE_UPDATE":
            return _message(data)
        case "INTERACTION_CREATE":
            return _interaction(data)
        case "GUILD_CREATE":
            found = [_member_of({"member": one}) for one in data.get("members") or ()]
            used = _only(data, data.keys() - _UNUSED_GUILD_FIELDS)
            return used | {"members": [one["member"] for one in found if one]}
    # Discord leaves it out in a DM; the library fails for the null of compatible servers.
    return {key: data[key] for key in data if key != "guild_id" or data[key]}


def _message(data: Payload) -> Payload:
    """Return a message, with what it shows beside its text as its one embed."""
    message = {"type": 0, "content": ""} | _only(data, _MESSAGE_FIELDS) | _member_of(data)
    message["author"] = _user(data["author"])
    message["mentions"] = [_user(one) for one in data.get("mentions") or ()]
    message["embeds"] = [{"description": shown_beside_text(data)}]
    message["components"] = []
    message["attachments"] = [*files_in(data)]
    # Without this key Discord has not fetched it, and so counts one that cannot be read; null means
    # that it was deleted.
    with suppress(KeyError, TypeError, ValueError):
        answered = data["referenced_message"]
        message["referenced_message"] = None if answered is None else _message(answered)
    return message


def _interaction(data: Payload) -> Payload:
    inner = {"custom_id": "", "component_type": 0, "components": []} | (data.get("data") or {})
    seen = {"attachment_size_limit": 0, "version": 1, "data": inner}
    seen |= _only(data, _INTERACTION_FIELDS) | _member_of(data)
    if message := data.get("message"):
        seen["message"] = _message({"author": {"id": 0}} | message)
    return seen


def _user(data: Payload) -> Payload:
    """Return a user, of whom no more than the id must be known."""
    missing = {"username": "somebody", "discriminator": "0", "avatar": None}
    return missing | _only(data, data) | _member_of(data)


def _member_of(data: Payload) -> Payload:
    if not isinstance(member := data.get("member"), dict):
        return {}
    user = {"user": _user(member["user"])} if "user" in member else {}
    # Some of Discord's examples have roles as objects, and older ones no flags.
    roles = (one.get("id") if isinstance(one, dict) else one for one in member.get("roles") or ())
    return {
        "member": {"flags": 0} | _only(member, member) | user | {"roles": [*filter(_is_id, roles)]}
    }


def _only(data: Payload, keys: Iterable[str]) -> Payload:
    return {key: data[key] for key in keys if data.get(key) is not None}
