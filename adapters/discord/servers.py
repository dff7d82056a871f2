"""Reports, or leaves, servers that are not in ALLOWED_SERVERS."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection

import discord

from adapters.discord.rest import request
from bot.errors import PlaceGone, SurfaceError

_log = logging.getLogger(__name__)
_PAGE = 200  # servers, the most of one request ("Get Current User Guilds")


class UnlistedServers:
    """The servers that are not in ALLOWED_SERVERS; there are none if that is empty."""

    def __init__(self, client: discord.Client, *, allowed: Collection[str], leaves: bool) -> None:
        self._client = client
        self._allowed = allowed
        self._leaves = leaves
        self._known: set[str] = set()  # servers that were reported, or are being left

    async def check_all(self) -> None:
        """Check all servers of the bot; failures are logged."""
        if not self._allowed:
            return
        try:
            async for server, name in self._servers():
                await self.check(server, name)
        except SurfaceError as error:
            _log.warning("Cannot list the bot's servers: %s", error)

    async def check(self, server: str, name: str) -> None:
        """Report a server that is not allowed once, or leave it whenever it adds the bot."""
        if not self._allowed or server in self._allowed or server in self._known:
            return
        self._known.add(server)
        if not self._leaves:
            _log.warning(
                "Server %s (%s) is not in ALLOWED_SERVERS: nobody is answered there "
                "(LEAVE_OTHER_SERVERS=on leaves it)",
                *(server, name),
            )
            return
        try:
            ids = {"guild_id": int(server)}
            await request(self._client, "DELETE", "/users/@me/guilds/{guild_id}", ids)
            _log.warning("Left server %s (%s): it is not in ALLOWED_SERVERS", server, name)
        except PlaceGone:
            pass  # left already
        except SurfaceError as error:
            # The next start tries again.
            _log.warning("Cannot leave server %s (%s): %s", server, name, error)
        self._known.discard(server)

    async def _servers(self) -> AsyncGenerator[tuple[str, str]]:
        after = 0
        while True:
            query = {"limit": _PAGE, "after": after}
            page = await request(self._client, "GET", "/users/@me/guilds", query=query)
            for one in page:
                yield str(one["id"]), str(one.get("name"))
            if len(page) < _PAGE:
                return
            after = int(page[-1]["id"])
