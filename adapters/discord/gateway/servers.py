"""The servers of the bot: which have added it, and which have removed it, also while it was off."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import discord

from adapters.discord.gateway.shard import Shard
from adapters.discord.rest import request
from bot.errors import PlaceGone, StoreUnavailable, SurfaceError
from bot.intake.intake import Intake
from bot.store import Store

_log = logging.getLogger(__name__)

_NAME = "discord"
# Unknown Guild, and Missing Access (Discord's documentation, "Opcodes and Status Codes").
_NOT_A_MEMBER = (10004, 50001)
_AT_ONCE = 1000  # ids in a command

_ADD = "return redis.call('SADD', KEYS[1], unpack(ARGV))"


class OwnServers:
    """Has a server forgotten that has removed the bot, unless it is added again in time.

    The servers of the bot's application are in the store, so that those that are missing from the
    next session's list are found. That list may be incomplete, so each is asked for: only Discord's
    word that it is unknown counts. Coroutines raise StoreUnavailable.
    """

    def __init__(self, client: discord.Client, intake: Intake, store: Store) -> None:
        self._client = client
        self._intake = intake
        self._store = store
        self._key = store.key("servers", _NAME, str(client.application_id))
        # A full store must not hold up the events behind a session's list.
        self._add = store.script(_ADD, if_full=True)
        # Servers of a session's list, which Discord sends once more, one by one.
        self._listed: set[str] = set()

    def is_listed(self, server: str) -> bool:
        """Whether a server comes for the first time after a session's list with it."""
        is_listed = server in self._listed
        self._listed.discard(server)
        return is_listed

    def note_list(self, servers: Collection[str]) -> None:
        """Note a session's list."""
        self._listed.update(servers)

    async def keep(self, servers: Collection[str]) -> None:
        """Store that the bot is in servers: none of them is forgotten any more."""
        for some in _parts(sorted(servers)):
            await self._intake.keep_servers(_NAME, some)
            await self._add(keys=[self._key], args=some)

    async def find_removed(self, servers: Collection[str], shard: Shard) -> None:
        """Have those servers forgotten that a session's list of a shard lacks.

        While the store is away none is; the next session tells of them again.
        """
        try:
            known: set[str] = await self._store.command("SMEMBERS", self._key)
            for server in sorted(known.difference(servers)):
                # Discord's documentation, "Gateway", "Sharding".
                if (int(server) >> 22) % (shard.count or 1) == (shard.number or 0):
                    await self._ask_for(server)
        except StoreUnavailable as error:
            _log.warning("Servers that may be gone are looked for at the next session: %s", error)

    async def forget(self, server: str) -> None:
        """Have a server forgotten that the bot is no longer in."""
        self._listed.discard(server)
        await self._intake.forget_server(_NAME, server)
        await self._store.command("SREM", self._key, server)

    async def _ask_for(self, server: str) -> None:
        try:
            await request(self._client, "GET", "/guilds/{guild_id}", {"guild_id": int(server)})
        except PlaceGone as error:
            if getattr(error.__cause__, "code", 0) in _NOT_A_MEMBER:
                await self.forget(server)
        except SurfaceError as error:
            _log.warning("Cannot ask for server %s, which may be gone: %s", server, error)


def _parts(servers: list[str]) -> Iterator[list[str]]:
    return (servers[at : at + _AT_ONCE] for at in range(0, len(servers), _AT_ONCE))
