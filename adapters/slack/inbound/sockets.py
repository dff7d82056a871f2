"""The connections of Socket Mode, at least one of them open at each moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
from slack_bolt.async_app import AsyncApp

from adapters.slack.errors import translated
from adapters.slack.inbound.socket import Socket, greeted
from bot.concurrency import cancelled, together
from bot.errors import SurfaceError, WriteDelayed
from bot.hearing import Hearing

log = logging.getLogger(__name__)

# An app may have ten (docs: Using Socket Mode, "Using multiple connections"); one that is being
# replaced counts until Slack closes it.
_AT_ONCE = 2
_PING_INTERVAL = 5.0  # seconds; a connection that does not answer in half of it is given up
_CLOSING = 1.0  # seconds for Slack's part of the closing
# Before another connection is opened, after so many in a row that failed or did not last.
_PAUSES = (0.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds
_LASTING = 60.0  # seconds


class Sockets:
    """Keeps two connections, and opens the next one before Slack closes one of them.

    `address` asks Slack for the address of one more connection; it raises SurfaceError.
    """

    def __init__(
        self,
        app: AsyncApp,
        *,
        address: Callable[[], Awaitable[str]],
        hearing: Hearing,
        proxy: str | None,
    ) -> None:
        self._app = app
        self._address = address
        self._hearing = hearing
        self._proxy = proxy
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def are_open(self) -> bool:
        """Whether Slack has a connection on which to tell us something."""
        return bool(self._serving)

    async def keep(self) -> None:
        """Hear until cancelled, through whatever happens to the connections."""
        # Each request of the Web API's session has to end; a connection lasts.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session:
            lanes = [asyncio.create_task(self._keep_one(session)) for _ in range(_AT_ONCE)]
            try:
                await together(*lanes)
            finally:
                await cancelled(*self._serving)

    async def _keep_one(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        short_lived = 0
        while True:
            pause, began = _PAUSES[min(short_lived, len(_PAUSES) - 1)], loop.time()
            await asyncio.sleep(pause)
            try:
                socket = await self._opened(session)
            except SurfaceError as error:
                self._tell(error)
                await asyncio.sleep(error.retry_after if isinstance(error, WriteDelayed) else 0)
            else:
                self._serve(socket)
                await socket.leaving.wait()
            short_lived = 0 if loop.time() - began > pause + _LASTING else short_lived + 1

    async def _opened(self, session: aiohttp.ClientSession) -> Socket:
        async with translated():
            connection = await session.ws_connect(
                await self._address(),
                heartbeat=_PING_INTERVAL,
                proxy=self._proxy,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING),
            )
            try:
                await greeted(connection)
            except BaseException:
                await connection.close()
                raise
        return Socket(self._app, connection)

    def _serve(self, socket: Socket) -> None:
        task = asyncio.create_task(socket.serve())
        self._serving.add(task)
        self._hearing.note(is_open=True)
        task.add_done_callback(self._end)

    def _end(self, serving: asyncio.Task[None]) -> None:
        self._serving.discard(serving)
        self._hearing.note(is_open=self.are_open)

    def _tell(self, error: SurfaceError) -> None:
        level = logging.INFO if self.are_open else logging.WARNING
        log.log(level, "a socket to Slack cannot be opened, and will be tried again: %s", error)
