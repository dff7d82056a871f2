"""Retries a failing model, and falls back to the next one.

A circuit breaker for each model says when it may be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from random import SystemRandom

from bot.concurrency import Backoff
from bot.domain import (
    BeginningLeftOut,
    Delta,
    LeftOut,
    Message,
    Preferences,
    Reading,
    Retrying,
    Start,
    Used,
)
from bot.errors import AnswerCut, ModelBusy, ModelError, ModelLoading, ModelSilent, ModelUnavailable
from bot.model.endpoint import NOTHING_CHOSEN, Answer, Endpoint

log = logging.getLogger(__name__)

# The other failures need an operator, or another question.
_TRANSIENT = (ModelBusy, ModelLoading, ModelSilent, ModelUnavailable)
# How long a probe without a sign of life holds up all other attempts: it may be a long prompt that
# a slow machine reads.
_PROBE_ALONE = 5.0  # seconds
_LONGEST_RETRY_AFTER = 300.0  # seconds; a typo in a header must not silence the bot for a day
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
    once. `offered` are the models that people may choose, by their names; the others follow a
    chosen one that fails.
    """

    def __init__(
        self,
        *,
        models: Sequence[Endpoint],
        policy: RetryPolicy,
        total_timeout: float,
        stopping: asyncio.Event,
        offered: Mapping[str, Endpoint] | None = None,
    ) -> None:
        self.name = models[0].name
        self._offered = offered or {}
        self._preferences, self._is_gone = NOTHING_CHOSEN, False
        self._policy = policy
        self._total_timeout = total_timeout
        self._stopping = stopping
        self._breakers = {
            id(model): CircuitBreaker(name=model.name, policy=policy, clock=_now)
            for model in (*models, *self._offered.values())
        }
        self._models = tuple(models)

    def chosen(self, preferences: Preferences) -> RetryingModel:
        """Return the model that answers by these preferences, with the same circuit breakers.

        If the model that they name is not offered any more, a Start names the one that answers.
        """
        if preferences == NOTHING_CHOSEN:
            return self
        one = copy(self)
        one._preferences = preferences
        first = self._offered.get(preferences.model)
        if first is not None:
            one.name = first.name
            one._models = (first, *(each for each in self._models if each is not first))
        elif preferences.model:
            one._is_gone = True
        return one

    async def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        """Yield the deltas of one answer, with a Start where its text or its model is another.

        A Retrying comes before each pause, a Reading with each attempt that is answered, and a Used
        behind one whose server counts. Raises the first transient ModelError, or else the chosen
        model's.
        """
        deadline = _now() + self._total_timeout
        candidates = [
            _Candidate(each, self._breakers[id(each)], self._policy) for each in self._models
        ]
        since, is_broken = _now(), False
        while True:
            candidate = self._choose(candidates, since=since, deadline=deadline)
            if candidate.error and (delay := candidate.delay):
                yield Retrying(candidate.error)
                delay *= _random.uniform(1.0, _JITTER)
                await self._pause(min(delay, self._policy.longest_pause))
                continue
            answer = None
            try:
                async with AsyncExitStack() as stack:
                    with candidate.breaker.attempt() as end_probe:
                        stream = candidate.model.stream(
                            prompt,
                            deadline=deadline,
                            accepted=end_probe,
                            preferences=self._preferences,
                        )
                        answer = await stack.enter_async_context(stream)
                    for delta in self._before_text(
                        answer, candidate, candidates[0], is_broken=is_broken
                    ):
                        yield delta
                    yield answer.first
                    async for delta in answer.deltas:
                        yield delta
            except AnswerCut:
                for used in _used(answer):
                    yield used
                raise
            except ModelError as error:
                # Once more is enough: people have seen both beginnings.
                if answer and is_broken:
                    raise
                if answer:
                    since, is_broken = _now(), True
                candidate.fail(error)
            else:
                for used in _used(answer):
                    yield used
                return

    def _before_text(
        self, answer: Answer, by: _Candidate, first: _Candidate, *, is_broken: bool
    ) -> Iterator[Delta]:
        """Yield what is to be known of an answer before its text: whose it is, and what it read."""
        if by is not first:
            log.warning("%s answers for %s: %s", by.model.name, self.name, first.error)
            yield Start(by.model.name)
        elif self._is_gone:
            gone = self._preferences.model
            log.warning("%s answers for %s, which is not in MODELS", self.name, gone)
            yield Start(self.name)
        elif is_broken:
            yield Start("")
        if answer.left_out:
            yield LeftOut(answer.left_out)
        if answer.dropped:
            yield BeginningLeftOut(answer.dropped)
        if answer.estimated is not None:
            yield Reading(answer.estimated)

    def _choose(
        self, candidates: Sequence[_Candidate], *, since: float, deadline: float
    ) -> _Candidate:
        """Return the model that is asked next, after its pause. Raises ModelError if none is."""
        worthwhile = [
            each for each in candidates if each.is_worthwhile(since=since, deadline=deadline)
        ]
        if not worthwhile:
            # The first transient one: its apology tells a person to ask again.
            raise max((each.error for each in candidates if each.error), key=is_transient)
        patience = self._policy.patience
        return min(worthwhile, key=lambda each: max(each.delay - patience, 0.0))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise asyncio.CancelledError


def _used(answer: Answer | None) -> Iterator[Used]:
    if answer and answer.prompt_tokens is not None:
        yield Used(answer.prompt_tokens, answer.answer_tokens)


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
    def delay(self) -> float:
        opens_in = self.breaker.delay if self._error else self.breaker.first_delay
        return max(self._ready_at - _now(), opens_in, 0.0)

    def is_worthwhile(self, *, since: float, deadline: float) -> bool:
        """Whether its pause ends while a person, who waits since then, still does."""
        if _now() >= deadline or (self._error and not is_transient(self._error)):
            return False
        if self.breaker.error:
            since = min(since, self.breaker.opened_at)
        patience_ends = min(since + self.policy.wait, deadline)
        return not self.delay or _now() + self.delay * _JITTER <= patience_ends

    def fail(self, error: ModelError) -> None:
        self._error = error
        self._failures += 1
        delay = Backoff(self.policy.pause, self.policy.longest_pause).delay(self._failures)
        # What the server asks for is in the breaker's pause.
        self._ready_at = _now() + delay


class CircuitBreaker:
    """Keeps the answers of a process from hammering a model that is away.

    Closed, it lets every attempt pass. It opens after `failures` in a row for `open_for` seconds,
    and after a single one for the time that the server asked for (Retry-After, RFC 9110, 10.2.3).
    Then it lets attempts pass as probes, one after another: the next may follow at a sign of life,
    since a model may think for minutes before its first delta, or after five seconds. Each probe
    that fails doubles the time up to `longest_open`, and the first delta closes it.

    Each process has its own: whether a model can be reached depends on where a process runs, and a
    breaker in Redis would be one more thing that can be away.
    """

    def __init__(self, *, name: str, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self.error: ModelError | None = None  # why it is open; None: it is closed
        self.opened_at = 0.0
        self._name = name
        self._policy = policy
        self._clock = clock
        self._failures = 0  # in a row
        self._next_open_for = policy.open_for
        self._open_until = 0.0
        self._reopened_at = 0.0  # at the last failure that counted
        self._probe: object | None = None  # the last one, until its first sign of life
        self._probed_at = 0.0
        self._passed_at = 0.0  # when the last attempt began
        self._asked_until = 0.0  # until when the server asked for a pause

    @property
    def delay(self) -> float:
        """Seconds until an attempt may pass, or until the next check; 0 is now."""
        if not self.error:
            return 0.0
        now = self._clock()
        alone = self._probed_at + _PROBE_ALONE - now if self._probe else 0.0
        return max(min(alone, self._policy.open_for), self._open_until - now, 0.0)

    @property
    def first_delay(self) -> float:
        """The same for an answer that asks for the first time.

        While the breaker is open, one of these passes every `open_for` seconds, if the server has
        not asked for a pause. Else a question that fails whenever it is asked could use all probes,
        and those that would succeed would wait for it.
        """
        free_at = max(self._passed_at + self._policy.open_for, self._asked_until)
        return min(self.delay, max(free_at - self._clock(), 0.0))

    @contextmanager
    def attempt(self) -> Iterator[Callable[[], None]]:
        """Record one attempt, up to its first delta. Call only if `delay` or `first_delay` is 0.

        Yields what is to be called at the first sign of life. Cancelled attempts are ignored.
        """
        began, this = self._clock(), object()
        # The first attempt of another answer is no probe: its failure says nothing new.
        is_probe = self.error is not None and not self.delay
        self._passed_at = began
        if is_probe:
            self._probe, self._probed_at = this, began

        def end_probe() -> None:
            if self._probe is this:
                self._probe = None

        try:
            yield end_probe
        except ModelError as error:
            if is_transient(error):
                self._fail(error, probed_at=began if is_probe else None)
            else:
                self._close()
            raise
        else:
            self._close()
        finally:
            end_probe()

    def _fail(self, error: ModelError, *, probed_at: float | None) -> None:
        self._failures += 1
        retry_after = min(error.retry_after or 0.0, _LONGEST_RETRY_AFTER)
        self._asked_until = max(self._asked_until, self._clock() + retry_after)
        if self.error and (probed_at is None or probed_at < self._reopened_at):
            return  # it began before the breaker opened, or before another probe failed
        if not (self.error or retry_after or self._failures >= self._policy.failures):
            return
        if not self.error:
            self.opened_at = self._clock()
            log.warning("Model %s gets no requests until it answers again: %s", self._name, error)
        # A copy holds no traceback, and so no prompt.
        self.error = copy(error)
        self._reopened_at = self._clock()
        self._open_until = self._reopened_at + max(self._next_open_for, retry_after)
        self._next_open_for = min(2 * self._next_open_for, self._policy.longest_open)

    def _close(self) -> None:
        if self.error:
            log.warning("Model %s is back", self._name)
        self.error, self._failures, self._next_open_for = None, 0, self._policy.open_for


def is_transient(error: ModelError) -> bool:
    """Whether another attempt may succeed."""
    return isinstance(error, _TRANSIENT)


def _now() -> float:
    return asyncio.get_running_loop().time()
