"""Notices an outage of Slack's events by heartbeats in Redis, and ends it by catching up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from uuid import uuid4

from adapters.slack.inbound.catch_up import CatchUp, Conversation, Event
from adapters.slack.inbound.events import EventHandler
from adapters.slack.limits import Limits
from adapters.slack.workspace import Workspace
from bot.errors import StoreUnavailable
from bot.store import Store

log = logging.getLogger(__name__)

MOST_CONVERSATIONS = 25  # most recently used DMs, and as many threads
_EXPIRE_SECONDS = 7 * 24 * 3600

# Records a heartbeat; returns 0, or the seconds since the last one if this process has to catch up
# on an outage. The time is the server's because the processes' clocks may differ. Idempotent.
#
# KEYS: the last heartbeat, and the process that catches up. ARGV: the calling process, whether it
# has caught up, and the seconds of an outage, of a claim to catch up, and until the record expires.
_HEARTBEAT = """
local now = tonumber(redis.call('TIME')[1])
local gap = now - (tonumber(redis.call('GET', KEYS[1])) or now)
local claimed = redis.call('GET', KEYS[2])
if ARGV[2] == '1' then
  if claimed ~= ARGV[1] then return 0 end
elseif gap > tonumber(ARGV[3]) then
  if claimed and claimed ~= ARGV[1] then return 0 end
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[4])
  return gap
end
if claimed == ARGV[1] then redis.call('DEL', KEYS[2]) end
redis.call('SET', KEYS[1], now, 'EX', ARGV[5])
return 0
"""


class Heartbeat:
    """Records heartbeats.

    An outage ends only after all missed and all unstored events are admitted.
    """

    def __init__(
        self, workspace: Workspace, *, record: OutageRecord, handler: EventHandler
    ) -> None:
        self._workspace = workspace
        self._record = record
        self._handler = handler
        self._catch_up: CatchUp | None = None
        self._pending: deque[Event] = deque()

    async def run(self, is_connected: Callable[[], bool]) -> None:
        """Record heartbeats until cancelled, while connected."""
        while True:
            await asyncio.sleep(self._workspace.limits.heartbeat_interval)
            if not is_connected():
                # Conversations that were read already may get further messages.
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

        Slack retries it, too, but only three times, and to one process, whose store may be away.
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
            log.info("Slack outage of %d s: no process was connected; catching up", outage)
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
                log.exception(
                    "Cannot handle a missed or unstored event %s in %s",
                    self._pending[0].get("ts"),
                    self._pending[0].get("channel"),
                )
            self._pending.popleft()


class OutageRecord:
    """The record of one workspace, shared by all processes that receive its events.

    Each method except `note` raises StoreUnavailable.
    """

    def __init__(self, store: Store, *, team: str, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._keys = [store.key("slack", team, name) for name in ("heard", "looking")]
        self._dms, self._threads = (store.key("slack", team, name) for name in ("dms", "threads"))
        self._script = store.script(_HEARTBEAT)
        self._process = uuid4().hex
        self._unsaved: dict[Conversation, float] = {}

    def note(self, channel: str, thread: str) -> None:
        """Note a conversation, to be saved with the next heartbeat."""
        self._unsaved.pop((channel, thread), None)
        while len(self._unsaved) >= 2 * MOST_CONVERSATIONS:
            del self._unsaved[next(iter(self._unsaved))]
        self._unsaved[channel, thread] = time.time()

    async def heartbeat(self) -> int:
        """Record a heartbeat. Returns the length of an outage in seconds; 0 if there is none.

        An outage is reported to one process, at each of its heartbeats, until it calls `end`; if
        its heartbeats stop, to another process.
        """
        await self._save_conversations()
        return await self._record(caught_up=False)

    async def end(self) -> None:
        """Record that the outage is over and this process has caught up.

        No effect if another process has begun to catch up meanwhile.
        """
        await self._record(caught_up=True)

    async def conversations(self) -> tuple[list[Conversation], list[Conversation]]:
        """Return the most recently used DMs and threads, the latest first."""
        return await self._latest(self._dms), await self._latest(self._threads)

    async def _record(self, *, caught_up: bool) -> int:
        seconds = (self._limits.outage_after, self._limits.claim_seconds, _EXPIRE_SECONDS)
        args = (self._process, int(caught_up), *seconds)
        outage: int = await self._script(keys=self._keys, args=args)
        return outage

    async def _save_conversations(self) -> None:
        unsaved = dict(self._unsaved)
        for key, with_thread in ((self._dms, False), (self._threads, True)):
            scores = [
                value
                for (channel, thread), at in unsaved.items()
                if bool(thread) is with_thread
                for value in (at, f"{channel}:{thread}")
            ]
            if scores:
                await self._store.command("ZADD", key, *scores)
                await self._store.command("ZREMRANGEBYRANK", key, 0, -1 - MOST_CONVERSATIONS)
                await self._store.command("EXPIRE", key, _EXPIRE_SECONDS)
        for conversation, at in unsaved.items():
            if self._unsaved.get(conversation) == at:
                del self._unsaved[conversation]

    async def _latest(self, key: str) -> list[Conversation]:
        members = await self._store.command("ZRANGE", key, 0, -1, "REV")
        return [(channel, thread) for channel, _, thread in (one.partition(":") for one in members)]
