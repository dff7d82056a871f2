"""One shard of the gateway, whose session outlives connections and processes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import aiohttp
import discord

from adapters.discord.gateway.catch_up import id_at
from adapters.discord.gateway.connection import Connection
from adapters.discord.gateway.inbox import PendingEvent, Progress
from adapters.discord.gateway.session_store import SavedSession, Session
from adapters.discord.tuning import Tuning
from bot.concurrency import running
from bot.errors import StoreUnavailable, SurfaceError
from bot.ports import Downtime

_log = logging.getLogger(__name__)
_random = random.SystemRandom()

# Errors of discord.py 2.7.1 for network and server problems.
CONNECTION_ERRORS = (
    OSError,
    aiohttp.ClientError,
    discord.ConnectionClosed,
    discord.HTTPException,
    SurfaceError,  # from a client's trace, or from `request`
)
UNREACHABLE = "Shard %s: cannot reach the gateway: %s"

_DISALLOWED_INTENTS = 4014  # "Opcodes and Status Codes", gateway close event codes


class Shard:
    """`number` of `count` shards, or None for a bot with only one; it outlives its clients.

    `began_at` is the snowflake of the bot's very first start, else 0. `servers` is the number of
    servers of the session.
    """

    def __init__(
        self, *, number: int | None, count: int | None, saved: SavedSession, tuning: Tuning
    ) -> None:
        self.number = number
        self.count = count
        self.saved = saved
        self.downtime = Downtime()
        self.began_at = 0
        self.servers = 0
        self.tuning = tuning
        self._progress = Progress()
        self._session: Session | None = None  # is resumed next; None begins a new one
        self._is_first = True  # until a session is taken over or begun
        self._on_session: Callable[[PendingEvent], None] = lambda _: None
        # Held until all messages missed before it are admitted.
        self._first: PendingEvent | None = None

    @property
    def last_handled(self) -> int:
        """The id of the last message that any process has handled."""
        return self._progress.newest

    async def wait_until_connected(self, first: PendingEvent) -> bool:
        """Wait for a connection; False if the event belongs to an earlier session."""
        while True:
            if not self.downtime.seconds():
                return first is self._first
            await asyncio.sleep(self.tuning.start_poll)

    async def serve(
        self,
        client: discord.Client,
        *,
        on_session: Callable[[PendingEvent], None],
        on_event: Callable[[object, PendingEvent], None],
    ) -> None:
        """Keep a logged-in client connected, and its session saved, until cancelled.

        `on_session` is called before the events of a new session. It may hold its event until
        missed messages are admitted.

        Raises discord.ConnectionClosed and PrivilegedIntentsRequired if Discord refuses the shard.
        """

        def begin(event: PendingEvent) -> None:
            self._is_first = False
            self._begin(event, len(client.guilds))

        self._on_session = on_session
        connection = Connection(
            client,
            self._progress,
            downtime=self.downtime,
            tuning=self.tuning,
            on_session=begin,
            on_event=on_event,
        )
        intents = client.intents.value
        try:
            async with running(self._save_until_cancelled(connection, intents)):
                try:
                    await self._stay_connected(connection, intents)
                finally:
                    # Before anything else, because a second signal may end the process.
                    await connection.leave()
        finally:
            # A catch-up ends with its client, so the next client begins a session and a catch-up.
            self._session = None
            with suppress(TimeoutError, StoreUnavailable):
                async with asyncio.timeout(self.tuning.last_save_within):
                    await self._save(self._position(connection), intents)

    async def _stay_connected(self, connection: Connection, intents: int) -> None:
        clock = asyncio.get_running_loop().time
        losses = 0
        while True:
            began_at = clock()
            try:
                await self._connect(connection, intents)
            except discord.ConnectionClosed as closed:
                if closed.code == _DISALLOWED_INTENTS:
                    raise discord.PrivilegedIntentsRequired(closed.shard_id) from closed
                if closed.code != 1000:
                    raise
            except CONNECTION_ERRORS as error:
                _log.warning(UNREACHABLE, self.number, str(error) or type(error).__name__)
                await connection.leave()
                if self._session:
                    # Its own address may be unreachable.
                    self._session = replace(self._session, url="")
            losses = 0 if clock() - began_at > self.tuning.steady_after else losses + 1
            # After the first loss, reconnect at once.
            if losses > 1:
                pause = self.tuning.reconnect.delay(losses - 1)
                await asyncio.sleep(pause * _random.uniform(0.5, 1.0))

    async def _connect(self, connection: Connection, intents: int) -> None:
        """Resume the session or begin one, until it ends."""
        if self._is_first:
            await self._take_over(intents)
        elif self._session and await self._is_taken(self._session):
            # Otherwise the two processes would take it in turn for ever.
            self._session = None
        session = self._session
        if session is None:
            await self._await_start(connection)
        try:
            is_resumable = await connection.run(session)
        finally:
            self._session = connection.session or self._session
        if not is_resumable:
            self._session = None

    async def _take_over(self, intents: int) -> None:
        """Take over the session of an earlier process, and the catch-up that it did not finish."""
        session = await self._read_saved(intents)
        if session is None:
            return
        self._is_first = False
        # Without the servers: later connections of this process continue this catch-up.
        self._session = replace(session, servers=None)
        if session.servers is not None:
            with self._progress.handling(session.seq) as event:
                self._begin(event, session.servers)

    async def _read_saved(self, intents: int) -> Session | None:
        """Return the saved session, and read what was handled last.

        Waits for the store, because only the saved session receives what Discord has sent to it.
        """
        now, failures = id_at(), 0
        while True:
            try:
                if not self.last_handled:
                    # Saved as the point from which the next process would catch up.
                    before = await self.saved.last_handled(or_else=now)
                    self.began_at = 0 if before else now
                    self._progress.newest = before or now
                return await self.saved.take(intents)
            except StoreUnavailable as error:
                _log.warning("Shard %s: cannot read the saved session: %s", self.number, error)
            failures += 1
            await asyncio.sleep(self.tuning.store_retry.delay(failures))

    async def _is_taken(self, session: Session) -> bool:
        with suppress(StoreUnavailable):
            return await self.saved.is_taken(session)
        return False

    def _begin(self, first: PendingEvent, servers: int) -> None:
        self._first, self.servers = first, servers
        self._on_session(first)

    async def _await_start(self, connection: Connection) -> None:
        """Wait until a new session may start."""
        if not self._is_first:
            await asyncio.sleep(_random.uniform(*self.tuning.start_pause))
        limit = await connection.start_limit()
        if limit["remaining"] < 1:
            seconds = limit["reset_after"] / 1000
            _log.error("Shard %s: Discord allows no more sessions for %.0f s", self.number, seconds)
            await asyncio.sleep(seconds)
        await self._await_other_shards(limit["max_concurrency"])

    async def _await_other_shards(self, at_once: int) -> None:
        """Wait for shards, also of other processes, that may not start at the same time."""
        if self.number is None:
            return
        bucket, seconds = self.number % max(1, at_once), self.tuning.start_spacing
        # Discord refuses an early start, which is then retried.
        with suppress(StoreUnavailable):
            while True:
                if await self.saved.reserve_start(bucket, seconds=seconds):
                    return
                await asyncio.sleep(self.tuning.start_poll)

    async def _save_until_cancelled(self, connection: Connection, intents: int) -> None:
        clock, tuning = asyncio.get_running_loop().time, self.tuning
        saved, saved_at = None, -tuning.renew_after
        while True:
            await asyncio.sleep(tuning.save_every)
            position = self._position(connection)
            current = position, self._progress.newest
            is_fresh = current == saved and clock() - saved_at < tuning.renew_after
            with suppress(StoreUnavailable):
                await self._save(None if is_fresh else position, intents)
                if not is_fresh:
                    saved, saved_at = current, clock()

    def _position(self, connection: Connection) -> Session | None:
        """Return the session up to the last handled event; None if it must not be saved."""
        session = connection.session
        if session and self._first and self._first.holds:
            return replace(session, seq=self._first.seq, servers=self.servers)
        seq = self._progress.handled(session.seq) if session else 0
        return replace(session, seq=seq) if session and seq else None

    async def _save(self, position: Session | None, intents: int) -> None:
        # Even if another process holds the session, because Discord does not list DMs.
        await self.saved.save_dms()
        if position:
            await self.saved.save(position, intents=intents, newest=self._progress.newest)
