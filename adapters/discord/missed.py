"""What people wrote while nobody listened, where the gateway does not tell it again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence

import discord

from adapters.discord.errors import translated
from bot.errors import SurfaceError, WriteDelayed, WriteFailed

_log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds after which nobody waits for an answer any more
PLACES = 50  # threads, channels and DMs that are looked through
_TOGETHER = 20.0  # seconds for one pass
_MESSAGES = 100  # of each, at most: one request
# Messages of different channels may reach us in another order than their ids have.
_OVERLAP = 5000 << 22  # five seconds, in ids
# For the gateway to tell of the guilds after a session has begun: 5 seconds.
_SHOWN_LOOKS, _SHOWN_PAUSE = 100, 0.05
_SHOWN_WITHIN = 60.0  # seconds after which a guild that is not there has an outage: nobody writes

_Place = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread


class Search:
    """A look for the messages since the one that was heard last, in as many passes as it takes.

    Only those of the last minutes and none before `begun`, from the places that were busiest since,
    our own threads first. It `is_over` when each place was read or cannot be, or nobody waits any
    more.
    """

    def __init__(
        self, client: discord.Client, *, heard: int, begun: int, dms: Sequence[int]
    ) -> None:
        self.is_over = False
        self._client = client
        self._since = max(heard - _OVERLAP, begun, _id_at(time.time() - PATIENCE))
        self._dms = dms
        self._began = time.monotonic()
        self._seen: set[int] = set()  # places that need no further look

    async def look(self) -> list[discord.Message]:
        """Return what one more pass has found, place by place, oldest first."""
        found: list[discord.Message] = []
        try:
            async with asyncio.timeout(_TOGETHER):
                self.is_over = await self._has_read_all(found)
        except TimeoutError:
            _log.info("what was said while the bot was away takes long to look through")
        if not self.is_over and self._lasts > PATIENCE:
            self.is_over = True
            _log.warning("some of what was said while the bot was away could not be read in time")
        return found

    @property
    def _lasts(self) -> float:
        return time.monotonic() - self._began  # seconds

    async def _has_read_all(self, found: list[discord.Message]) -> bool:
        whole = await _are_shown(self._client) or self._lasts > _SHOWN_WITHIN
        for place in self._places():
            whole &= await self._has_read(place.id, _since(place, self._since), found)
        for channel_id in self._dms:
            if channel_id not in self._seen:
                messages = _in_dm(self._client, channel_id, self._since)
                whole &= await self._has_read(channel_id, messages, found)
        return whole

    def _places(self) -> list[_Place]:
        """Return where somebody wrote since then: our own threads first, then the latest."""
        left = PLACES - len(self._seen.union(self._dms))
        places = _places(self._client, self._since)
        return [one for one in places if one.id not in self._seen][:left]

    async def _has_read(
        self,
        place_id: int,
        messages: Awaitable[list[discord.Message]],
        found: list[discord.Message],
    ) -> bool:
        try:
            found += await messages
        except (WriteDelayed, WriteFailed) as error:
            _log.info("channel %d is looked through later: %s", place_id, error)
            return False
        except SurfaceError as error:
            _log.info("channel %d cannot be looked through: %s", place_id, error)
        self._seen.add(place_id)
        return True


def newest_id() -> int:
    """Return an id like those of the messages that are written now."""
    return _id_at(time.time())


def _id_at(moment: float) -> int:
    return int(moment * 1000 - discord.utils.DISCORD_EPOCH) << 22


async def _are_shown(client: discord.Client) -> bool:
    """Wait for the guilds: a session begins with their ids only."""
    for _ in range(_SHOWN_LOOKS):
        if not any(guild.unavailable for guild in client.guilds):
            return True
        await asyncio.sleep(_SHOWN_PAUSE)
    _log.info("not all of Discord's servers are there yet")
    return False


def _places(client: discord.Client, since: int) -> list[_Place]:
    own = client.user.id if client.user else 0
    places: list[_Place] = []
    for guild in client.guilds:
        places += [*guild.threads, *guild.text_channels, *guild.voice_channels]
    found = [one for one in places if (one.last_message_id or 0) > since and _is_readable(one)]

    def rank(place: _Place) -> tuple[bool, int]:
        ours = isinstance(place, discord.Thread) and place.owner_id == own
        return ours, place.last_message_id or 0

    return sorted(found, key=rank, reverse=True)


def _is_readable(place: _Place) -> bool:
    try:
        may = place.permissions_for(place.guild.me)
    except discord.ClientException:  # a thread whose channel we do not see
        return False
    return may.read_messages and may.read_message_history


async def _in_dm(client: discord.Client, channel_id: int, since: int) -> list[discord.Message]:
    async with translated():
        channel = await client.fetch_channel(channel_id)
    return await _since(channel, since) if isinstance(channel, discord.DMChannel) else []


async def _since(place: _Place | discord.DMChannel, since: int) -> list[discord.Message]:
    after = discord.Object(since)
    async with translated():
        return [one async for one in place.history(limit=_MESSAGES, after=after)]
