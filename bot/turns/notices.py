"""Tells the admins that a server has used most of its quota, or all of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import unquote

from prometheus_client import Counter

from bot.access.quotas import money_of
from bot.errors import StoreUnavailable
from bot.turns.script import QueueScript

log = logging.getLogger(__name__)

# Sends a text to all admins that it can reach, in less than the minute for which `claim_notice`
# claims. False if there are some and none was reached.
Tell = Callable[[str], Awaitable[bool]]

PAUSE_SECONDS = 5.0
_RETRIED_SECONDS = 24 * 3600.0
_NOTICES = Counter(
    "parley_quota_notices_total",
    "Servers that have used so many percent of a quota, once in its day or month",
    ["quota", "percent"],
)


class QuotaNotices:
    """Background task of a worker that sends the notices which `note_notice` of quota.lua leaves.

    One is claimed before it is sent, and removed afterwards: if nobody could be reached, or the
    process dies, it is claimed again after a minute, for a day.
    """

    def __init__(
        self, script: QueueScript, *, tell: Tell, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._script = script
        self._tell = tell
        self._pause = pause_seconds

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            with suppress(StoreUnavailable):
                while isinstance(notice := await self._script.run("claim_notice"), str):
                    await self._send(notice)
            await asyncio.sleep(self._pause)

    async def _send(self, notice: str) -> None:
        store = self._script.store
        done = "ZREM", store.key("notices"), notice
        try:
            began, kind, percent, period, server, used, limit = notice.split(" ")
            text = text_of(kind, int(percent), period, unquote(server), int(used), int(limit))
            is_late = time.time() - int(began) / 1000 > _RETRIED_SECONDS
        except ValueError:
            log.error("A notice of a quota cannot be read, and is dropped")  # noqa: TRY400
            await store.command(*done)
            return
        try:
            is_told = await self._tell(text)
        except Exception:  # a worker does not end with it
            log.exception("A notice of a quota cannot be sent")
            is_told = False
        if not is_told and not is_late:
            log.warning("No admin could be told of the quota of %s; that is retried", server)
            return
        _NOTICES.labels(kind, percent).inc()
        log.warning(
            "Server %s has used %s %% of its %s: %s of %s", server, percent, kind, used, limit
        )
        await store.command(*done)


def text_of(kind: str, percent: int, period: str, server: str, used: int, limit: int) -> str:
    """Return the sentence for admins; `period` is a month such as 2026-11, or a day."""
    month = f"for {period}" if "-" in period else "for today"
    figures = f"{used:,} of {limit:,}"
    if kind == "money":
        figures = money_of(used, limit)
    what = "money" if kind == "money" else "tokens"
    if percent < 100:
        return f"The server {server} has used {percent} % of its {what} {month}: {figures}."
    return (
        f"The server {server} has used up its {what} {month} ({figures}), so I refuse questions"
        " there until it renews."
    )
