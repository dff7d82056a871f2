"""Finds messages that were missed and that the gateway does not repeat."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import suppress

import discord

from adapters.discord.gateway.connection import read_message
from adapters.discord.gateway.events import is_opened_by
from adapters.discord.rest import fetch_channel, fetch_messages
from adapters.discord.tuning import Tuning
from bot.concurrency import cancelled
from bot.errors import SurfaceError, WriteDelayed, WriteFailed

_log = logging.getLogger(__name__)

_ServerChannel = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread
_Found = list[discord.Message]


class CatchUp:
    """Searches channels for the messages after `last_handled`.

    Only recent messages are read, none before `began_at`. The bot's own threads come first, then
    the channels with the latest messages. `servers` is the expected number of servers.
    """

    def __init__(
        self,
        client: discord.Client,
        *,
        last_handled: int,
        began_at: int,
        dms: Collection[int],
        servers: int,
        wanted: Callable[[discord.Message], bool],
        tuning: Tuning,
    ) -> None:
        self._client = client
        self._tuning = tuning
        self._wanted = wanted
        self._dms = dms
        self._servers = servers
        overlap = int(tuning.catch_up_overlap * 1000) << 22
        oldest = id_at(time.time() - tuning.answers_wanted_for)
        self._since = max(last_handled - overlap, began_at, oldest)
        self._searched: dict[int, asyncio.Event] = {}  # by channel: set if it is read or failing
        self._tasks: list[asyncio.Task[_Found]] = []
        self._requests = asyncio.Semaphore(tuning.catch_up_at_once)

    async def messages(self) -> AsyncGenerator[_Found]:
        """Yield what one pass finds, then what is left, channel by channel, oldest first."""
        try:
            if not await self._wait_for_servers(self._tuning.servers_within):
                self._tasks.append(asyncio.create_task(self._search_late_servers()))
            self._search_servers()
            for channel in self._dms:
                self._search(channel, None)
            # A failing channel is retried, but the pass does not wait for it.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tuning.catch_up_pass):
                    for is_read_or_failing in [*self._searched.values()]:
                        await is_read_or_failing.wait()
            yield self._take_found()
            while self._tasks:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                yield self._take_found()
        finally:
            await cancelled(*self._tasks)

    def _take_found(self) -> _Found:
        over = [task for task in self._tasks if task.done()]
        self._tasks = [task for task in self._tasks if task not in over]
        return [message for task in over for message in task.result()]

    async def _wait_for_servers(self, seconds: float) -> bool:
        """Wait for the servers: a session begins with their ids only, and a RESUME with none."""
        deadline, client = time.monotonic() + seconds, self._client
        while len(client.guilds) < self._servers or any(one.unavailable for one in client.guilds):
            if time.monotonic() >= deadline:
                _log.info("Not all servers were received within %.0f s", seconds)
                return False
            await asyncio.sleep(0.05)
        return True

    async def _search_late_servers(self) -> _Found:
        await self._wait_for_servers(self._tuning.late_servers_within)
        self._search_servers()
        return []

    def _search_servers(self) -> None:
        channels: list[_ServerChannel] = []
        for guild in self._client.guilds:
            channels += [*guild.threads, *guild.text_channels]
            channels += [*guild.voice_channels, *guild.stage_channels]

        def rank(channel: _ServerChannel) -> tuple[bool, int]:
            return is_opened_by(self._client, channel), channel.last_message_id or 0

        used = [one for one in channels if (one.last_message_id or 0) > self._since]
        new = [one for one in used if one.id not in self._searched and _is_readable(one)]
        room = self._tuning.catch_up_channels - len({*self._searched, *self._dms})
        for channel in sorted(new, key=rank, reverse=True)[: max(0, room)]:
            self._search(channel.id, channel)

    def _search(self, channel_id: int, channel: _ServerChannel | None) -> None:
        self._searched[channel_id] = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._read(channel_id, channel)))

    async def _read(self, channel_id: int, channel: object) -> _Found:
        found: _Found = []  # newest first
        try:
            async with asyncio.timeout(self._tuning.catch_up_for):
                await self._read_into(found, channel_id, channel)
        except TimeoutError:
            _log.warning("Channel %d: catch-up timed out", channel_id)
        except SurfaceError as error:
            _log.info("Channel %d: cannot catch up: %s", channel_id, error)
        except Exception:
            # The search goes on in the other channels.
            _log.exception("Channel %d: cannot catch up", channel_id)
        self._searched[channel_id].set()
        return found[::-1]

    async def _read_into(self, found: _Found, channel_id: int, channel: object) -> None:
        """Read a channel backwards, so that the limit of pages skips the oldest messages."""
        tuning, failures, pages = self._tuning, 0, 0
        size, before = tuning.page_size, dict[str, int]()
        while pages < tuning.catch_up_pages:
            try:
                # Channels take turns page by page, so a busy one does not delay the others.
                async with self._requests:
                    channel = channel or await fetch_channel(self._client, channel_id)
                    page = await fetch_messages(self._client, channel_id, limit=size, **before)
            except (WriteDelayed, WriteFailed) as error:
                _log.info("Channel %d: catch-up will retry: %s", channel_id, error)
                self._searched[channel_id].set()
                failures += 1
                asked_for = error.retry_after if isinstance(error, WriteDelayed) else 0.0
                await asyncio.sleep(max(tuning.catch_up_retry.delay(failures), asked_for))
                continue
            if not isinstance(channel, _ServerChannel | discord.DMChannel):
                return
            new = [one for one in page if int(one["id"]) > self._since]
            # One by one, because one bad message makes the library fail for the whole page.
            messages = [read_message(channel, one) for one in new]
            found += [one for one in messages if one and self._wanted(one)]
            if len(new) < size:
                return
            pages, before = pages + 1, {"before": int(new[-1]["id"])}
        _log.warning("Channel %d: only the last %d messages are read", channel_id, pages * size)


def id_at(moment: float | None = None) -> int:
    """Return the snowflake of a moment, by default now."""
    moment = time.time() if moment is None else moment
    return int(moment * 1000 - discord.utils.DISCORD_EPOCH) << 22


def _is_readable(channel: _ServerChannel) -> bool:
    try:
        permissions = channel.permissions_for(channel.guild.me)
    # The channel of a thread is not visible, or the server was parsed in part.
    except (discord.ClientException, AttributeError):
        return False
    return permissions.read_messages and permissions.read_message_history
