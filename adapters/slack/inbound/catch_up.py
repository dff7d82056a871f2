"""Reads what people wrote to the bot during an outage."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters.slack.errors import is_transient
from adapters.slack.markup import mentioned
from adapters.slack.workspace import MOST_PAGES, Reading, Workspace
from bot.domain import EditBudget
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
    """Reads the questions of the last `seconds` in several passes.

    It `is_done` when each conversation was read, failed for good or timed out; omissions are
    logged. DMs and threads have separate queues because Slack limits their methods separately. All
    processes share one budget.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        dms: Sequence[Conversation],
        threads: Sequence[Conversation],
        seconds: float,
    ) -> None:
        self._workspace = workspace
        self._budgets = workspace.budgets
        self._limits = limits = workspace.limits
        # Like each `ts` of Slack, with ten digits before the point: strings in the order of time.
        self._since = f"{time.time() - min(seconds + _OVERLAP, limits.catch_up_age):.6f}"
        self._began = time.monotonic()
        self._queues = [
            (
                EditBudget(
                    f"slack:{method}:{workspace.identity.team}",
                    limits.catch_up_requests,
                    limits.catch_up_window,
                    refills=False,
                ),
                deque(_Unread(*conversation) for conversation in conversations),
            )
            for method, conversations in (("history", dms), ("replies", threads))
        ]

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to read."""
        return not any(queue for _, queue in self._queues)

    async def read(self) -> list[Event]:
        """Run one pass; return the questions as events, by conversation, oldest first.

        A pass reads one page of each conversation. The next pass continues with those that failed,
        have more pages, or were rate-limited.
        """
        found: list[Event] = []
        try:
            async with asyncio.timeout(self._limits.catch_up_pass), asyncio.TaskGroup() as group:
                for budget, queue in self._queues:
                    group.create_task(self._read_each(budget, queue, found))
        except TimeoutError:
            log.info("Slack catch-up: a pass timed out, continuing")
        if time.monotonic() - self._began > self._limits.catch_up_timeout:
            found += self._give_up()
        return found

    async def _read_each(
        self, budget: EditBudget, queue: deque[_Unread], found: list[Event]
    ) -> None:
        for _ in range(len(queue)):
            try:
                await self._budgets.final(budget, deadline=asyncio.get_running_loop().time())
            except WriteDelayed:
                return
            try:
                is_read = await self._read_next_page(queue[0])
            except WriteDelayed as error:
                log.info(
                    "Slack catch-up: rate-limited for %g s in %s", error.retry_after, budget.bucket
                )
                return
            if is_read:
                found += queue.popleft().events
            else:
                queue.rotate(-1)

    async def _read_next_page(self, unread: _Unread) -> bool:
        """Read the next page; return whether the conversation is done."""
        try:
            messages, unread.cursor = await self._workspace.read_page(
                Reading.CATCH_UP,
                channel=unread.channel,
                thread=unread.thread,
                since=self._since,
                cursor=unread.cursor,
            )
        except WriteDelayed:
            raise
        except SurfaceError as error:
            if is_transient(error):
                log.info("Slack catch-up: cannot read %s, will retry: %s", unread.name, error)
                return False
            log.warning("Slack catch-up: cannot read %s: %s", unread.name, error)
            return True
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

    def _give_up(self) -> list[Event]:
        left = [unread for _, queue in self._queues for unread in queue]
        self._queues.clear()
        if left:
            names = " ".join(unread.name for unread in left)
            log.warning("Slack catch-up: timed out, not read completely: %s", names)
        return [event for unread in left for event in unread.events]
