"""One shard of the gateway: its session goes on over connections, and over processes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import aiohttp
import discord

from adapters.discord.gateway.catch_up import newest_id
from adapters.discord.gateway.connection import Connection, Session
from adapters.discord.gateway.progress import Progress
from adapters.discord.gateway.session_store import DMS, SavedSession
from bot.errors import StoreUnavailable, SurfaceError
from bot.hearing import Hearing

_log = logging.getLogger(__name__)
_random = random.SystemRandom()

# What discord.py 2.7.1 lets out when the way to Discord is the trouble.
ON_THE_WAY = (
    OSError,
    aiohttp.ClientError,
    discord.ConnectionClosed,
    discord.GatewayNotFound,
    discord.HTTPException,
    SurfaceError,  # what our own trace makes of a refusal
)
UNREACHABLE = "the gateway cannot be reached: %s"

_SAVE_SECONDS = 1.0  # between two looks at whether there is something to save
_FIRST_SAVE_SECONDS = 0.1  # between two before anything is: a process may die young
_RENEW_SECONDS = 20.0  # after which a quiet session is saved again, or it would expire
_LAST_SAVE = 1.0  # seconds for the last one
_STEADY = 60.0  # seconds that a connection lasts where nothing is wrong
_LONGEST_PAUSE = 60.0  # seconds between two tries to connect
# Before a session begins after another: Discord's documentation wants 1 to 5 seconds ("Gateway",
# "Resuming"), and 90 keep a day's sessions below the 1000 that it allows.
_START_PAUSE = (1.0, 5.0)
_LONGEST_START_PAUSE = 90.0
_TURN_SECONDS = 0.2  # between two looks at whether other shards are through
_CALM = 600.0  # seconds after which a session's beginning is long ago
_DISALLOWED_INTENTS = 4014  # "Opcodes and Status Codes", gateway close event codes


class Shard:
    """`number` of `count` shards, or None for a bot that has only one; it outlives its clients.

    Without `saved` a new process begins a session of its own.
    """

    def __init__(
        self, *, number: int | None, count: int | None, saved: SavedSession | None
    ) -> None:
        self.number = number
        self.count = count
        self.saved = saved
        self.journal = Progress()
        self.hearing = Hearing()
        # When we began to listen, as an id, where nobody had listened before; else 0.
        self.begun = 0
        self._session: Session | None = None
        # Whether this process has had no session yet: later it goes on with its own.
        self._fresh = True
        # The session of an earlier process, which alone is told of a DM that is new. Where the
        # store could not tell of it when ours began, it takes the place of ours as soon as it can.
        self._former: Session | None = None
        self._found = asyncio.Event()  # set while there is one to resume
        self._unknown = False
        # The session of ours that was left for it: Discord may have ended the former meanwhile.
        self._left: Session | None = None
        self._starts = 0
        self._started_at = 0.0  # seconds of the loop's clock
        self._dms: dict[int, int] = {}

    @property
    def hears_dms(self) -> bool:
        """Whether DMs come to this shard (Discord's documentation, "Sharding")."""
        return not self.number

    def note_dm(self, channel: int, message: int) -> None:
        """Remember that a DM is in use."""
        self._dms.pop(channel, None)
        self._dms[channel] = message
        if len(self._dms) > DMS:
            del self._dms[next(iter(self._dms))]

    async def heard(self) -> int:
        """Return the last message that was dealt with, by any process; StoreUnavailable.

        It is the present moment where nobody has listened yet, and that is kept.
        """
        if not self.journal.newest:
            # The first time that it was asked: what is heard until the store tells may be lost.
            now = self.begun = self.begun or newest_id()
            before = await self.saved.heard(or_else=now) if self.saved else 0
            self.begun = 0 if before else now
            self.journal.newest = before or now
        return self.journal.newest

    async def attend(self, client: discord.Client, *, ready: Callable[[], None]) -> None:
        """Keep a logged-in client connected, and its session saved, until cancelled.

        Raises discord.PrivilegedIntentsRequired, and discord.ConnectionClosed when Discord does not
        want us back as we are.
        """

        def begun() -> None:
            self._fresh = False
            ready()

        connection = Connection(client, self.journal, hearing=self.hearing, ready=begun)
        connection.attend()
        saving = asyncio.create_task(self._keep_saved(connection, client.intents.value))
        try:
            await self._stay(connection, client.intents.value)
        finally:
            saving.cancel()
            try:
                # First of all, for we may be told again to end.
                await connection.leave()
            finally:
                # A look for what was missed ends with its client: the next one begins another.
                self._session = None
                await asyncio.gather(saving, return_exceptions=True)
                with suppress(TimeoutError, StoreUnavailable):
                    async with asyncio.timeout(_LAST_SAVE):
                        await self._save(self._position(connection), client.intents.value)

    async def _stay(self, connection: Connection, intents: int) -> None:
        clock = asyncio.get_running_loop().time
        losses = 0
        while True:
            began_at = clock()
            try:
                await self._connect(connection, intents)
            except discord.ConnectionClosed as closed:
                if closed.code != 1000:
                    self._session = None
                    raise self._refusal(closed) from closed
            except ON_THE_WAY as error:
                _log.warning(UNREACHABLE, str(error) or type(error).__name__)
                await connection.leave()
                if self._session is None:
                    self._starts = max(0, self._starts - 1)
                else:
                    # Perhaps the address for resumes is the trouble.
                    self._session = replace(self._session, url="")
            losses = 0 if clock() - began_at > _STEADY else losses + 1
            await _pause_after(losses)

    async def _connect(self, connection: Connection, intents: int) -> None:
        session = await self._resumable(intents)
        if session is None:
            await self._await_start(connection)
            if self._former:
                return
            # Whoever comes after us looks from here, should we end before we can save more.
            with suppress(StoreUnavailable):
                await self.heard()
        try:
            goes_on = await connection.run(session)
        finally:
            self._session = connection.session or self._session
            self._fresh &= self._session is None
        if not goes_on:
            # What waits of the former one may be nowhere in ours: one that begins looks for it.
            self._session, self._left = None if self.journal.waits else self._left, None

    async def _resumable(self, intents: int) -> Session | None:
        """Return the session to resume; not one that another process has taken meanwhile.

        Two that resume the same session would take it from each other for ever.
        """
        if self.saved is None:
            return self._session
        try:
            if self._fresh:
                await self._find_former(self.saved, intents)
            elif self._session and await self.saved.is_taken(self._session):
                self._session = None
        except StoreUnavailable as error:
            _log.warning("the gateway's session is not known: %s", error)
            self._unknown |= self._fresh
        self._found.clear()
        if self._former:
            self._left = self._dealt_with(self._session)
            self.journal.new_session()
            self._session, self._former = self._former, None
        return self._session

    async def _find_former(self, saved: SavedSession, intents: int) -> None:
        self._former = await saved.take(intents)
        self._unknown = False
        if self._former:
            self._found.set()

    async def _await_start(self, connection: Connection) -> None:
        """Return when another session may begin, or one of an earlier process is found."""
        now = asyncio.get_running_loop().time()
        if now - self._started_at > _CALM:
            self._starts = 0
        if self._starts or not self._fresh:
            pause = _random.uniform(*_START_PAUSE) * 2**self._starts
            await self._wait(min(pause, _LONGEST_START_PAUSE))
        starts = await connection.starts()
        if starts.left < 1:
            _log.error("Discord lets the bot begin no session for %.0f s", starts.renewed_in)
            await self._wait(starts.renewed_in)
        await self._await_turn(starts.at_once)
        self._starts += 1
        self._started_at = asyncio.get_running_loop().time()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._found.wait()

    async def _await_turn(self, at_once: int) -> None:
        """Wait for the shards, of other processes too, that may not begin at the same time."""
        if self.saved is None or self.number is None:
            return
        # Too early a start is refused and tried again.
        with suppress(StoreUnavailable):
            while True:
                if await self.saved.may_start(self.number % at_once):
                    return
                await asyncio.sleep(_TURN_SECONDS)

    def _refusal(self, closed: discord.ConnectionClosed) -> discord.ClientException:
        if closed.code != _DISALLOWED_INTENTS:
            return closed
        self._starts = 0
        return discord.PrivilegedIntentsRequired(closed.shard_id)

    async def _keep_saved(self, connection: Connection, intents: int) -> None:
        clock = asyncio.get_running_loop().time
        saved, saved_at = None, -_RENEW_SECONDS
        while self.saved:
            await asyncio.sleep(_SAVE_SECONDS if saved else _FIRST_SAVE_SECONDS)
            with suppress(StoreUnavailable):
                if self._unknown:
                    await self._find_former(self.saved, intents)
            if self._former:
                await connection.leave()
            position = self._position(connection)
            told = position, self.journal.newest
            if told == saved and not self._dms and clock() - saved_at < _RENEW_SECONDS:
                continue
            with suppress(StoreUnavailable):
                await self._save(position, intents)
                saved, saved_at = told if position else None, clock()

    def _position(self, connection: Connection) -> Session | None:
        """Return the session as far as everything in it was dealt with.

        None while what was missed before it is still being looked for, and while the one of an
        earlier process, which stands in the store, is to take its place or may be.
        """
        return None if self._former or self._unknown else self._dealt_with(connection.session)

    def _dealt_with(self, session: Session | None) -> Session | None:
        seq = self.journal.dealt_with(session.seq) if session else 0
        return replace(session, seq=seq) if session and seq else None

    async def _save(self, position: Session | None, intents: int) -> None:
        if self.saved is None:
            return
        await self._save_dms(self.saved)
        if position:
            await self.saved.save(position, intents=intents, newest=self.journal.newest)

    async def _save_dms(self, saved: SavedSession) -> None:
        """Save these whoever holds the session, and at once: Discord lists them to nobody."""
        told, self._dms = self._dms, {}
        try:
            await saved.note_dms(told)
        except BaseException:
            self._dms = told | self._dms
            raise


async def _pause_after(losses: int) -> None:
    """Wait between connections that do not last: the first is opened anew at once."""
    if losses > 1:
        pause = min(2.0 ** (losses - 2), _LONGEST_PAUSE)
        await asyncio.sleep(pause * _random.uniform(0.5, 1.0))
