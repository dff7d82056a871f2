"""Determines the caller of a command and their rights."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from adapters.slack.errors import translated
from adapters.slack.manifest import ASKED_EVENT, WITHOUT
from adapters.slack.reading import string_field
from adapters.slack.workspace import Workspace
from bot.commands.handlers import ASK_ABOUT, SUMMARISE, Call, HelpContext, MissingFeature, Scope
from bot.domain import Person
from bot.errors import ParleyError, StoreUnavailable, SurfaceError, WriteDelayed, WriteFailed
from bot.languages import later, say

_T = TypeVar("_T")

_DIRECT: Mapping[Scope, str] = {
    "thread": later("our conversation"),
    "server": later("this workspace"),
}
_IN_CHANNEL: Mapping[Scope, str] = {
    "channel": later("this channel"),
    "server": later("this workspace"),
}
_IN_THREAD: Mapping[Scope, str] = {"thread": later("this thread"), **_IN_CHANNEL}


class RightsUnknown(ParleyError):
    """Slack did not report whether a person is an admin, or created a channel."""

    apology = "Slack did not tell me what you may do here. Please try again in a moment."


async def in_time(work: Awaitable[_T], seconds: float) -> _T:
    """Await what a person waits for; raises StoreUnavailable if it takes too long."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise StoreUnavailable("there was no answer in time") from error


@dataclass(frozen=True, slots=True)
class CommandLocation:
    """The location of a command; `thread` is empty outside of threads."""

    channel: str
    thread: str = ""

    @property
    def is_direct(self) -> bool:
        """Whether it is a DM."""
        return self.channel.startswith("D")

    @property
    def scopes(self) -> Mapping[Scope, str]:
        """The scopes of the settings that can be chosen there, the nearest first."""
        if self.is_direct:
            return _DIRECT
        return _IN_THREAD if self.thread else _IN_CHANNEL


async def _known(work: Awaitable[str]) -> str:
    """Return an id; empty if Slack refuses to report it. Raises SurfaceError if it may later."""
    try:
        return await work
    except (WriteDelayed, WriteFailed):
        raise
    except SurfaceError:
        return ""


class Permissions:
    """Looks up rights. Admin status is requested each time and not cached."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._identity = workspace.identity
        self._timeout = workspace.limits.lookup_timeout

    def call(self, id_: str, location: CommandLocation, user: str) -> Call:
        """Return a call with the default rights."""
        team = self._identity.team
        return Call(
            id=id_,
            thread=self._identity.key(location.channel, location.thread),
            person=Person(user, self._workspace.directory.cached(user) or user, team),
            scopes={one: say(name) for one, name in location.scopes.items()},
            asker=self._identity.asker(location.channel, team=team),
            in_thread=bool(location.thread) and not location.is_direct,
            own_thread=location.is_direct,
            manages_messages=partial(self._workspace.is_admin, user),
        )

    async def call_with_rights(self, id_: str, location: CommandLocation, user: str) -> Call:
        """Return a call with the person's current rights. Raises RightsUnknown."""
        call = self.call(id_, location, user)
        try:
            admin, creator, author = await asyncio.gather(
                self._workspace.is_admin(user),
                _known(self._creator(location)),
                _known(self._author(location, user)),
            )
        except SurfaceError as error:
            raise RightsUnknown(str(error)) from error
        return replace(
            call,
            own_thread=author == user,
            manages_messages=admin,
            manages_channel=admin or creator == user,
            manages_server=admin,
        )

    def help_context(self, location: CommandLocation) -> HelpContext:
        """Return the instructions for a location, and the features that an admin can enable."""
        name = self._identity.name
        mention = f"`@{name} /parley {{name}}`"
        menu = "In the menu of a message, choose {ask} or {summarise}."
        menu = say(menu, ask=f"*{ASK_ABOUT}*", summarise=f"*{SUMMARISE}*")
        if location.is_direct:
            ways = [say("Write to me here: I answer each message."), menu]
            missing = {"files:read", "files:write", "users:read"} & set(self._identity.missing)
        else:
            ways = [
                say("Mention me, {bot}: I answer in the thread of your message.", bot=f"`@{name}`"),
                say("Use `/ask` here, or write to me in a DM."),
                menu,
                say(
                    "Slack has no commands in threads. Mention me with the command there: {words}.",
                    words=mention.format(name="reset"),
                ),
            ]
            missing = set(self._identity.missing)
        lacks = [
            MissingFeature(
                say(without),
                say(
                    "An admin can give my app the scope {scope} and install it again.", scope=scope
                ),
            )
            for scope, without in WITHOUT.items()
            if scope in missing
        ]
        written = "`/parley {name}`" if location.is_direct or not location.thread else mention
        return HelpContext(ways=ways, lacks=lacks, written=written)

    async def _creator(self, location: CommandLocation) -> str:
        """Return the id of a channel's creator; empty if unknown."""
        if location.is_direct:
            return ""
        async with translated(self._timeout):
            answer = await self._workspace.client.conversations_info(channel=location.channel)
        return str(answer["channel"].get("creator") or "")

    async def _author(self, location: CommandLocation, user: str) -> str:
        """Return the id of the person who started a thread; empty if unknown.

        In a DM with the bot it is the `user`. A DM of two other people, where commands can be used
        as well, cannot be read.
        """
        if not location.is_direct and not location.thread:
            return ""
        messages, _ = await self._workspace.read(
            channel=location.channel,
            thread="" if location.is_direct else location.thread,
            limit=1,
            within=self._timeout,
        )
        return user if location.is_direct else self._who_began(messages[0])

    def _who_began(self, root: Mapping[str, Any]) -> str:
        """Return the author of the first message, or the asker if the bot posted it for them."""
        metadata = root.get("metadata") or {}
        if root.get("user") == self._identity.user and metadata.get("event_type") == ASKED_EVENT:
            return str(metadata["event_payload"]["user"])
        return string_field(root, "user")
