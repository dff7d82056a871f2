"""Tells messages for the bot from those of others."""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeVar

import discord

from adapters.discord.gateway.events import Channel, answered_message
from adapters.discord.rest import fetch_channel, own_id, request

_T = TypeVar("_T")

_WRITTEN = (discord.MessageType.default, discord.MessageType.reply)


class Relevance(Enum):
    """Why a message is for the bot, or that it is not."""

    NONE = auto()
    UNKNOWN = auto()  # its channel, or the bot's role there, has to be looked up
    DIRECT = auto()  # in a DM
    MENTION = auto()  # of the bot or of its role
    OWN_THREAD = auto()  # in a Discord thread that the bot opened
    REPLY = auto()  # to a message of the bot, among other conversations


class MessageFilter:
    """Classifies messages.

    A session that was resumed shows no servers: REST is asked once for each channel, and for the
    bot's own role in each server. Discord makes that role when a bot is invited with permissions,
    under the bot's name, and people mention it in place of the bot.
    """

    def __init__(self, client: discord.Client, *, remembered: int) -> None:
        self._client = client
        self._remembered = remembered
        # The kind and the owner of a channel never change.
        self._channels: dict[int, object] = {}
        # By server; 0 if there is none. A role that is made later is known from the next session.
        self._roles: dict[int, int] = {}

    def classify(self, message: discord.Message) -> Relevance:
        """Return the relevance of a message as far as it is known."""
        if message.author.bot or message.webhook_id or message.type not in _WRITTEN:
            return Relevance.NONE
        channel = self._known_channel(message)
        if isinstance(channel, discord.DMChannel):
            return Relevance.DIRECT
        bot_id, reads_everything = own_id(self._client), self._client.intents.message_content
        # By name, or by a reply that notifies.
        is_mentioned = any(user.id == bot_id for user in message.mentions)
        is_called = is_mentioned or self.mentions_role(message)
        is_reply = answered_message(message, bot_id) is not None
        if isinstance(channel, discord.PartialMessageable):
            may_be = is_called is not False or is_reply or reads_everything
            return Relevance.UNKNOWN if may_be else Relevance.NONE
        if is_called is None:
            return Relevance.UNKNOWN
        if is_called:
            return Relevance.MENTION
        if isinstance(channel, discord.Thread):
            is_own = channel.owner_id == bot_id and reads_everything
            return Relevance.OWN_THREAD if is_own else Relevance.NONE
        return Relevance.REPLY if is_reply else Relevance.NONE

    async def resolve(self, message: discord.Message) -> tuple[Relevance, Channel | None]:
        """Look up what is unknown; return the relevance and the channel; raises SurfaceError.

        The channel is None if a message in it is not for the bot.
        """
        relevance = self.classify(message)
        if relevance is Relevance.UNKNOWN:
            await self._look_up_role(message)
            channel = self._known_channel(message)
            if isinstance(channel, discord.PartialMessageable):
                found = await fetch_channel(self._client, channel.id)
                self._remember(self._channels, channel.id, found)
            relevance = self.classify(message)
        channel = self._known_channel(message)
        if relevance is Relevance.UNKNOWN or not isinstance(channel, Channel):
            return Relevance.NONE, None
        return relevance, channel

    def mentions_role(self, message: discord.Message) -> bool | None:
        """Whether a message mentions the bot's own role; None until that is looked up."""
        # The library knows the roles of a server that the gateway has shown. The text names the
        # others too, and perhaps one that the person may not ping. Guess: `mention_roles` leaves
        # such a role out.
        mentioned = {role.id for role in message.role_mentions} | {*message.raw_role_mentions}
        own = self.role(message) if mentioned else 0
        return None if own is None else own > 0 and own in mentioned

    def role(self, message: discord.Message) -> int | None:
        """Return the id of the bot's own role: 0 if there is none, None until it is looked up."""
        guild = message.guild
        # The role of everybody has the server's id; it is missing until the server is shown.
        if guild is not None and guild.get_role(guild.id):
            return guild.self_role.id if guild.self_role else 0
        server = _server_of(message)
        return 0 if server is None else self._roles.get(server)

    def _known_channel(self, message: discord.Message) -> object:
        return self._channels.get(message.channel.id, message.channel)

    async def _look_up_role(self, message: discord.Message) -> None:
        server = _server_of(message)
        if self.mentions_role(message) is not None or server is None:
            return
        roles = await request(self._client, "GET", "/guilds/{guild_id}/roles", {"guild_id": server})
        tags = {int(role["id"]): role.get("tags") or {} for role in roles}
        own = (one for one, tag in tags.items() if tag.get("bot_id") == str(own_id(self._client)))
        self._remember(self._roles, server, next(own, 0))

    def _remember(self, known: dict[int, _T], key: int, value: _T) -> None:
        known[key] = value
        if len(known) > self._remembered:
            del known[next(iter(known))]


def _server_of(message: discord.Message) -> int | None:
    if message.guild is not None:
        return message.guild.id
    channel = message.channel
    return channel.guild_id if isinstance(channel, discord.PartialMessageable) else None
