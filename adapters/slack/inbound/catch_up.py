"""Reads what people wrote to the bot during an outage."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adapters.slack.errors import is_transient
from adapters.slack.markup import mentioned
from adapters.slack.workspace import MOST_PAGES, Workspace
from bot.errors import SurfaceError, WriteDelayed

log = logging.getLogger(__name__)

# A dead connection is detected with this delay, and clocks differ a little.
_OVERLAP = 10.0  # seconds

Event = dict[str, object]
Conversation = tuple[str, str]  # a channel, and a thread in it; empty for a DM itself


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
        *,
        dms: Sequence[Conversation],
        threads: Sequence[Conversation],
        seconds: float,
        on_questions: Callable[[Sequence[Event]], None],
    ) -> None:
        self._workspace = workspace
        self._limits = limits = workspace.limits
        self._on_questions = on_questions
        # Like each `ts` of Slack, with ten digits before the point: strings in the order of time.
        self._since = f"{time.time() - min(seconds + _OVERLAP, limits.catch_up_age):.6f}"
        self._queues = [deque(_Unread(*one) for one in each) for each in (dms, threads)]

    async def run(self) -> None:
        """Return when each conversation was read, failed for good or timed out."""
        try:
            async with (
                asyncio.timeout(self._limits.catch_up_timeout),
                asyncio.TaskGroup() as group,
            ):
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
