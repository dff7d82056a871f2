"""Removes everything that the store has of a person, or of a server."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Literal, Protocol
from urllib.parse import quote

from bot.concurrency import BackgroundTasks, Backoff
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)

_WAIT = Backoff(first=0.2, longest=10.0)  # for a turn that has to end, or be repaired, first
_AT_ONCE = 4  # jobs of one worker: one that waits for a turn delays no others


class _Script(Protocol):
    async def run(self, verb: str, *arguments: str | int) -> object: ...


class Forgetting:
    """The jobs to forget somebody, which any worker goes on with. Raises StoreUnavailable.

    A job stands in the store until nothing is left. Until then the person is refused, and nothing
    that others save has words of theirs. Each step can be done twice, or by two workers at once.
    """

    def __init__(self, script: _Script) -> None:
        self._script = script

    async def begin(self, who: str) -> None:
        """Store the job; `who` comes from `person` or `server`. A second call changes nothing."""
        await self._script.run("begin_forgetting", who, secrets.token_hex(16))

    async def is_done(self, who: str) -> bool:
        """Return whether there is no such job, or none any more."""
        return not await self._script.run("is_forgetting", who)

    async def claim(self) -> str | None:
        """Return a job with which no other worker goes on; None if there is none."""
        who = await self._script.run("claim_forgetting")
        return who if isinstance(who, str) else None

    async def carry_out(self, who: str) -> None:
        """Remove everything, and the job at last."""
        await self._script.run("forget_known", who)
        attempt = 0
        while True:
            found, waits = await self._look_through(who)
            if not (found or waits):
                break
            attempt = attempt + 1 if waits else 0
            if waits:
                await asyncio.sleep(_WAIT.delay(attempt))
            if await self.is_done(who):
                return
        await self._script.run("end_forgetting", who)
        log.info("Forgot a %s of %s", *who.split(":")[:2])

    async def _look_through(self, who: str) -> tuple[int, int]:
        """Forget what all keys have; return how much it was, and how much has to end first."""
        cursor, found, waits = "0", 0, 0
        while True:
            answer = await self._script.run("forget_some", who, cursor)
            cursor, some, waiting = answer if isinstance(answer, list) else ("0", 0, 0)
            found, waits = found + int(some), waits + int(waiting)
            if cursor == "0":
                return found, waits


class Forgetter:
    """Background task of a worker that goes on with the jobs."""

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
        # Later, a worker begins anew with a job that the store has interrupted.
        with suppress(StoreUnavailable):
            await self._forgetting.carry_out(who)


def named(kind: Literal["person", "server"], platform: str, written: str) -> str:
    """Return the name of a job; a server is a workspace of thread keys."""
    return f"{kind}:{platform}:{quote(written, safe='', errors='replace')}"
