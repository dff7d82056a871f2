"""What people wrote while nobody listened, before Slack tells it again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import NotSlack
from adapters.slack.history import PAGES, read_page
from adapters.slack.identity import Identity
from adapters.slack.inbound.outage import PLACES, Place
from adapters.slack.reply.streams import Budgets
from bot.domain import EditBudget
from bot.errors import SurfaceError, WriteDelayed, WriteFailed

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds after which nobody waits for an answer any more
# A connection that has gone silent is noticed this much later, and clocks differ a little.
_OVERLAP = 10.0  # seconds
_TOGETHER = 20.0  # seconds for one pass
# Each method allows 50 a minute (docs: Tier 3); the other half is for finding our own messages.
_REQUESTS, _MINUTE = PLACES, 60.0

Event = dict[str, object]


@dataclass(slots=True, eq=False)
class _Unread:
    """A place that is not read to its end; `said` is what was said to us there, by its `ts`."""

    channel: str
    thread: str
    cursor: str = ""
    pages: int = 0
    said: dict[float, Event] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What an operator can find it by."""
        return f"{self.channel}:{self.thread}" if self.thread else self.channel

    @property
    def events(self) -> list[Event]:
        """What was said to us there, oldest first."""
        return [self.said[ts] for ts in sorted(self.said)]


class Search:
    """A look for what was said to us in the last so many seconds, in as many passes as it takes.

    `places` has DMs and threads apart, for Slack counts them apart. It `is_over` when each place
    was read, or refuses to be, or nobody waits any more; what is left out is logged. `budgets`
    count the requests of all processes.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        identity: Identity,
        budgets: Budgets,
        places: tuple[Sequence[Place], Sequence[Place]],
        seconds: float,
    ) -> None:
        self._client = client
        self._bot = identity.user
        self._budgets = budgets
        self._since = time.time() - min(seconds + _OVERLAP, PATIENCE)
        self._began = time.monotonic()
        self._kinds = [
            (EditBudget(f"slack:{kind}:{identity.team}", _REQUESTS, _MINUTE, refills=False), left)
            for kind, left in zip(("history", "replies"), map(_unread, places), strict=True)
        ]

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to read."""
        return not any(left for _, left in self._kinds)

    async def look(self) -> list[Event]:
        """Return what one more pass has found, as events, place by place, oldest first.

        It reads a page of each place; one whose reading fails, or that has more, is read again in
        the next pass, and those that Slack wants a pause before.
        """
        found: list[Event] = []
        try:
            async with asyncio.timeout(_TOGETHER), asyncio.TaskGroup() as group:
                for budget, left in self._kinds:
                    group.create_task(self._read_each(budget, left, found))
        except TimeoutError:
            log.info("what was said while Slack was not heard takes long to look through")
        if time.monotonic() - self._began > PATIENCE:
            found += self._give_up()
        return found

    async def _read_each(
        self, budget: EditBudget, left: deque[_Unread], found: list[Event]
    ) -> None:
        for _ in range(len(left)):
            if not await self._may_read(budget):
                return
            try:
                has_ended = await self._has_ended(left[0])
            except WriteDelayed as error:
                log.info("Slack lets no more be read for %g s", error.retry_after)
                await self._budgets.pause(budget, error.retry_after)
                return
            if has_ended:
                found += left.popleft().events
            else:
                left.rotate(-1)

    async def _may_read(self, budget: EditBudget) -> bool:
        try:
            await self._budgets.final(budget, deadline=asyncio.get_running_loop().time())
        except WriteDelayed:
            return False
        return True

    async def _has_ended(self, place: _Unread) -> bool:
        """Read one more page and return whether there is none after it that is worth reading."""
        try:
            await self._read_page(place)
        except WriteDelayed:
            raise
        except SurfaceError as error:
            if isinstance(error, WriteFailed) and not isinstance(error, NotSlack):
                log.info("%s is looked through later: %s", place.name, error)
                return False
            log.warning("%s cannot be looked through: %s", place.name, error)
            return True
        if place.cursor and place.pages == PAGES:
            log.warning("%s has more messages than are looked through", place.name)
        return not place.cursor or place.pages == PAGES

    async def _read_page(self, place: _Unread) -> None:
        messages, place.cursor = await read_page(
            self._client,
            channel=place.channel,
            thread=place.thread,
            since=f"{self._since:.6f}",
            cursor=place.cursor,
        )
        place.said |= self._to_us(messages, place.channel)
        place.pages += 1

    def _to_us(self, messages: Sequence[Event], channel: str) -> dict[float, Event]:
        direct = channel.startswith("D")
        return {
            _ts(message): _as_told(message, channel, "message" if direct else "app_mention")
            for message in messages
            # A thread's parent is among its replies in any case.
            if _ts(message) > self._since
            and (direct or f"<@{self._bot}" in str(message.get("text")))
        }

    def _give_up(self) -> list[Event]:
        places = [place for _, left in self._kinds for place in left]
        for _, left in self._kinds:
            left.clear()
        if places:
            names = " ".join(place.name for place in places)
            log.warning("some of what was missed could not be read in time: %s", names)
        return [event for place in places for event in place.events]


def _unread(places: Sequence[Place]) -> deque[_Unread]:
    return deque(_Unread(channel, thread) for channel, thread in places)


def _as_told(message: Mapping[str, object], channel: str, kind: str) -> Event:
    event = {**message, "type": kind, "channel": channel}
    if event.get("thread_ts") == event.get("ts"):
        # It says so only since somebody replied.
        del event["thread_ts"]
    return event


def _ts(message: Mapping[str, object]) -> float:
    try:
        return float(str(message.get("ts")))
    except ValueError:
        return 0.0
