"""Reports, or leaves, servers that are not in ALLOWED_SERVERS."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Collection

import discord

from adapters.discord.rest import request
from bot.errors import SurfaceError

_log = logging.getLogger(__name__)
_PAGE = 200  # servers, the most of one request ("Get Current User Guilds")


class UnlistedServers:
    """The servers that are not in ALLOWED_SERVERS; there are none if that is empty."""

    def __init__(self, client: discord.Client, *, allowed: Collection[str], leaves: bool) -> None:
        self._client = client
        self._allowed = allowed
        self._leaves = leaves
        self._reported_at: dict[str, float] = {}  # when, in seconds since the epoch

    async def check_all(self) -> None:
        """Check all servers of the bot; failures are logged."""
        if not self._allowed:
            return
        try:
            async for server, name in self._servers():
                await self.check(server, name)
        except SurfaceError as error:
            _log.warning("Cannot list the bot's servers: %s", error)

    async def check(self, server: str, name: str, *, since: float = 0.0) -> None:
        """Tell of a server that is not allowed, and leave it if the operator wants that.

        It is told of once, and again if the bot was added there `since` then.
        """
        if (
            not self._allowed
            or server in self._allowed
            or since <= self._reported_at.get(server, -1.0)
        ):
            return
        self._reported_at[server] = time.time()
        if not self._leaves:
            _log.warning(
                "I am in server %s (%s), which is not in ALLOWED_SERVERS: I answer nobody there "
                "(LEAVE_OTHER_SERVERS=on has me leave it)",
                *(server, name),
            )
            return
        try:
            ids = {"guild_id": int(server)}
            await request(self._client, "DELETE", "/users/@me/guilds/{guild_id}", ids)
            _log.warning("I have left server %s (%s): it is not in ALLOWED_SERVERS", server, name)
        except SurfaceError as error:
            # The next start tries it again; nobody is answered there meanwhile.
            _log.warning("I cannot leave server %s (%s): %s", server, name, error)

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
