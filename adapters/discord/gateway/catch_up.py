"""What people wrote while nobody listened, where the gateway does not tell it again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import discord

from adapters.discord.errors import translated
from adapters.discord.gateway.connection import fetch_channel, read_message
from adapters.discord.reply.recovery import PAGE
from bot.errors import SurfaceError, WriteDelayed, WriteFailed

_log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds after which nobody waits for an answer any more
PLACES = 50  # threads, channels and DMs that are looked through
_TOGETHER = 20.0  # seconds for one pass
# Of each place at most this many pages: three messages in a second for all of PATIENCE. All places
# together then need ten seconds of the requests that Discord takes from a bot.
_PAGES = 10
# Messages of different channels may reach us in another order than their ids have.
_OVERLAP = 5000 << 22  # five seconds, in ids
# For the gateway to tell of the guilds after a session has begun: 5 seconds.
_SHOWN_LOOKS, _SHOWN_PAUSE = 100, 0.05
_SHOWN_WITHIN = 60.0  # seconds after which a guild that is not there has an outage: nobody writes

_Place = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread


@dataclass(slots=True)
class _Reading:
    """A place that is read from its end, page by page, so that the newest are not left out.

    `found` are the messages that are for us, newest first; `place` is None until a DM is known.
    """

    id: int
    place: _Place | discord.DMChannel | None
    found: list[discord.Message] = field(default_factory=list)
    pages: int = 0
    before: int | None = None


class Search:
    """A look for the messages since the one that was heard last, in as many passes as it takes.

    Only those of the last minutes and none before `begun`, from the places that were busiest since,
    our own threads first. It `is_over` when each place was read or cannot be, or nobody waits any
    more.
    """

    def __init__(
        self,
        client: discord.Client,
        *,
        heard: int,
        begun: int,
        dms: Sequence[int],
        wanted: Callable[[discord.Message], bool],
    ) -> None:
        self.is_over = False
        self._client = client
        self._since = max(heard - _OVERLAP, begun, _id_at(time.time() - PATIENCE))
        self._wanted = wanted
        self._began = time.monotonic()
        self._readings = {one: _Reading(one, None) for one in dms}  # by place
        self._read: set[int] = set()  # places that need no further look

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
            for one in self._unread():
                found += reversed(one.found)
        return found

    @property
    def _lasts(self) -> float:
        return time.monotonic() - self._began  # seconds

    async def _has_read_all(self, found: list[discord.Message]) -> bool:
        whole = await _are_shown(self._client) or self._lasts > _SHOWN_WITHIN
        self._choose()
        reading = self._unread()
        # One page of each place in turn: one where much was said holds up no other.
        while reading:
            left = [one for one in reading if await self._is_read_on(one, found)]
            whole &= all(one.id in self._read for one in reading if one not in left)
            reading = left
        return whole

    def _choose(self) -> None:
        """Add places where somebody wrote since then: our own threads first, then the latest."""
        places = [one for one in _places(self._client, self._since) if one.id not in self._readings]
        for one in places[: max(0, PLACES - len(self._readings))]:
            self._readings[one.id] = _Reading(one.id, one)

    def _unread(self) -> list[_Reading]:
        """Return what is to be read on, DMs last."""
        unread = [one for one in self._readings.values() if one.id not in self._read]
        return sorted(unread, key=lambda one: isinstance(one.place, discord.DMChannel | None))

    async def _is_read_on(self, reading: _Reading, found: list[discord.Message]) -> bool:
        """Read one more page; False where that was the last one, or the next one has to wait."""
        try:
            if not await self._is_at_its_end(reading):
                return True
        except (WriteDelayed, WriteFailed) as error:
            _log.info("channel %d is looked through later: %s", reading.id, error)
            return False
        except SurfaceError as error:
            _log.info("channel %d cannot be looked through: %s", reading.id, error)
        self._read.add(reading.id)
        found += reversed(reading.found)
        return False

    async def _is_at_its_end(self, reading: _Reading) -> bool:
        place = reading.place = reading.place or await _dm(self._client, reading.id)
        if place is None:
            return True
        page = await _page(self._client, place, reading.before)
        new = [one for one in page if int(one["id"]) > self._since]
        messages = [read_message(place, one) for one in new]
        reading.found += [one for one in messages if one and self._wanted(one)]
        if len(new) < PAGE:
            return True
        reading.before, reading.pages = int(new[-1]["id"]), reading.pages + 1
        if reading.pages < _PAGES:
            return False
        _log.warning("of channel %d only the last %d messages are read", place.id, _PAGES * PAGE)
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
        places += [*guild.threads, *guild.text_channels]
        places += [*guild.voice_channels, *guild.stage_channels]
    found = [one for one in places if (one.last_message_id or 0) > since and _is_readable(one)]

    def rank(place: _Place) -> tuple[bool, int]:
        ours = isinstance(place, discord.Thread) and place.owner_id == own
        return ours, place.last_message_id or 0

    return sorted(found, key=rank, reverse=True)


def _is_readable(place: _Place) -> bool:
    try:
        may = place.permissions_for(place.guild.me)
    # A thread whose channel we do not see, or a server that was parsed in part.
    except (discord.ClientException, AttributeError):
        return False
    return may.read_messages and may.read_message_history


async def _dm(client: discord.Client, channel_id: int) -> discord.DMChannel | None:
    channel = await fetch_channel(client, channel_id)
    return channel if isinstance(channel, discord.DMChannel) else None


async def _page(
    client: discord.Client, place: _Place | discord.DMChannel, before: int | None
) -> list[Any]:
    """Return messages as Discord tells them: the library would parse all of a page, or none."""
    async with translated():
        return [*await client.http.logs_from(place.id, PAGE, before=before)]
