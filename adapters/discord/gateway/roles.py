"""The bot's own role in each server, which people mention in place of the bot.

Discord makes it when a bot is invited with permissions, under the bot's name, and manages it.
"""

from __future__ import annotations

from collections import OrderedDict

import discord

from adapters.discord.errors import translated
from adapters.discord.gateway.events import mentioned_roles

_SERVERS = 10_000  # servers that are remembered if the gateway has not shown them


class OwnRoles:
    """Tells mentions of the bot's own role from those of others.

    A session that was resumed shows no server: REST is asked once for the roles of each.
    """

    def __init__(self, client: discord.Client) -> None:
        self._client = client
        # By server; 0 if there is none. A role that is made later is known from the next session.
        self._looked_up: OrderedDict[int, int] = OrderedDict()

    def is_mentioned(self, message: discord.Message) -> bool | None:
        """Whether a message mentions the role; None until `look_up` has asked Discord."""
        mentioned = mentioned_roles(message)
        own = self._known(message) if mentioned else 0
        return None if own is None else own > 0 and own in mentioned

    def of(self, message: discord.Message) -> int:
        """Return the id of the role in the message's server, as far as it is known; else 0."""
        return self._known(message) or 0

    async def look_up(self, message: discord.Message) -> None:
        """Ask Discord for the role if a message mentions one that may be it; SurfaceError."""
        server = _server(message)
        if self.is_mentioned(message) is not None or server is None:
            return
        async with translated():
            roles = await self._client.http.get_roles(server)
        own = [role["id"] for role in roles if self._is_own(role.get("tags"))]
        self._looked_up[server] = int(own[0]) if own else 0
        if len(self._looked_up) > _SERVERS:
            self._looked_up.popitem(last=False)

    def _known(self, message: discord.Message) -> int | None:
        guild = message.guild
        # The role that everybody has bears the server's id; it is missing until that is shown.
        if guild is not None and guild.get_role(guild.id):
            return guild.self_role.id if guild.self_role else 0
        server = _server(message)
        return 0 if server is None else self._looked_up.get(server)

    def _is_own(self, tags: object) -> bool:
        bot = self._client.user
        return isinstance(tags, dict) and bot is not None and tags.get("bot_id") == str(bot.id)


def _server(message: discord.Message) -> int | None:
    """Return the id of the server; None in a DM."""
    if message.guild is not None:
        return message.guild.id
    channel = message.channel
    return channel.guild_id if isinstance(channel, discord.PartialMessageable) else None
