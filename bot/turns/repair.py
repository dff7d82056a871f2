"""Repairs replies after late writes, and deletes orphaned messages of earlier attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bot.concurrency import BackgroundTasks, Backoff
from bot.domain import Page, Purpose, Shown, Turn
from bot.errors import (
    MessageGone,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.languages import speak
from bot.ports import Platform, Surface
from bot.reply.edit_budget import EditBudgets
from bot.reply.writer import apologize, close, restore, take_buttons_away
from bot.turns.queue import Repair, TurnQueue

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_DELETION = Page(0, "", final=True)
_RETRY = Backoff(first=1.0, longest=60.0)
_FINISH_RETRY = Backoff(first=0.2, longest=2.0)
_REPAIR_RETRY = Backoff(first=0.5, longest=60.0)


@dataclass(frozen=True, slots=True)
class WorkPolicy:
    """The pauses of a worker, in seconds, and its limits; `…_leases` are multiples of a lease."""

    longest_read: float = 1.0  # of the queue; delays the stop of the process
    store_pause: float = 0.5  # before the store is tried again
    max_attempts: int = 10  # at an answer; then a repair posts an apology
    # Attempts when the last one ended with an error of our own: it will fail again.
    attempts_at_errors: int = 3
    retry: Backoff = _RETRY  # of a failed attempt
    finish_retry: Backoff = _FINISH_RETRY  # of storing an end while the store is away
    post_grace: float = 2.0  # for a post under way when the lease is lost
    release_grace: float = 2.0  # at shutdown, to release all turns that did not end
    repairs_at_once: int = 16
    # Attempts to remove the buttons of an older reply, and the pause between them. The bucket has
    # a spare slot some seconds after the last write of another reply.
    button_attempts: int = 30
    button_pause: float = 2.0
    closing: float = 600.0  # in which a page that was cut to go on below is closed
    repair_retry: Backoff = _REPAIR_RETRY  # of a write that repairs a reply
    repair_leases: float = 12  # after which another worker repairs the turn
    # A worker has saved the messages that it posted by then, even after an outage of the store.
    save_leases: float = 6


class Reconciler:
    """Background task that repairs replies after a lost lease."""

    def __init__(
        self,
        *,
        queue: TurnQueue,
        platforms: Mapping[str, Platform],
        budgets: EditBudgets,
        patience: float,
        lease_seconds: float,
        policy: WorkPolicy,
    ) -> None:
        self._queue = queue
        self._platforms = platforms
        self._budgets = budgets
        self._patience = patience
        self._lease_seconds = lease_seconds
        self._claim_seconds = policy.repair_leases * lease_seconds
        self._policy = policy
        self._tasks = BackgroundTasks()
        self._button_removals = BackgroundTasks()

    async def run(self) -> None:
        """Repair until cancelled."""
        async with self._tasks, self._button_removals:
            while True:
                with suppress(StoreUnavailable):
                    await self._start_due_repairs()
                await asyncio.sleep(self._lease_seconds / 3)

    def report(self, turn: Turn, message_ids: Sequence[str]) -> None:
        """Queue a repair of a turn whose last write, to one of these, may arrive after its end."""
        self._tasks.start(self._report(turn, message_ids))

    def take_buttons_away(self, turn_id: str) -> None:
        """Try for a while to remove the buttons of a superseded reply; a press is refused."""
        self._button_removals.start(self._take_buttons_away(turn_id))

    def close(self, turn: Turn, shown: Shown, page: Page) -> None:
        """Try for a while to close a page of an ended reply, whose rest stands below it."""
        self._button_removals.start(self._close(turn, shown, page))

    async def _close(self, turn: Turn, shown: Shown, page: Page) -> None:
        speak(turn.language)
        message_id, written = shown.message_ids[page.number], (shown.message_ids, shown.text)
        writing = partial(close, page, message_id, budgets=self._budgets, patience=self._patience)
        try:
            async with (
                asyncio.timeout(self._policy.closing),
                self._platform_of(turn).surface(turn, Purpose.RESTORE) as surface,
            ):
                while True:
                    with suppress(StoreUnavailable, WriteDelayed, WriteFailed):
                        # It may be rewritten or forgotten meanwhile.
                        result = await self._queue.lookup.result(turn.id)
                        if result and (result.message_ids, result.text) == written:
                            await writing(surface=surface)
                        return
                    await asyncio.sleep(self._policy.button_pause)
        except (TimeoutError, SurfaceError) as error:
            log.info("Turn %s: a page stays as it was cut: %r", turn.id, error)
        except Exception:
            log.exception("Turn %s: cannot close a page", turn.id)

    async def _take_buttons_away(self, turn_id: str) -> None:
        try:
            async with asyncio.timeout(self._claim_seconds):
                turn = await self._queue.lookup.turn(turn_id)
                platform = turn and self._platforms.get(turn.key.platform)
                if turn and platform:
                    speak(turn.language)
                    async with platform.surface(turn, Purpose.RESTORE) as surface:
                        await self._remove_buttons(turn, surface)
        except (TimeoutError, StoreUnavailable, SurfaceError) as error:
            log.info("Turn %s: the buttons of its older reply stay: %r", turn_id, error)
        except Exception:
            log.exception("Turn %s: cannot remove its buttons", turn_id)

    async def _remove_buttons(self, turn: Turn, surface: Surface) -> None:
        for _ in range(self._policy.button_attempts if surface.has_buttons else 0):
            # It may be rewritten meanwhile, if the reply after it was forgotten.
            result = await self._queue.lookup.result(turn.id)
            if result is None or not (result.message_ids and result.text and result.end == "older"):
                return
            with suppress(WriteDelayed, WriteFailed):
                if await take_buttons_away(result, surface=surface, budgets=self._budgets):
                    return
            await asyncio.sleep(self._policy.button_pause)

    async def _report(self, turn: Turn, message_ids: Sequence[str]) -> None:
        while True:
            with suppress(StoreUnavailable):
                return await self._queue.repairs.report_late_writes(turn, message_ids)
            await asyncio.sleep(self._policy.store_pause)

    async def _start_due_repairs(self) -> None:
        # A platform that could not be reached may be added meanwhile.
        for name in list(self._platforms):
            while len(self._tasks) < self._policy.repairs_at_once:
                repair = await self._queue.repairs.claim(name, seconds=self._claim_seconds)
                if repair is None:
                    break
                self._tasks.start(self._reconcile(repair))

    async def _reconcile(self, repair: Repair) -> None:
        """Repair a turn. If that fails, the claim expires and another worker tries."""
        turn_id = repair.turn.id
        speak(repair.turn.language)
        try:
            async with asyncio.timeout(self._claim_seconds):
                await self._repair(repair)
                await self._queue.repairs.complete(repair)
        except (TimeoutError, StoreUnavailable) as error:
            log.info("Turn %s: the repair of its reply is retried later: %r", turn_id, error)
        except Exception:
            log.exception("Turn %s: cannot repair its reply", turn_id)

    # Each step reads the turn's result again, because the answer may be regenerated meanwhile.
    async def _repair(self, repair: Repair) -> None:
        turn = repair.turn
        # Not after each further attempt: platforms take few writes, and other replies need them.
        if repair.late_writes:
            await self._retried(turn, partial(self._restore, turn, repair.late_writes))
        apology = await self._retried(turn, partial(self._apologize, turn))
        await self._retried(turn, partial(self._delete_orphans, repair, apology or ""))

    async def _restore(self, turn: Turn, late_writes: Sequence[str]) -> None:
        """Write the final text again, and delete late messages that are not part of it.

        A reply whose text was forgotten stays as it is.
        """
        result = await self._queue.lookup.result(turn.id)
        if result is None:
            return
        async with self._platform_of(turn).surface(turn, Purpose.RESTORE) as surface:
            for message_id in late_writes:
                if message_id not in result.message_ids:
                    with suppress(MessageGone, WriteRefused):
                        await surface.edit(message_id, _DELETION)
            if result.text:
                await restore(
                    result, surface=surface, budgets=self._budgets, patience=self._patience
                )

    async def _apologize(self, turn: Turn) -> str:
        """Post a missing apology, or edit a message of an earlier attempt so; return its id."""
        if not await self._queue.repairs.lacks_apology(turn.id):
            return ""
        async with self._platform_of(turn).surface(turn, Purpose.APOLOGIZE) as surface:
            return await apologize(surface=surface, budgets=self._budgets, patience=self._patience)

    async def _delete_orphans(self, repair: Repair, apology: str) -> None:
        turn = repair.turn
        result, platform = await self._queue.lookup.result(turn.id), self._platform_of(turn)
        if result is None:
            return
        own = (*result.message_ids, *filter(None, (apology,)))
        found = await platform.orphaned_messages(turn, but=own)
        if any(one in own for one in found) and not repair.late_writes:
            # From a process that was killed before it could report its write.
            log.warning("Turn %s: writing its reply in %s again", turn.id, turn.key)
            # A repair that dies over it is made again.
            await self._queue.repairs.report_late_writes(turn, result.message_ids)
            return
        orphans = await self._unsaved(turn, [one for one in found if one not in own])
        if not orphans:
            return
        log.warning("Turn %s: deleting orphaned messages in %s: %s", turn.id, turn.key, orphans)
        async with platform.surface(turn, Purpose.RESTORE) as surface:
            for message_id in orphans:
                await self._retried(turn, partial(surface.edit, message_id, _DELETION))

    async def _unsaved(self, turn: Turn, found: Sequence[str]) -> list[str]:
        """Wait until the running turn of the thread has ended; return what no turn has saved.

        They may be messages of that turn, which cannot reach the store: it saves them at its end.
        """
        lookup, platform = self._queue.lookup, turn.key.platform
        running = await lookup.first_open(turn.key)
        while found:
            await asyncio.sleep(self._policy.save_leases * self._lease_seconds)
            if not running or running != await lookup.first_open(turn.key):
                return [it for it in found if not await lookup.thread_of(platform, it)]
        return []

    async def _retried(self, turn: Turn, step: Callable[[], Awaitable[_T]]) -> _T | None:
        """Repeat a step until the platform accepts it or refuses it for good."""
        pauses = self._policy.repair_retry.pauses()
        while True:
            try:
                return await step()
            except (WriteDelayed, WriteFailed) as error:
                log.info("Turn %s: retrying the repair in %s: %s", turn.id, turn.key, error)
                await asyncio.sleep(max(error.retry_after, next(pauses)))
            except SurfaceError as error:
                log.info("Turn %s: the repair in %s was refused: %s", turn.id, turn.key, error)
                return None

    def _platform_of(self, turn: Turn) -> Platform:
        return self._platforms[turn.key.platform]
