"""The model as people meet it: asked again when it fails, and then the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from random import SystemRandom
from typing import Protocol

from bot.domain import Delta, Message, Start
from bot.errors import AnswerCut, ModelError
from bot.model.circuit_breaker import CircuitBreaker, is_passing

log = logging.getLogger(__name__)

_JITTER = 1.25  # pauses are up to so much longer, so that not all who wait come back at once
_chance = SystemRandom()


class Asked(Protocol):
    """A model that is asked once."""

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        ...

    def stream(self, prompt: Sequence[Message], *, deadline: float) -> AsyncGenerator[Delta]:
        """As `bot.ports.Model`, and ended by ModelSilent at `deadline`, in loop time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a model is asked again; all but `failures` in seconds."""

    # How long a person waits for a failing model's first word, or for it to begin anew. A model
    # that loads or restarts is mostly back by then; the sign of life comes after 20 s.
    wait: float = 60.0
    pause: float = 0.5  # before an answer's second try of a model; doubles with each
    longest_pause: float = 8.0
    # A longer pause is not waited for while another model can be asked: three tries fit before it.
    moment: float = 1.5
    failures: int = 5  # in a row, until all answers leave the model alone
    rest: float = 1.0  # for so long; doubles with each probe that fails
    longest_rest: float = 15.0


class RetryingModel:
    """Asks the first of `models`, again when it fails; satisfies `bot.ports.Model`.

    A failure that may pass is followed by another try after a pause, at least as long as the server
    asks for, while a person waits; any other failure, or pauses that grow too long, by the next
    model. Nobody waits for a model that has been away for longer than a person waits. A stream that
    breaks off is asked anew once. `total_timeout` bounds it all, in seconds; a pause in which the
    process is to stop ends in CancelledError, so that another process takes the turn at once.
    """

    def __init__(
        self,
        *,
        models: Sequence[Asked],
        schedule: RetryPolicy,
        total_timeout: float,
        stopping: asyncio.Event,
    ) -> None:
        self._models = models
        self._schedule = schedule
        self._total_timeout = total_timeout
        self._stopping = stopping
        self._breakers = [
            CircuitBreaker(
                name=model.name,
                failures=schedule.failures,
                rest=schedule.rest,
                longest_rest=schedule.longest_rest,
                clock=_now,
            )
            for model in models
        ]

    @property
    def name(self) -> str:
        """The chosen model's name."""
        return self._models[0].name

    async def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        """Yield the deltas of one answer, with a Start where its text or its model is another.

        Raises the first ModelError that may pass, or else the chosen model's.
        """
        deadline = _now() + self._total_timeout
        ways = [
            _Candidate(model, breaker, self._schedule)
            for model, breaker in zip(self._models, self._breakers, strict=True)
        ]
        since, broken = _now(), False
        while True:
            way = await self._choose(ways, since=since, deadline=deadline)
            begun = False
            try:
                async with aclosing(way.model.stream(prompt, deadline=deadline)) as deltas:
                    with way.breaker.trying():
                        first = await anext(deltas, "")
                    if not first:
                        return
                    if way is not ways[0]:
                        log.warning("%s answers for %s: %s", way.model.name, self.name, ways[0].why)
                        yield Start(way.model.name)
                    elif broken:
                        yield Start("")
                    begun = True
                    yield first
                    async for delta in deltas:
                        yield delta
                    return
            except AnswerCut:
                raise
            except ModelError as error:
                if begun and broken:
                    raise
                if begun:
                    since, broken = _now(), True
                way.fail(error)

    async def _choose(
        self, ways: Sequence[_Candidate], *, since: float, deadline: float
    ) -> _Candidate:
        """Wait for the model that is to be asked next; raise ModelError where none is."""
        while True:
            waited_for = [
                way for way in ways if way.is_worth_its_pause(since=since, deadline=deadline)
            ]
            if not waited_for:
                # The first of those that may pass: what a person reads then is to ask again.
                raise max((way.why for way in ways if way.why), key=is_passing)
            way = min(waited_for, key=lambda each: max(each.pause - self._schedule.moment, 0.0))
            if not way.pause:
                return way
            await self._rest(way.pause * _chance.uniform(1.0, _JITTER))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise asyncio.CancelledError


class _Candidate:
    """One model, as one answer has met it so far."""

    def __init__(self, model: Asked, breaker: CircuitBreaker, schedule: RetryPolicy) -> None:
        self.model = model
        self.breaker = breaker
        self._schedule = schedule
        self._error: ModelError | None = None
        self._failures = 0
        self._ready_at = 0.0

    @property
    def why(self) -> ModelError | None:
        """Why it did not answer, or is not asked."""
        return self._error or copy(self.breaker.error)

    @property
    def pause(self) -> float:
        return max(self._ready_at - _now(), self.breaker.pause, 0.0)

    def is_worth_its_pause(self, *, since: float, deadline: float) -> bool:
        """Whether a person who waits since then may hope for it."""
        if _now() >= deadline or (self._error and not is_passing(self._error)):
            return False
        if self.breaker.error:
            since = min(since, self.breaker.opened_at)
        patience_ends = min(since + self._schedule.wait, deadline)
        return not self.pause or _now() + self.pause * _JITTER <= patience_ends

    def fail(self, error: ModelError) -> None:
        own = min(self._schedule.pause * 2.0**self._failures, self._schedule.longest_pause)
        self._error = error
        self._failures += 1
        # The breaker heeds what the server asks for.
        self._ready_at = _now() + own


def _now() -> float:
    return asyncio.get_running_loop().time()
