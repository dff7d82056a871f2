"""Removes all data of a person or of a server from the store."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from typing import Literal, Protocol
from urllib.parse import quote

from bot.concurrency import BackgroundTasks, Backoff
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)

_WAIT = Backoff(first=0.2, longest=10.0)  # for a turn that has to end, or be repaired, first
# A person is forgotten again after so many times as long as it took, and at most so many seconds:
# a job reads all keys.
_PAUSE, _LONGEST_PAUSE = 10, 60.0
_AT_ONCE = 4  # jobs of one worker: one that waits for a turn delays no others


class _Script(Protocol):
    async def run(self, verb: str, *arguments: str | int) -> object: ...


class Forgetting:
    """The jobs that forget a person or a server. Raises StoreUnavailable.

    A job is stored until nothing is left, and any worker can continue it. Until then the person is
    refused, and their text is removed from all that is saved. Steps can be repeated, also by two
    workers at once.
    """

    def __init__(self, script: _Script) -> None:
        self._script = script

    async def begin(self, who: str) -> None:
        """Store the job; `who` comes from `person` or `server`. A second call changes nothing."""
        await self._script.run("begin_forgetting", who, secrets.token_hex(16))

    async def is_done(self, who: str) -> bool:
        """Return whether there is no such job, or no longer one."""
        return not await self._script.run("is_forgetting", who)

    async def claim(self) -> str | None:
        """Claim a job for this worker; None if there is none."""
        who = await self._script.run("claim_forgetting")
        return who if isinstance(who, str) else None

    async def carry_out(self, who: str) -> int:
        """Remove all data, and then the job; return how much this call has removed."""
        began_at = time.monotonic()
        known = await self._script.run("forget_known", who)
        attempt, removed = 0, known if isinstance(known, int) else 0
        while True:
            found, waits = await self._scan_all_keys(who)
            removed += found
            if not (found or waits):
                break
            attempt = attempt + 1 if waits else 0
            if waits:
                await asyncio.sleep(_WAIT.delay(attempt))
            if await self.is_done(who):
                return removed
        pause = min(_PAUSE * (time.monotonic() - began_at), _LONGEST_PAUSE)
        await self._script.run("end_forgetting", who, int(pause * 1000))
        log.info("Forgot a %s of %s", *who.split(":")[:2])
        return removed

    async def _scan_all_keys(self, who: str) -> tuple[int, int]:
        """Forget the data of all keys; return how much was removed, and how much must end first."""
        cursor, found, waits = "0", 0, 0
        while True:
            answer = await self._script.run("forget_some", who, cursor)
            cursor, some, waiting = answer if isinstance(answer, list) else ("0", 0, 0)
            found, waits = found + int(some), waits + int(waiting)
            if cursor == "0":
                return found, waits


class Forgetter:
    """Background task of a worker that runs the jobs."""

    def __init__(self, forgetting: Forgetting, *, pause_seconds: float) -> None:
        self._forgetting = forgetting
        self._pause = pause_seconds

    async def run(self) -> None:
        """Work until cancelled."""
        async with BackgroundTasks() as jobs:
            while True:
                with suppress(StoreUnavailable):
                    while len(jobs) < _AT_ONCE and (who := await self._forgetting.claim()):
                        jobs.start(self._carry_out(who))
                await asyncio.sleep(self._pause)

    async def _carry_out(self, who: str) -> None:
        # A job that the store has interrupted is started again later.
        with suppress(StoreUnavailable):
            await self._forgetting.carry_out(who)


def named(kind: Literal["person", "server"], platform: str, written: str) -> str:
    """Return the name of a job; a server is named by the workspace of its thread keys."""
    return f"{kind}:{platform}:{quote(written, safe='', errors='replace')}"
