"""Records heartbeats while Slack is connected, and catches up after an outage."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from adapters.slack.inbound.catch_up import CatchUp, Event
from adapters.slack.inbound.events import EventHandler
from adapters.slack.inbound.outage import OutageRecord
from adapters.slack.workspace import Workspace
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)


class Heartbeat:
    """Ends an outage only after all missed and all unstored events are admitted."""

    def __init__(
        self, workspace: Workspace, *, record: OutageRecord, handler: EventHandler
    ) -> None:
        self._workspace = workspace
        self._record = record
        self._handler = handler
        self._catch_up: CatchUp | None = None
        self._pending: deque[Event] = deque()

    async def run(self, is_connected: Callable[[], bool]) -> None:
        """Beat until cancelled, while `is_connected`."""
        while True:
            await asyncio.sleep(self._workspace.limits.heartbeat_interval)
            if not is_connected():
                # Conversations that were read already may get more messages that are missed.
                self._catch_up = None
                continue
            try:
                await self._beat()
            except StoreUnavailable as error:
                log.debug("Cannot record a heartbeat of Slack: %s", error)
            except Exception:
                log.exception("Cannot catch up on an outage of Slack, will retry")

    async def on_event(self, event: Event) -> None:
        """Handle an event. If it cannot be stored, this raises, and each heartbeat retries it.

        Slack sends it again, too, but only to one process, which may have the same trouble, and
        only three times.
        """
        try:
            await self._handler.on_event(event)
        except StoreUnavailable:
            has_room = len(self._pending) < self._workspace.limits.unstored_events
            if has_room and event not in self._pending:
                self._pending.append(event)
            raise

    async def _beat(self) -> None:
        await self._admit_pending()
        outage = await self._record.heartbeat()
        if not outage:
            self._catch_up = None
            return
        if self._catch_up is None:
            log.info("No process received Slack's events for %d s, reading them now", outage)
            dms, threads = await self._record.conversations()
            self._catch_up = CatchUp(self._workspace, dms=dms, threads=threads, seconds=outage)
        self._pending.extend(await self._catch_up.read())
        await self._admit_pending()
        if self._catch_up.is_done:
            await self._record.end()
            self._catch_up = None

    async def _admit_pending(self) -> None:
        while self._pending:
            try:
                await self._handler.on_event(self._pending[0])
            except StoreUnavailable:
                raise
            except Exception:
                log.exception("Cannot handle an event that was missed or not stored")
            self._pending.popleft()
