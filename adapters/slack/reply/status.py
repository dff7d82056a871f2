"""The status line of a thread: "is thinking..."."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.slack.errors import translated
from adapters.slack.refusals import Refusals, refuses_app
from adapters.slack.workspace import Workspace
from bot.concurrency import running
from bot.errors import SurfaceError

log = logging.getLogger(__name__)

_WORKING = "is thinking..."
_TIMEOUT = 1.5  # seconds; the first text waits for a status request in progress
_REFRESH = 100.0  # seconds; Slack removes the line after two minutes


class Statuses:
    """Sets status lines, unless Slack refused them to this app a short time ago."""

    def __init__(self, workspace: Workspace) -> None:
        self._client = workspace.client
        self._refusals = Refusals(seconds=workspace.limits.refusals_remembered)

    async def set(self, *, channel: str, thread: str, status: str) -> None:
        """Show the line; remove it if it is empty. Failures are only logged."""
        if self._refusals.cover():
            return
        try:
            async with translated(_TIMEOUT):
                await self._client.assistant_threads_setStatus(
                    channel_id=channel, thread_ts=thread, status=status
                )
        except SurfaceError as error:
            if refuses_app(error):
                self._refusals.add()
                log.info("No more status lines for a while: %s", error)
            else:
                log.debug("Cannot set the status of thread %s in %s: %s", thread, channel, error)

    async def end_session(self, *, channel: str, thread: str) -> None:
        """Tell Slack that the bot no longer works in a thread. Failures are only logged."""
        try:
            async with translated(_TIMEOUT):
                await self._client.agents_sessions_setStatus(
                    channel_id=channel, thread_ts=thread, status="active"
                )
        except SurfaceError as error:
            log.debug("Cannot end the session of thread %s in %s: %s", thread, channel, error)


class Status:
    """The status line of one reply; Slack removes it when a message of the bot follows.

    `processing` means that a stream was started and not ended by us: Slack shows that the bot is
    working until it is told otherwise (docs: agent_session_stopped).
    """

    def __init__(self, statuses: Statuses, *, channel: str, thread: str | None) -> None:
        self.processing = False
        self._statuses = statuses
        self._channel = channel
        self._thread = thread
        self._lock = asyncio.Lock()
        self._is_needed = True  # until a page is posted

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the line until a page is posted or the block ends."""
        if self._thread is None:
            yield
            return
        async with running(self._refresh(self._thread)):
            yield
        if self._is_needed:
            await self._statuses.set(channel=self._channel, thread=self._thread, status="")
        if self.processing:
            await self._statuses.end_session(channel=self._channel, thread=self._thread)

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Do not set the line while the block posts a page, or after it."""
        async with self._lock:
            yield
            self._is_needed = False

    async def show_again(self) -> None:
        """Show the line below a reply that has stalled."""
        if self._thread is not None:
            self._is_needed = True
            await self._statuses.set(channel=self._channel, thread=self._thread, status=_WORKING)

    async def _refresh(self, thread: str) -> None:
        while True:
            async with self._lock:
                if not self._is_needed:
                    return
                await self._statuses.set(channel=self._channel, thread=thread, status=_WORKING)
            await asyncio.sleep(_REFRESH)
