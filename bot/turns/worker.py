"""Takes turns, has them answered, and lets none go unfinished."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from bot.concurrency import cancelled
from bot.errors import (
    LeaseLost,
    PlaceGone,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteRefused,
)
from bot.ports import Platform
from bot.turns.conversation import Conversation
from bot.turns.lease import Lease
from bot.turns.queue import Taken, Token, TurnQueue
from bot.turns.repair import AWAY_SECONDS, Reconciler

log = logging.getLogger(__name__)

BLOCK_SECONDS = 1.0  # the longest read of the queue, and so the longest that a stop goes unseen
_SHORTEST_BLOCK = 0.001
MAX_TRIES = 10
LONGEST_BACK = 60.0  # seconds before a failed turn is tried again; doubles from one second
_MARGIN = 0.5
_HAND_OVER_SECONDS = 2.0  # for all that did not end, together
POST_SECONDS = 2.0  # for a post that is under way when the lease is lost


class Worker:
    """Works on the turns of the given platforms, up to `capacity` at once.

    A turn ends with an outcome here, goes back to the queue, or is left to whoever reclaims it.
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
    ) -> None:
        self._queue = queue
        self._platforms = platforms
        self._conversation = conversation
        self._capacity = capacity
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._tasks: dict[asyncio.Task[None], Token] = {}  # each with the token it works on
        self._surplus: deque[Token] = deque()  # read with others, for which there was no room
        self._reclaim_at = 0.0  # by the loop's clock
        self._mender = Reconciler(
            queue=queue,
            platforms=platforms,
            conversation=conversation,
            lease_seconds=lease_seconds,
        )
        self._leases: dict[str, Lease] = {}  # by turn id

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; then let replies end and hand over what does not.

        Returns within `drain_seconds` and three more, whatever the store does.
        """
        loop = asyncio.get_running_loop()
        told = asyncio.create_task(stopping.wait())
        taking = asyncio.create_task(self._take_what_is_ready(stopping))
        following = asyncio.create_task(self._follow_stops())
        mending = asyncio.create_task(self._mender.run())
        try:
            await asyncio.wait(
                (told, taking, following, mending), return_when=asyncio.FIRST_COMPLETED
            )
            deadline = loop.time() + self._drain_seconds
            # A token that was read and not taken would have to wait for its lease to end.
            await asyncio.wait((taking,), timeout=BLOCK_SECONDS + _MARGIN)
            taking.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=deadline - loop.time())
        finally:
            others = [told, taking, following, mending, *self._tasks]
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=_HAND_OVER_SECONDS)
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_MARGIN):
                await self._queue.leave(list(self._platforms))
        for task in (taking, following, mending):
            if task.done() and not task.cancelled():
                task.result()

    async def _take_what_is_ready(self, stopping: asyncio.Event) -> None:
        now, away = asyncio.get_running_loop().time, False
        while not stopping.is_set():
            free = self._capacity - len(self._tasks)
            if free <= 0:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            try:
                self._start(await self._next(free))
                away = False
            except StoreUnavailable as error:
                if not away:
                    log.warning("No turns can be taken, until the store is back: %s", error)
                away = True
                # Whoever was at work all the while renews the lease first, and goes on.
                self._reclaim_at = now() + self._lease_seconds
                await asyncio.sleep(AWAY_SECONDS)

    async def _next(self, free: int) -> list[Token]:
        """Return tokens to work on; what others left comes first, however many turns are new."""
        now, platforms = asyncio.get_running_loop().time, list(self._platforms)
        if now() >= self._reclaim_at:
            if tokens := await self._queue.reclaim(platforms, count=free):
                return tokens
            self._reclaim_at = now() + self._lease_seconds / 3
        if self._surplus:
            return [self._surplus.popleft()]
        # Each platform's stream may answer with as many.
        return await self._queue.ready(
            platforms,
            count=max(free // len(platforms), 1),
            # To Redis, no time at all would mean to wait for ever.
            block_seconds=max(min(BLOCK_SECONDS, self._reclaim_at - now()), _SHORTEST_BLOCK),
        )

    async def _follow_stops(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                async with self._queue.stops() as turn_ids:
                    async for turn_id in turn_ids:
                        if lease := self._leases.get(turn_id):
                            lease.stop.set()
            await asyncio.sleep(AWAY_SECONDS)

    def _start(self, tokens: Sequence[Token]) -> None:
        held = set(self._tasks.values())
        for token in tokens:
            # After an outage we may have reclaimed what we are still working on: that renewed it.
            if token in held:
                continue
            if len(self._tasks) >= self._capacity:
                self._surplus.append(token)
                continue
            task = asyncio.create_task(self._work(token))
            self._tasks[task] = token
            task.add_done_callback(self._tasks.pop)

    async def _work(self, token: Token) -> None:
        """The outermost handler of a turn: nothing that happens in it reaches another turn."""
        try:
            taken = await self._queue.take(token)
            if taken is None:
                return
            lease = Lease(queue=self._queue, taken=taken, seconds=self._lease_seconds)
            self._leases[taken.turn.id] = lease
            try:
                await self._hold(lease)
            finally:
                self._leases.pop(taken.turn.id, None)
        except StoreUnavailable as error:
            log.warning("A turn is left until the store is back: %s", error)
        except LeaseLost:
            log.info("A turn went to another worker")
        except Exception:
            log.exception("A turn could not be given back")

    async def _hold(self, lease: Lease) -> None:
        keeping = asyncio.create_task(lease.keep())
        answering = asyncio.create_task(self._answer(lease))
        try:
            await asyncio.wait((keeping, answering), return_when=asyncio.FIRST_COMPLETED)
            # A renewal that met the end of the turn is refused; the end itself knows better.
            if not answering.done() and not lease.ending:
                # A post that is under way tells its id, and saving that is refused.
                await asyncio.wait((answering,), timeout=POST_SECONDS)
                await cancelled(answering)
                await keeping
            await answering
        except LeaseLost:
            if lease.wrote:
                # The turn may well come back to us, if its new owner dies.
                self._mender.lost(lease)
            raise
        except asyncio.CancelledError:
            # Shutdown: the reply did not end in time, so another process goes on with it.
            await cancelled(answering)
            await self._queue.back(lease.taken, delay_seconds=0, counts=False)
            raise
        finally:
            await cancelled(keeping)

    async def _answer(self, lease: Lease) -> None:
        try:
            await self._answer_or_give_up(lease)
        except (LeaseLost, StoreUnavailable):
            raise
        except (PlaceGone, WriteRefused) as error:
            log.warning("A reply has no place: %s", error)
            await self._conversation.leave(lease)
        except WriteDelayed as error:
            log.warning("A reply is tried again later: %s", error)
            await self._back(lease.taken, at_least=error.retry_after)
        except SurfaceError as error:
            log.warning("A reply is tried again later: %s", error)
            await self._back(lease.taken)
        except Exception:
            log.exception("Turn %s failed and is tried again later", lease.turn.id)
            await self._back(lease.taken)

    async def _answer_or_give_up(self, lease: Lease) -> None:
        tries, whole = lease.taken.tries, bool(lease.shown.outcome)
        # An apology below an answer that is whole would be wrong: it gets as many tries again.
        most = 2 * MAX_TRIES if whole else MAX_TRIES
        if tries > most + MAX_TRIES:
            # Not even the apology got through: that is left to whoever mends.
            await self._conversation.abandon(lease)
            return
        platform = self._platforms[lease.turn.key.platform]
        opened = platform.surface(lease.turn, lease.taken.purpose)
        if tries > most:
            async with opened as surface:
                await self._conversation.give_up(lease, surface)
        elif whole:
            async with opened as surface:
                await self._conversation.end(lease, surface)
        else:
            async with self._conversation.asking(lease) as deltas, opened as surface:
                await self._conversation.answer(lease, surface, deltas)

    async def _back(self, taken: Taken, *, at_least: float = 0.0) -> None:
        delay = min(2.0 ** min(taken.tries - 1, MAX_TRIES), LONGEST_BACK)
        await self._queue.back(taken, delay_seconds=max(delay, at_least), counts=True)
