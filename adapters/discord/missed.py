"""What people wrote while nobody listened, where the gateway does not tell it again."""

from __future__ import annotations

import asyncio
import logging
import time

import discord

from adapters.discord.errors import translated
from bot.errors import SurfaceError

_log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds after which nobody waits for an answer any more
PLACES = 50  # threads, channels and DMs that are looked through
_TOGETHER = 20.0  # seconds for all of them; what is said meanwhile waits behind
_MESSAGES = 100  # of each, at most: one request
# Messages of different channels may reach us in another order than their ids have.
_OVERLAP = 5000 << 22  # five seconds, in ids
# For the gateway to tell of the guilds after a session has begun: 5 seconds.
_SHOWN_LOOKS, _SHOWN_PAUSE = 100, 0.05

_Place = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread


async def missed(client: discord.Client, *, heard: int, dms: list[int]) -> list[discord.Message]:
    """Return the messages since the one that was heard last, place by place, oldest first.

    Only those of the last minutes, from the places that were busiest since, our own threads first.
    A place that cannot be read is left out, and so are those that come too late.
    """
    since = max(heard - _OVERLAP, _id_at(time.time() - PATIENCE))
    found: list[discord.Message] = []
    try:
        async with asyncio.timeout(_TOGETHER):
            await _shown(client)
            for place in _places(client, since)[: PLACES - len(dms)]:
                found += await _since(place, since)
            for channel_id in dms:
                found += await _in_dm(client, channel_id, since)
    except TimeoutError:
        _log.warning("what was said while the bot was away could not be looked through in time")
    return found


def newest_id() -> int:
    """Return an id like those of the messages that are written now."""
    return _id_at(time.time())


def _id_at(moment: float) -> int:
    return int(moment * 1000 - discord.utils.DISCORD_EPOCH) << 22


async def _shown(client: discord.Client) -> None:
    """Wait for the guilds: a session begins with their ids only."""
    for _ in range(_SHOWN_LOOKS):
        if not any(guild.unavailable for guild in client.guilds):
            return
        await asyncio.sleep(_SHOWN_PAUSE)
    _log.info("not all of Discord's servers are there yet")


def _places(client: discord.Client, since: int) -> list[_Place]:
    """Return where somebody wrote since then: our own threads first, then the latest."""
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
    try:
        async with translated():
            channel = await client.fetch_channel(channel_id)
    except SurfaceError as error:
        _log.info("a DM cannot be looked through: %s", error)
        return []
    return await _since(channel, since) if isinstance(channel, discord.DMChannel) else []


async def _since(place: _Place | discord.DMChannel, since: int) -> list[discord.Message]:
    after = discord.Object(since)
    try:
        async with translated():
            return [one async for one in place.history(limit=_MESSAGES, after=after)]
    except SurfaceError as error:
        _log.info("channel %d cannot be looked through: %s", place.id, error)
        return []
