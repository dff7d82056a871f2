"""Takes turns from the queue and answers them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing, suppress

from bot.access.quotas import Prices
from bot.concurrency import cancelled, running, turn_in_work
from bot.errors import (
    LeaseLost,
    PlaceGone,
    QuestionEdited,
    StoreUnavailable,
    SurfaceError,
    WriteRefused,
)
from bot.languages import speak
from bot.ports import Platform
from bot.tracing import span, trace_in_work
from bot.turns.conversation import Conversation
from bot.turns.forgetting import Forgetter
from bot.turns.lease import Attempt, Lease
from bot.turns.notices import QuotaNotices
from bot.turns.queue import Taken, TurnQueue
from bot.turns.repair import Reconciler, WorkPolicy
from bot.turns.titles import TitleMaker

log = logging.getLogger(__name__)
_TAKE_SECONDS = 0.5  # beyond its wait, in which a worker takes a turn and begins it


class Worker:
    """Works on the turns of the given platforms, up to `capacity` at once.

    Each turn gets an outcome, goes back to the queue, or is left until its lease ends.
    """

    def __init__(
        self,
        *,
        queue: TurnQueue,
        platforms: Mapping[str, Platform],
        conversation: Conversation,
        capacity: int,
        lease_seconds: float,
        drain_seconds: float,
        policy: WorkPolicy | None = None,
        prices: Prices | None = None,
        notices: QuotaNotices | None = None,
        titles: TitleMaker | None = None,
    ) -> None:
        self._leases = queue.leases
        self._platforms = platforms
        self._conversation = conversation
        self._capacity = capacity
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._policy = policy = policy or WorkPolicy()
        self._prices = prices
        self._notices = notices
        self._titles = titles
        self._tasks: set[asyncio.Task[None]] = set()
        # The names in the order in which they are asked, which goes round.
        self._order = deque[str]()
        # Until then, by the loop's clock, turns stay with their workers although a lease has ended.
        self._holds_until = 0.0
        self._reconciler = Reconciler(
            queue=queue,
            platforms=platforms,
            budgets=conversation.budgets,
            patience=conversation.patience,
            lease_seconds=lease_seconds,
            policy=policy,
        )
        self._forgetter = Forgetter(queue.forgetting, pause_seconds=policy.store_pause)
        self._running: dict[str, Lease] = {}  # by turn id

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; then let replies end, and release the others.

        Returns within `drain_seconds` plus three, even if the store hangs.
        """
        now = asyncio.get_running_loop().time
        stop = asyncio.create_task(stopping.wait())
        taking = asyncio.create_task(self._take_turns(stopping))
        loops = [
            taking,
            asyncio.create_task(self._follow_requests()),
            asyncio.create_task(self._reconciler.run()),
            asyncio.create_task(self._forgetter.run()),
        ]
        if self._notices:
            loops.append(asyncio.create_task(self._notices.run()))
        if self._titles:
            loops.append(asyncio.create_task(self._titles.run(self._tasks)))
        try:
            await asyncio.wait((stop, *loops), return_when=asyncio.FIRST_COMPLETED)
            deadline = now() + self._drain_seconds
            # A turn that is taken but not begun would wait until its lease ends.
            await asyncio.wait((taking,), timeout=self._policy.longest_read + _TAKE_SECONDS)
            taking.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=deadline - now())
        finally:
            tasks = [stop, *loops, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=self._policy.release_grace)
        for task in loops:
            if task.done() and not task.cancelled():
                task.result()

    async def _take_turns(self, stopping: asyncio.Event) -> None:
        now = asyncio.get_running_loop().time
        away = False
        while not stopping.is_set():
            if len(self._tasks) >= self._capacity:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            try:
                await self._take_or_wait()
                away = False
            except StoreUnavailable as error:
                if not away:
                    log.warning("Cannot take turns until the store is available: %s", error)
                away = True
                # Workers that kept their turns during the outage get time to renew the leases.
                self._holds_until = now() + self._lease_seconds
                await asyncio.sleep(self._policy.store_pause)

    async def _take_or_wait(self) -> None:
        now = asyncio.get_running_loop().time
        hold = self._holds_until - now()
        # A platform that could not be reached may be added meanwhile.
        self._order.extend(name for name in self._platforms if name not in self._order)
        self._order.rotate(-1)
        try:
            found = await self._leases.take(self._order, own=self._running, holds_due=hold > 0)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("A turn cannot be taken")
            found = self._policy.store_pause
        if not isinstance(found, Taken):
            # Turns that others take now are due later, and not counted in `found`.
            longest = min(self._policy.longest_read, self._lease_seconds / 3)
            await self._leases.wait(self._order, longest if hold > 0 else min(found, longest))
            return
        task = asyncio.create_task(self._work(found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._titles:
            self._titles.make_way()

    async def _follow_requests(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                async with aclosing(self._leases.requests()) as turn_ids:
                    async for turn_id in turn_ids:
                        if lease := self._running.get(turn_id):
                            lease.news.set()
            await asyncio.sleep(self._policy.store_pause)

    async def _work(self, taken: Taken) -> None:
        """Work on one turn. No error in it reaches another turn."""
        turn_id = taken.turn.id
        turn_in_work.set(turn_id)
        speak(taken.turn.language)
        _enter_trace(taken)
        lease = Lease(
            leases=self._leases,
            taken=taken,
            seconds=self._lease_seconds,
            finish_retry=self._policy.finish_retry,
            prices=self._prices,
        )
        self._running[turn_id] = lease
        try:
            await self._run_leased(Attempt(lease))
        except StoreUnavailable as error:
            log.warning("Turn %s: left until the store is available: %s", turn_id, error)
        except LeaseLost:
            log.info("Turn %s: taken by another worker", turn_id)
        except Exception:
            log.exception("Turn %s: cannot be released", turn_id)
        finally:
            # This worker may have taken the turn again.
            if self._running.get(turn_id) is lease:
                del self._running[turn_id]

    async def _run_leased(self, attempt: Attempt) -> None:
        lease = attempt.lease
        answering = asyncio.create_task(self._answer(attempt))
        is_cut_off = False
        async with running(lease.renew_until_cancelled()) as renewing:
            try:
                await asyncio.wait((renewing, answering), return_when=asyncio.FIRST_COMPLETED)
                # If a renewal is refused while the turn is being finished, the finish decides.
                if not answering.done() and not lease.is_finishing:
                    # A post in flight returns the id of a message that a repair has to delete.
                    await asyncio.wait((answering,), timeout=self._policy.post_grace)
                    is_cut_off = not answering.done()
                    await cancelled(answering)
                    # Raises why the lease ended.
                    await renewing
                await answering
                if attempt.superseded_turn_id:
                    self._reconciler.take_buttons_away(attempt.superseded_turn_id)
                if attempt.unclosed:
                    self._reconciler.close(attempt.turn, attempt.shown, attempt.unclosed)
            except LeaseLost:
                if attempt.wrote:
                    # The turn may come back to this worker if its new worker dies.
                    self._report(attempt)
                raise
            except QuestionEdited:
                log.info("Turn %s: answered again, because its question was edited", lease.turn.id)
                if is_cut_off and attempt.wrote:
                    # A write in flight may overwrite the next attempt.
                    self._report(attempt)
                await lease.give_back()
            except asyncio.CancelledError:
                # Shutdown: the reply did not end in time, and another process continues it.
                await cancelled(answering)
                await lease.give_back()
                raise

    def _report(self, attempt: Attempt) -> None:
        self._reconciler.report(attempt.turn, attempt.shown.message_ids)

    async def _answer(self, attempt: Attempt) -> None:
        turn, platform = attempt.turn, self._platforms[attempt.turn.key.platform]
        # A whole answer gets twice as many attempts.
        most = self._policy.max_attempts * (2 if attempt.shown.outcome else 1)
        try:
            if attempt.lease.taken.attempts > most:
                log.warning("Turn %s: given up after %s attempts", turn.id, most)
                await self._conversation.end_unshown(attempt, platform)
            else:
                await self._conversation.answer(attempt, platform)
        except (LeaseLost, QuestionEdited, StoreUnavailable):
            raise
        except (PlaceGone, WriteRefused) as error:
            log.warning("Turn %s: cannot post the reply in %s: %s", turn.id, turn.key, error)
            await self._conversation.end_refused(attempt)
        except SurfaceError as error:
            log.warning("Turn %s: the reply in %s is retried later: %s", turn.id, turn.key, error)
            await self._retry_later(attempt.lease, at_least=error.retry_after)
        except Exception as error:
            if attempt.lease.taken.attempts < self._policy.attempts_at_errors:
                kind = type(error).__name__
                log.warning("Turn %s: the reply in %s is retried: %s", turn.id, turn.key, kind)
                await self._retry_later(attempt.lease)
            else:
                log.exception("Turn %s: the reply in %s is given up", turn.id, turn.key)
                await self._conversation.end_unshown(attempt, None)

    async def _retry_later(self, lease: Lease, *, at_least: float = 0.0) -> None:
        delay = max(self._policy.retry.delay(lease.taken.attempts), at_least)
        await lease.give_back(delay_seconds=delay, counts=True)


def _enter_trace(taken: Taken) -> None:
    """Let all that this task does belong to the trace of the turn, after its wait."""
    traceparent = taken.turn.traceparent
    trace_in_work.set(traceparent)
    # A wait between two attempts is that of other spans.
    if taken.fence == 1 or not traceparent:
        with span("wait", began_before=taken.waited) as wait:
            trace_in_work.set(traceparent or wait.traceparent)
