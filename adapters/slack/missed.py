"""What people wrote while nobody listened, before Slack tells it again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import translated
from adapters.slack.listening import Place
from bot.errors import SurfaceError, WriteDelayed

log = logging.getLogger(__name__)

_TOGETHER = 20.0  # seconds for all places
_MESSAGES = 100  # of each, at most: one request

Event = dict[str, object]


async def missed(
    client: AsyncWebClient, *, places: Iterable[Sequence[Place]], since: float, bot: str
) -> list[Event]:
    """Return what was said to us since then as events, place by place, oldest first.

    `places` has DMs and threads apart, for Slack counts them apart. A place that cannot be read is
    left out, and so are those behind one where Slack asks for a pause, or that come too late.
    """
    found: list[Event] = []
    try:
        async with asyncio.timeout(_TOGETHER):
            for alike in places:
                async for channel, messages in _read_all(client, alike, since):
                    found += _to_us(messages, channel, since=since, bot=bot)
    except TimeoutError:
        log.warning("what was said while Slack was not heard could not be looked through in time")
    return found


async def _read_all(
    client: AsyncWebClient, places: Sequence[Place], since: float
) -> AsyncIterator[tuple[str, list[Event]]]:
    for channel, thread in places:
        try:
            yield channel, await _read(client, channel, thread, since)
        except WriteDelayed as error:
            log.info("Slack lets no more be read now, and tells the rest again itself: %s", error)
            return
        except SurfaceError as error:
            log.info("a place in Slack cannot be looked through: %s", error)


async def _read(client: AsyncWebClient, channel: str, thread: str, since: float) -> list[Event]:
    oldest = f"{since:.6f}"
    async with translated():
        if thread:
            answer = await client.conversations_replies(
                channel=channel, ts=thread, oldest=oldest, limit=_MESSAGES
            )
        else:
            answer = await client.conversations_history(
                channel=channel, oldest=oldest, limit=_MESSAGES
            )
    return list(answer["messages"])


def _to_us(messages: list[Event], channel: str, *, since: float, bot: str) -> list[Event]:
    direct = channel.startswith("D")
    return [
        _as_told(message, channel, "message" if direct else "app_mention")
        for message in sorted(messages, key=_ts)
        # A thread's parent is among its replies in any case.
        if _ts(message) > since and (direct or f"<@{bot}" in str(message.get("text")))
    ]


def _as_told(message: Event, channel: str, kind: str) -> Event:
    event = {**message, "type": kind, "channel": channel}
    if event.get("thread_ts") == event.get("ts"):
        # It says so only since somebody replied.
        del event["thread_ts"]
    return event


def _ts(message: Event) -> float:
    try:
        return float(str(message.get("ts")))
    except ValueError:
        return 0.0
