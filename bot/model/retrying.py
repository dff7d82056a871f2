"""Retries a failing model, and falls back to the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass
from random import SystemRandom

from bot.concurrency import Backoff
from bot.domain import Delta, LeftOut, Message, Start
from bot.errors import AnswerCut, ModelError
from bot.model.circuit_breaker import CircuitBreaker, is_transient
from bot.model.endpoint import Endpoint

log = logging.getLogger(__name__)

_JITTER = 1.25  # pauses are up to so much longer, so that retries do not come all at once
_random = SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a model is asked again; all but `failures` in seconds."""

    # How long a person waits for a failing model's first delta, or for it to begin anew. A model
    # that loads or restarts is mostly back by then; the sign of life comes after 20 s.
    wait: float = 60.0
    pause: float = 0.5  # before an answer's second attempt at a model; doubles with each
    longest_pause: float = 8.0
    # A longer pause is not waited for while another model can be asked: three attempts fit before.
    patience: float = 1.5
    failures: int = 5  # in a row, until the circuit breaker opens
    open_for: float = 1.0  # doubles with each probe that fails
    longest_open: float = 15.0


class RetryingModel:
    """Asks the first of `models`, again if it fails; satisfies `bot.ports.Model`.

    A transient failure is followed by another attempt after a pause, at least as long as the server
    asks for, while a person waits. Any other failure, or pauses that grow too long, lead to the
    next model. No answer waits for a model that has been away for longer than a person waits. A
    stream that breaks off is asked anew once. `total_timeout` bounds it all, in seconds. If the
    process is to stop, a pause ends in CancelledError, so that another process takes the turn at
    once.
    """

    def __init__(
        self,
        *,
        models: Sequence[Endpoint],
        policy: RetryPolicy,
        total_timeout: float,
        stopping: asyncio.Event,
    ) -> None:
        self.name = models[0].name
        self._policy = policy
        self._total_timeout = total_timeout
        self._stopping = stopping
        breakers = [
            CircuitBreaker(
                name=model.name,
                failures=policy.failures,
                open_for=policy.open_for,
                longest_open=policy.longest_open,
                clock=_now,
            )
            for model in models
        ]
        self._models = list(zip(models, breakers, strict=True))

    async def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        """Yield the deltas of one answer, with a Start where its text or its model is another.

        Raises the first transient ModelError, or else the chosen model's.
        """
        deadline = _now() + self._total_timeout
        candidates = [_Candidate(*each, self._policy) for each in self._models]
        since, is_broken = _now(), False
        while True:
            candidate = await self._choose(candidates, since=since, deadline=deadline)
            answer = None
            try:
                async with AsyncExitStack() as stack:
                    with candidate.breaker.attempt() as end_probe:
                        stream = candidate.model.stream(
                            prompt, deadline=deadline, accepted=end_probe
                        )
                        answer = await stack.enter_async_context(stream)
                    if candidate is not candidates[0]:
                        name, error = candidate.model.name, candidates[0].error
                        log.warning("%s answers for %s: %s", name, self.name, error)
                        yield Start(name)
                    elif is_broken:
                        yield Start("")
                    if answer.left_out:
                        yield LeftOut(answer.left_out)
                    yield answer.first
                    async for delta in answer.deltas:
                        yield delta
                    return
            except AnswerCut:
                raise
            except ModelError as error:
                if answer and is_broken:
                    raise
                if answer:
                    since, is_broken = _now(), True
                candidate.fail(error)

    async def _choose(
        self, candidates: Sequence[_Candidate], *, since: float, deadline: float
    ) -> _Candidate:
        """Wait for the model that is asked next. Raises ModelError if there is none."""
        while True:
            worthwhile = [
                each for each in candidates if each.is_worthwhile(since=since, deadline=deadline)
            ]
            if not worthwhile:
                # The first transient one: its apology tells a person to ask again.
                raise max((each.error for each in candidates if each.error), key=is_transient)
            patience = self._policy.patience
            chosen = min(worthwhile, key=lambda each: max(each.pause - patience, 0.0))
            if not chosen.pause:
                return chosen
            await self._pause(chosen.pause * _random.uniform(1.0, _JITTER))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise asyncio.CancelledError


@dataclass(slots=True)
class _Candidate:
    """One model, as seen by one answer."""

    model: Endpoint
    breaker: CircuitBreaker
    policy: RetryPolicy
    _error: ModelError | None = None
    _failures: int = 0
    _ready_at: float = 0.0  # loop time

    @property
    def error(self) -> ModelError | None:
        """Why it did not answer, or is not asked."""
        return self._error or copy(self.breaker.error)

    @property
    def pause(self) -> float:
        return max(self._ready_at - _now(), self.breaker.pause, 0.0)

    def is_worthwhile(self, *, since: float, deadline: float) -> bool:
        """Whether its pause ends while a person, who waits since then, still does."""
        if _now() >= deadline or (self._error and not is_transient(self._error)):
            return False
        if self.breaker.error:
            since = min(since, self.breaker.opened_at)
        patience_ends = min(since + self.policy.wait, deadline)
        return not self.pause or _now() + self.pause * _JITTER <= patience_ends

    def fail(self, error: ModelError) -> None:
        self._error = error
        self._failures += 1
        pause = Backoff(self.policy.pause, self.policy.longest_pause).pause(self._failures)
        # What the server asks for is in the breaker's pause.
        self._ready_at = _now() + pause


def _now() -> float:
    return asyncio.get_running_loop().time()
