"""The signs under a thread that we are at work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import translated
from adapters.slack.refusals import Refusals, refuses_app
from bot.errors import SurfaceError

log = logging.getLogger(__name__)

_WORKING = "is thinking..."
_TIMEOUT = 1.5  # seconds; the first text waits for a status that is on its way
_REFRESH = 100.0  # seconds; Slack takes the line away after two minutes


class Statuses:
    """Sets status lines, unless Slack has said lately that this app may set none."""

    def __init__(self, client: AsyncWebClient, *, refusals: Refusals) -> None:
        self._client = client
        self._refusals = refusals

    async def set(self, *, channel: str, thread: str, status: str) -> None:
        """Show the line, or take it away with an empty one; a failure is only logged."""
        if self._refusals.cover():
            return
        try:
            async with translated(_TIMEOUT):
                await self._client.assistant_threads_setStatus(
                    channel_id=channel, thread_ts=thread, status=status
                )
        except SurfaceError as error:
            if not refuses_app(error):
                log.debug("the status was not shown: %s", error)
                return
            self._refusals.add()
            log.info("No status is shown while we think: %s", error)

    async def rest(self, *, channel: str, thread: str) -> None:
        """Tell Slack that we are no longer at work in a thread; a failure is only logged."""
        try:
            async with translated(_TIMEOUT):
                await self._client.agents_sessions_setStatus(
                    channel_id=channel, thread_ts=thread, status="active"
                )
        except SurfaceError as error:
            log.debug("the thread still says that we are at work: %s", error)


class Status:
    """The line of one reply: Slack itself takes it away when a message of ours follows.

    `processing` tells that a stream was begun, and not ended by us: then Slack goes on showing that
    we are at work until it is told otherwise (docs: agent_session_stopped).
    """

    def __init__(self, statuses: Statuses, *, channel: str, thread: str | None) -> None:
        self.processing = False
        self._statuses = statuses
        self._channel = channel
        self._thread = thread
        self._needed = asyncio.Lock()
        self._stands = True  # until a reply is posted

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the line beside the body, until a reply is posted or the body ends."""
        if self._thread is None:
            yield
            return
        task = asyncio.create_task(self._keep(self._thread))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._stands:
            await self._statuses.set(channel=self._channel, thread=self._thread, status="")
        if self.processing:
            await self._statuses.rest(channel=self._channel, thread=self._thread)

    @asynccontextmanager
    async def replying(self) -> AsyncIterator[None]:
        """Keep the line from being set while, or after, the body posts a message."""
        async with self._needed:
            yield
            self._stands = False

    async def again(self) -> None:
        """Show the line once more, below a reply that has gone silent, until the body ends."""
        if self._thread is not None:
            self._stands = True
            await self._statuses.set(channel=self._channel, thread=self._thread, status=_WORKING)

    async def _keep(self, thread: str) -> None:
        while True:
            async with self._needed:
                if not self._stands:
                    return
                await self._statuses.set(channel=self._channel, thread=thread, status=_WORKING)
            await asyncio.sleep(_REFRESH)
