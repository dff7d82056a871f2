"""Removes all data of a person or of a server from the store."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import quote, unquote

from bot import audit
from bot.concurrency import BackgroundTasks, Backoff
from bot.errors import StoreUnavailable
from bot.turns.erasing import Eraser, Subject, Verbs

# Until a server that has removed the bot is forgotten, which is to be done within a day.
REMOVED_SECONDS = 23 * 3600
_WAIT = Backoff(first=0.2, longest=10.0)  # for a turn that has to end, or be repaired, first
# A person is forgotten again after so many times as long as it took, and at most so many seconds:
# a job reads all keys.
_PAUSE, _LONGEST_PAUSE = 10, 60.0
_AT_ONCE = 4  # jobs of one worker: one that waits for a turn delays no others
_SALT_MS = 2 * 24 * 3600 * 1000  # of that which hides who has just been forgotten


class Forgetting:
    """The jobs that forget a person or a server. Raises StoreUnavailable.

    A job is stored until nothing is left, and any worker can continue it. Until then the person is
    refused, and their text is removed from all that is saved. Steps can be repeated, also by two
    workers at once. `own_names` has for each platform what `PlatformSpec.own_names` says, and
    `removes_on` are those on which `removes_answers` holds.
    """

    def __init__(
        self,
        script: Verbs,
        *,
        own_names: Mapping[str, Sequence[str]],
        removes_on: Collection[str] = (),
    ) -> None:
        self._script = script
        self._store = script.store
        self._own_names = own_names
        self._removes_on = removes_on
        # A job makes room, so it begins in a full store, too.
        self._run = script.store.script("return redis.call(unpack(ARGV))", if_full=True)

    async def begin(self, who: str, *, by: str = "", after: int = 0) -> None:
        """Store the job; `who` comes from `named`. A second call changes nothing.

        `by` is the id of the person who wants it, or what else begins it, for auditors. A job that
        begins `after` more than a minute, in seconds, can be cancelled until then.
        """
        command, key = self._command, self._store.key
        await command("SET", key("spent", "salt"), secrets.token_hex(16), "NX", "PX", _SALT_MS)
        pause_ms = max(await command("PTTL", await self._forgotten(who)), 0)
        seconds, microseconds = map(int, await command("TIME"))
        due_at = seconds * 1000 + microseconds // 1000 + max(pause_ms, after * 1000)
        is_new = await command("ZADD", key("forgetting"), "NX", due_at, who)
        await self._store.replicate()
        if is_new:
            _audit("forget", who, by=by)

    async def cancel(self, *jobs: str) -> None:
        """Remove jobs that begin in more than a minute."""
        cancelled = await self._script.run("cancel_forgetting", *jobs)
        for who in cancelled if isinstance(cancelled, list) else ():
            _audit("kept", who)

    async def is_done(self, who: str) -> bool:
        """Return whether there is no such job, or no longer one."""
        return await self._store.command("ZSCORE", self._store.key("forgetting"), who) is None

    async def claim(self) -> str | None:
        """Claim a job for this worker; None if there is none."""
        who = await self._script.run("claim_forgetting", "")
        return who if isinstance(who, str) else None

    async def carry_out(self, who: str) -> int:
        """Remove all data, and then the job; return how much this call has removed."""
        subject = Subject.of(who, self._own_names)
        eraser = Eraser(self._script, subject)
        began_at, attempt, removed = time.monotonic(), 0, 0
        while looked := await self._look_through(who, eraser):
            found, waits = looked
            removed += found
            if not (found or waits):
                await eraser.end()
                if subject.is_person and subject.platform in self._removes_on:
                    await self._remove_answers(subject)
                if await self._end(who, time.monotonic() - began_at):
                    _audit("forgotten", who, removed=removed)
                break
            attempt = attempt + 1 if waits else 0
            if waits:
                await asyncio.sleep(_WAIT.delay(attempt))
        return removed

    async def _remove_answers(self, who: Subject) -> None:
        key = self._store.key("removals", who.platform)
        await self._command("SADD", key, f"{who.id} {int(time.time() * 1000)}")
        await self._command("PEXPIRE", key, self._script.keep_ms)

    async def _look_through(self, who: str, eraser: Eraser) -> tuple[int, int] | None:
        """Look through all keys; None if there is no such job any more.

        Return how much was removed, and how much has to end first.
        """
        found = waits = 0
        await eraser.begin()
        async for names in self._store.names():
            # Another worker may have ended the job, and the person may have asked again.
            if not await self._script.run("claim_forgetting", who):
                return None
            some, waiting = await eraser.erase(names)
            found, waits = found + some, waits + waiting
        return found, waits

    async def _end(self, who: str, took_seconds: float) -> bool:
        """Remove the job; False if another worker has."""
        pause_ms = int(min(_PAUSE * took_seconds, _LONGEST_PAUSE) * 1000)
        await self._store.command("SET", await self._forgotten(who), "1", "PX", max(pause_ms, 1))
        return bool(await self._store.command("ZREM", self._store.key("forgetting"), who))

    async def _command(self, *words: str | int) -> Any:
        """Send a command, as `Store.command` does, that is also carried out in a full store."""
        return await self._run(keys=[], args=words)

    async def _forgotten(self, who: str) -> str:
        """Return the key that marks somebody as forgotten until it expires.

        It is anonymous once the salt is gone.
        """
        salt = await self._store.command("GET", self._store.key("spent", "salt")) or ""
        return self._store.key("forgotten", hashlib.sha256((salt + who).encode()).hexdigest())


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


def _audit(event: str, who: str, **values: object) -> None:
    kind, platform, written = who.split(":", 2)
    audit.note(event, kind=kind, platform=platform, id=unquote(written), **values)


def named(kind: Literal["person", "server"], platform: str, written: str) -> str:
    """Return the name of a job; a server is named by the workspace of its thread keys."""
    return f"{kind}:{platform}:{quote(written, safe='', errors='replace')}"
