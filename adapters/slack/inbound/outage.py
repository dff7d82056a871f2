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
from bot.concurrency import cancelled
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
        self._limits = workspace.limits
        self._record = record
        self._handler = handler
        self._catch_up: asyncio.Task[None] | None = None
        self._pending: deque[Event] = deque()

    async def run(self, is_connected: Callable[[], bool]) -> None:
        """Record heartbeats until cancelled, while connected."""
        try:
            while True:
                await asyncio.sleep(self._limits.heartbeat_interval)
                try:
                    if is_connected():
                        await self._beat()
                    else:
                        # Conversations that were read already may get further messages.
                        await self._end_catch_up()
                except StoreUnavailable as error:
                    log.debug("Cannot record a heartbeat of Slack: %s", error)
                except Exception:
                    log.exception("Cannot catch up on an outage of Slack, will retry")
        finally:
            await self._end_catch_up()

    async def on_event(self, event: Event) -> None:
        """Handle an event. If it cannot be stored, this raises, and each heartbeat retries it.

        Slack retries it, too, but only three times, and to one process, whose store may be away.
        """
        try:
            await self._handler.on_event(event)
        except StoreUnavailable:
            has_room = len(self._pending) < self._limits.unstored_events
            if has_room and event not in self._pending:
                self._pending.append(event)
            raise

    async def _beat(self) -> None:
        await self._admit_pending()
        reading, caught_up = self._catch_up, False
        if reading is not None and reading.done():
            self._catch_up = None
            reading.result()
            caught_up = True
        outage = await self._record.heartbeat(caught_up=caught_up)
        if not outage:
            await self._end_catch_up()
        elif self._catch_up is None:
            log.info("Slack outage of %d s: no process was connected; catching up", outage)
            dms, threads = await self._record.conversations()
            catch_up = CatchUp(
                self._workspace,
                dms=dms,
                threads=threads,
                seconds=outage,
                on_questions=self._pending.extend,
            )
            self._catch_up = asyncio.create_task(catch_up.run())

    async def _end_catch_up(self) -> None:
        if self._catch_up is not None:
            await cancelled(self._catch_up)
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
        # By key, members with the time of their latest use.
        self._unsaved: dict[str, dict[str, float]] = {self._dms: {}, self._threads: {}}

    def note(self, channel: str, thread: str) -> None:
        """Note a conversation, to be saved with the next heartbeat."""
        member = f"{channel}:{thread}"
        unsaved = self._unsaved[self._threads if thread else self._dms]
        unsaved.pop(member, None)
        unsaved[member] = time.time()
        if len(unsaved) > MOST_CONVERSATIONS:
            del unsaved[next(iter(unsaved))]

    async def heartbeat(self, *, caught_up: bool = False) -> int:
        """Record a heartbeat. Returns the length of an outage in seconds; 0 if there is none.

        An outage is reported to one process, at each of its heartbeats, until it has `caught_up`;
        if its heartbeats stop, to another process.
        """
        await self._save_conversations()
        seconds = (self._limits.outage_after, self._limits.claim_seconds, _EXPIRE_SECONDS)
        args = (self._process, int(caught_up), *seconds)
        outage: int = await self._script(keys=self._keys, args=args)
        return outage

    async def conversations(self) -> tuple[list[Conversation], list[Conversation]]:
        """Return the most recently used DMs and threads, the latest first."""
        return await self._latest(self._dms), await self._latest(self._threads)

    async def _save_conversations(self) -> None:
        for key, unsaved in self._unsaved.items():
            saved = dict(unsaved)
            if not saved:
                continue
            scores = [value for member, at in saved.items() for value in (at, member)]
            await self._store.command("ZADD", key, *scores)
            await self._store.command("ZREMRANGEBYRANK", key, 0, -1 - MOST_CONVERSATIONS)
            await self._store.command("EXPIRE", key, _EXPIRE_SECONDS)
            for member, at in saved.items():
                if unsaved.get(member) == at:
                    del unsaved[member]

    async def _latest(self, key: str) -> list[Conversation]:
        members = await self._store.command("ZRANGE", key, 0, -1, "REV")
        return [(channel, thread) for channel, _, thread in (one.partition(":") for one in members)]
