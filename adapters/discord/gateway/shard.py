"""One shard of the gateway, whose session outlives connections and processes."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import replace

import aiohttp
import discord

from adapters.discord.gateway.catch_up import id_at
from adapters.discord.gateway.connection import Connection, Frame, SessionBegan
from adapters.discord.gateway.inbox import PendingEvent, Progress
from adapters.discord.gateway.session_store import SavedSession, Session
from adapters.discord.tuning import Tuning
from bot.concurrency import Backoff, do_nothing, running
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
        self._progress = Progress()
        self.tuning = tuning
        self._session: Session | None = None  # resumed next; without one a new one begins
        # An earlier process's session, preferred because only it receives new DMs.
        self._earlier: Session | None = None
        self._is_without_session = True  # no session has begun or been found
        self._unread = False  # the store could not be asked for an earlier session
        self._on_event: Callable[[object, PendingEvent], None] = do_nothing
        # Held until all messages missed before it are admitted.
        self._catching_up: PendingEvent | None = None
        self._began = asyncio.Event()  # set until a new session is saved
        self._found = asyncio.Event()  # set while an earlier session is to be resumed
        self._starts: list[float] = []  # of recent sessions, in loop time
        # How many sessions may begin until a time on the clock of `time`, and how many afterwards.
        self._allowance = math.nan, math.inf, math.nan

    async def last_handled(self) -> int:
        """Return the id of the last message that any process has handled.

        For a bot that never listened before it is the current time, which is saved. Raises
        StoreUnavailable.
        """
        progress = self._progress
        if not progress.newest:
            # The time of the first call, to lose no message before the store answers.
            now = self.began_at = self.began_at or id_at()
            before = await self.saved.last_handled(or_else=now)
            self.began_at = 0 if before else now
            progress.newest = before or now
        return progress.newest

    def starts_remaining(self) -> float:
        """Return how many sessions the bot may still begin; NaN if Discord was not asked yet.

        Known when a session of this shard begins: others may have begun since then.
        """
        remaining, until, total = self._allowance
        return remaining if time.time() < until else total

    async def wait_until_connected(self, event: PendingEvent) -> bool:
        """Wait for a connection; False if the event belongs to an earlier session."""
        while True:
            if not self.downtime.seconds():
                return event is self._catching_up
            await asyncio.sleep(self.tuning.start_poll)

    async def serve(
        self, client: discord.Client, *, on_event: Callable[[object, PendingEvent], None]
    ) -> None:
        """Keep a logged-in client connected, and its session saved, until cancelled.

        `on_event` is called with each parsed event, and with SessionBegan before those of a new
        session, which may be held until missed messages are admitted.

        Raises discord.ConnectionClosed and PrivilegedIntentsRequired if Discord refuses the shard.
        """
        self._on_event = on_event
        connection, intents = Connection(client, self.tuning), client.intents.value
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
                if closed.code != 1000:
                    self._session = None
                    if closed.code == _DISALLOWED_INTENTS:
                        self._starts.clear()
                        raise discord.PrivilegedIntentsRequired(closed.shard_id) from closed
                    raise
            except CONNECTION_ERRORS as error:
                _log.warning(UNREACHABLE, self.number, str(error) or type(error).__name__)
                await connection.leave()
                if self._session:
                    self._session = replace(self._session, url="")  # it may be unreachable
                else:
                    del self._starts[-1:]  # it failed
            losses = 0 if clock() - began_at > self.tuning.steady_after else losses + 1
            # After the first loss, reconnect at once.
            if losses > 1:
                pause = self.tuning.reconnect.delay(losses - 1)
                await asyncio.sleep(pause * _random.uniform(0.5, 1.0))

    async def _connect(self, connection: Connection, intents: int) -> None:
        await self._choose_session(intents)
        if self._session is None:
            await self._await_start(connection)
            if self._earlier:
                return
            # Saved as the point from which the next process would catch up.
            with suppress(StoreUnavailable):
                await self.last_handled()
        try:
            async with aclosing(connection.frames(self._session)) as frames:
                async for frame in frames:
                    self._handle(frame, connection)
        finally:
            self.downtime.note(is_open=False)
            self._session = connection.session or self._session
        if connection.is_over and (ended := self._session):
            self._session = None
            # Else each new process would try it before it begins its own.
            with suppress(StoreUnavailable):
                await self.saved.drop(ended)

    def _handle(self, frame: Frame, connection: Connection) -> None:
        if frame.name in ("READY", "RESUMED"):
            self.downtime.note(is_open=True)
        if frame.name == "READY":
            self._progress.new_session()
        with self._progress.handling(frame.seq, frame.message_id) as event:
            if frame.name == "READY":
                self._session, self._is_without_session = connection.session, False
                self._begin(event, connection.servers)
            for parsed in frame.parsed:
                self._on_event(parsed, event)

    async def _choose_session(self, intents: int) -> None:
        # A session that another process has taken is not resumed, or the two would take it in turn
        # for ever.
        if self._earlier is None:
            try:
                if self._is_without_session or self._unread:
                    await self._look_up(intents)
                elif self._session and await self.saved.is_taken(self._session):
                    self._session = None
            except StoreUnavailable as error:
                _log.warning("Shard %s: cannot read the saved session: %s", self.number, error)
                self._unread |= self._is_without_session
        self._found.clear()
        if earlier := self._earlier:
            self._session, self._earlier = replace(earlier, servers=None), None
            self._progress.new_session()
            self._catching_up = None
            if earlier.servers is not None:
                # That process did not finish its catch-up.
                with self._progress.handling(earlier.seq) as event:
                    self._begin(event, earlier.servers)

    def _begin(self, event: PendingEvent, servers: int) -> None:
        self._catching_up, self.servers = event, servers
        self._began.set()
        self._on_event(SessionBegan(), event)

    async def _look_up(self, intents: int) -> None:
        self._earlier = await self.saved.take(intents)
        self._unread = False
        if self._earlier:
            self._is_without_session = False
            self._found.set()

    async def _await_start(self, connection: Connection) -> None:
        """Wait until a new session may start, or an earlier process's session is found."""
        clock, tuning = asyncio.get_running_loop().time, self.tuning
        self._starts = [at for at in self._starts if clock() - at < tuning.calm_after]
        if self._starts or not self._is_without_session:
            await self._wait(start_pause(len(self._starts), tuning))
        limit = await connection.start_limit()
        until = time.time() + limit["reset_after"] / 1000
        self._allowance = limit["remaining"], until, limit["total"]
        if limit["remaining"] < 1:
            seconds = limit["reset_after"] / 1000
            _log.error("Shard %s: Discord allows no more sessions for %.0f s", self.number, seconds)
            await self._wait(seconds)
        await self._await_other_shards(limit["max_concurrency"])
        self._starts.append(clock())

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._found.wait()

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
        saved, saved_at = None, 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(tuning.save_every):
                    await self._began.wait()
            has_begun = self._began.is_set()
            self._began.clear()
            if self._unread:
                with suppress(StoreUnavailable):
                    await self._look_up(intents)
            if self._earlier:
                await connection.leave()
            position = self._position(connection)
            current = position, self._progress.newest
            is_due = current != saved or clock() - saved_at > tuning.renew_after
            with suppress(StoreUnavailable):
                # Not at the beginning, or the catch-up would search DMs of this session, too.
                await self._save(position if is_due else None, intents, dms=not has_begun)
                if is_due:
                    saved, saved_at = current, clock()

    def _position(self, connection: Connection) -> Session | None:
        """Return the session up to the last handled event; None if it must not be saved."""
        session = None if self._earlier or self._unread else connection.session
        if session and self._catching_up and self._catching_up.holds:
            return replace(session, seq=self._catching_up.seq, servers=self.servers)
        seq = self._progress.handled(session.seq) if session else 0
        return replace(session, seq=seq) if session and seq else None

    async def _save(self, position: Session | None, intents: int, *, dms: bool = True) -> None:
        if dms:
            # Even if another process holds the session, because Discord does not list DMs.
            await self.saved.save_dms()
        if position:
            await self.saved.save(position, intents=intents, newest=self._progress.newest)


def start_pause(starts: int, tuning: Tuning) -> float:
    """Return the pause before a session, given the number of recent starts."""
    first = _random.uniform(*tuning.start_pause)
    return Backoff(first, tuning.longest_start_pause).delay(starts + 1)
