"""Notices an outage of Slack's events by heartbeats in Redis, and ends it by catching up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from adapters.slack.errors import is_transient
from adapters.slack.inbound.events import EventHandler
from adapters.slack.limits import Limits
from adapters.slack.markup import mentioned
from adapters.slack.workspace import MOST_PAGES, Workspace
from bot.concurrency import cancelled
from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed
from bot.store import Store

log = logging.getLogger(__name__)

MOST_CONVERSATIONS = 25  # most recently used DMs, and as many threads
_EXPIRE_SECONDS = 7 * 24 * 3600
# A dead connection is detected with this delay, and clocks differ a little.
_OVERLAP = 10.0  # seconds

Event = dict[str, object]
Conversation = tuple[str, str]  # a channel, and a thread in it; empty for a DM itself


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
            catch_up = CatchUp(
                self._workspace,
                await self._record.conversations(),
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
                log.exception("Cannot handle missed event %s", self._pending[0].get("ts"))
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

    async def conversations(self) -> list[list[Conversation]]:
        """Return the most recently used DMs, and threads, each the latest first."""
        found = [await self._store.command("ZRANGE", key, 0, -1, "REV") for key in self._unsaved]
        return [[_conversation(member) for member in members] for members in found]

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


def _conversation(member: str) -> Conversation:
    channel, _, thread = member.partition(":")
    return channel, thread


@dataclass(slots=True, eq=False)
class _Unread:
    """A conversation that is not read completely, and the questions found so far, by `ts`."""

    channel: str
    thread: str
    cursor: str = ""
    pages: int = 0
    questions: dict[str, Event] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.channel}:{self.thread}" if self.thread else self.channel

    @property
    def events(self) -> list[Event]:
        return [self.questions[ts] for ts in sorted(self.questions)]


class CatchUp:
    """Reads the questions of the last `seconds` in these conversations.

    `on_questions` is called with those of each conversation, oldest first, when it is read.
    Omissions are logged. DMs and threads are read side by side because Slack limits their methods
    separately. All processes share one budget.
    """

    def __init__(
        self,
        workspace: Workspace,
        conversations: Sequence[Sequence[Conversation]],
        *,
        seconds: float,
        on_questions: Callable[[Sequence[Event]], None],
    ) -> None:
        self._workspace = workspace
        self._limits = limits = workspace.limits
        self._on_questions = on_questions
        # Like each `ts` of Slack, with ten digits before the point: strings in the order of time.
        self._since = f"{time.time() - min(seconds + _OVERLAP, limits.catch_up_age):.6f}"
        self._queues = [deque(_Unread(*one) for one in each) for each in conversations]

    async def run(self) -> None:
        """Return when each conversation was read, failed for good or timed out."""
        try:
            async with asyncio.timeout(self._limits.catch_up_timeout), asyncio.TaskGroup() as group:
                for queue in self._queues:
                    group.create_task(self._read_all(queue))
        except TimeoutError:
            left = [unread for queue in self._queues for unread in queue]
            names = " ".join(unread.name for unread in left)
            log.warning("Slack catch-up: timed out, not read completely: %s", names)
            for unread in left:
                self._on_questions(unread.events)

    async def _read_all(self, queue: deque[_Unread]) -> None:
        while queue:
            unread = queue[0]
            try:
                is_read = await self._read_page(unread)
            except WriteDelayed:
                await asyncio.sleep(self._limits.heartbeat_interval)
                continue
            except SurfaceError as error:
                if is_transient(error):
                    log.info("Slack catch-up: cannot read %s, will retry: %s", unread.name, error)
                    queue.rotate(-1)
                    await asyncio.sleep(self._limits.heartbeat_interval)
                    continue
                log.warning("Slack catch-up: cannot read %s: %s", unread.name, error)
                is_read = True
            if is_read:
                self._on_questions(queue.popleft().events)

    async def _read_page(self, unread: _Unread) -> bool:
        """Read the next page; return whether the conversation is done."""
        messages, unread.cursor = await self._workspace.read(
            channel=unread.channel,
            thread=unread.thread,
            requests=self._limits.catch_up_requests,
            oldest=self._since,
            cursor=unread.cursor or None,
        )
        unread.pages += 1
        for message in messages:
            ts = str(message.get("ts"))
            # The parent of a thread is always among its replies.
            if ts > self._since:
                unread.questions[ts] = self._to_event(message, unread)
        if unread.cursor and unread.pages == MOST_PAGES:
            log.warning(
                "Slack catch-up: read only the first %d pages of %s", MOST_PAGES, unread.name
            )
        return not unread.cursor or unread.pages == MOST_PAGES

    def _to_event(self, message: Event, unread: _Unread) -> Event:
        """Return the event that Slack sends for a message."""
        is_direct = unread.channel.startswith("D")
        is_mention = self._workspace.identity.user in mentioned(str(message.get("text")), "@")
        kind = "app_mention" if is_mention and not is_direct else "message"
        event = {**message, "type": kind, "channel": unread.channel}
        if event.get("thread_ts") == event.get("ts"):
            # Slack adds this field with the first reply.
            del event["thread_ts"]
        return event
