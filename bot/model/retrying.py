"""Retries a failing model behind a circuit breaker, and falls back to the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from random import SystemRandom

from bot.concurrency import Backoff
from bot.domain import (
    BeginningLeftOut,
    Delta,
    FilesRead,
    LeftOut,
    Message,
    Preferences,
    Reading,
    Retrying,
    Start,
    Tool,
    Used,
)
from bot.errors import AnswerCut, ModelBusy, ModelError, ModelLoading, ModelSilent, ModelUnavailable
from bot.model.client import NOTHING_CHOSEN, Answer, Endpoint
from bot.ports import OnThought
from bot.text.rounds import divided

log = logging.getLogger(__name__)

# Other failures need an operator or another question.
_TRANSIENT = (ModelBusy, ModelLoading, ModelSilent, ModelUnavailable)
# How long a probe blocks all other attempts: a model may think for minutes before its first text.
_PROBE_ALONE = 5.0  # seconds
_LONGEST_RETRY_AFTER = 300.0  # seconds; a typo in a header must not silence the bot for a day
_JITTER = 1.25  # pauses are up to this factor longer, so that retries do not coincide
_random = SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The limits of retries and circuit breakers; all but `failures` in seconds."""

    # How long an answer is retried before its first delta, or after it broke off. A model that
    # loads or restarts is mostly available by then; a sign of life is shown after 20 s.
    wait: float = 60.0
    pause: float = 0.5  # before an answer's second attempt at a model; doubles with each
    longest_pause: float = 8.0
    # Before a longer pause, another model is asked if there is one; three attempts come first.
    patience: float = 1.5
    failures: int = 5  # in a row, until the circuit breaker opens
    open_for: float = 1.0  # doubles with each probe that fails
    longest_open: float = 15.0


class RetryingModel:
    """Streams from the first of `models` that answers; satisfies `bot.ports.Model`.

    A transient failure is retried after a pause, at least as long as the server asks for, within
    `policy.wait`. After any other failure, or if the pauses become too long, the next model is
    asked. A model that has been unavailable for longer than `policy.wait` is not waited for. A
    stream that breaks off is restarted once. `total_timeout` bounds the whole answer, in seconds.
    If `stopping` is set, a pause raises CancelledError, so that another process can take the turn.
    `offered` are the models that people may choose, by name. If the chosen model does not see the
    pictures of a question, that of the name `seeing` is asked first.
    """

    def __init__(
        self,
        *,
        models: Sequence[Endpoint],
        policy: RetryPolicy,
        total_timeout: float,
        stopping: asyncio.Event,
        offered: Mapping[str, Endpoint] | None = None,
        seeing: str = "",
    ) -> None:
        self.name = models[0].name
        self._models = tuple(models)
        self._offered = offered or {}
        self._seeing = self._offered.get(seeing)
        self._preferences = NOTHING_CHOSEN
        self._policy = policy
        self._total_timeout = total_timeout
        self._stopping = stopping
        self._breakers = {
            id(model): CircuitBreaker(name=model.name, policy=policy, clock=_now)
            for model in (*models, *self._offered.values())
        }

    def chosen(self, preferences: Preferences) -> RetryingModel:
        """Return the model for these preferences, with the same circuit breakers.

        If the preferred model fails, the others follow. If it is not offered any more, a Start
        names the one that answers.
        """
        first = self._offered.get(preferences.model, self._models[0])
        chosen = copy(self)
        chosen.name, chosen._preferences = first.name, preferences
        chosen._models = (first, *(each for each in self._models if each is not first))
        return chosen

    async def sees(self) -> bool:
        """Whether the chosen model, or the one that is asked for pictures, sees them."""
        return self._seeing is not None or await self._models[0].sees()

    async def takes_tools(self) -> bool | None:
        """Whether the chosen model takes tools; see `bot.ports.Model`."""
        return await self._models[0].takes_tools()

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        on_thought: OnThought | None = None,
    ) -> AsyncGenerator[Delta]:
        """Yield the deltas of one answer, with a Start if it restarts or another model answers.

        Yields a Retrying before each pause, a Reading before each attempt and one with its answer,
        and a Used after it if the server counts tokens. Raises the first transient ModelError, or
        else the chosen model's.
        """
        deadline = _now() + self._total_timeout
        models = self._models
        pictures = divided(prompt)[0][-1].pictures
        if self._seeing and pictures and not await models[0].sees():
            models = (self._seeing, *models)
        candidates = [_Candidate(each, self._breakers[id(each)], self._policy) for each in models]
        since, is_broken = _now(), False
        while True:
            candidate = self._choose(candidates, since=since, deadline=deadline)
            if candidate.error and (delay := candidate.delay):
                yield Retrying(candidate.error)
                delay *= _random.uniform(1.0, _JITTER)
                await self._pause(min(delay, self._policy.longest_pause))
                continue
            answer = cut = None
            yield Reading(0, candidate.model.name, is_answered=False)
            try:
                async with AsyncExitStack() as stack:
                    with candidate.breaker.attempt():
                        stream = candidate.model.stream(
                            prompt,
                            tools=tools,
                            deadline=deadline,
                            preferences=self._preferences,
                            on_thought=on_thought,
                        )
                        answer = await stack.enter_async_context(stream)
                    for delta in self._before_text(
                        answer, candidate, candidates[0], is_broken=is_broken
                    ):
                        yield delta
                    yield answer.first
                    async for delta in answer.deltas:
                        yield delta
            except AnswerCut as error:
                cut = error
            except ModelError as error:
                # One restart is enough: people have seen both beginnings.
                if answer and is_broken:
                    raise
                if answer:
                    since, is_broken = _now(), True
                candidate.fail(error)
                continue
            if answer and answer.prompt_tokens is not None:
                yield Used(answer.prompt_tokens, answer.answer_tokens)
            if cut:
                raise cut
            return

    def _before_text(
        self, answer: Answer, by: _Candidate, first: _Candidate, *, is_broken: bool
    ) -> Iterator[Delta]:
        """Yield the deltas that precede the text: which model answers, and what it has read."""
        if by is not first:
            log.warning("%s answers for %s: %s", by.model.name, self.name, first.error)
        if by is not first or by.model is not self._models[0]:
            yield Start(by.model.name)
        elif (gone := self._preferences.model) and gone not in self._offered:
            log.warning("Model %s answers because %s is no longer in MODELS", self.name, gone)
            yield Start(self.name)
        elif is_broken:
            yield Start("")
        if answer.left_out:
            yield LeftOut(answer.left_out)
        if answer.dropped:
            yield BeginningLeftOut(answer.dropped)
        if answer.files:
            yield FilesRead(answer.files)
        if answer.estimated is not None:
            yield Reading(answer.estimated, by.model.name)

    def _choose(
        self, candidates: Sequence[_Candidate], *, since: float, deadline: float
    ) -> _Candidate:
        """Return the model to ask next, after its delay. Raises ModelError if none is left."""
        worthwhile = [
            each for each in candidates if each.is_worthwhile(since=since, deadline=deadline)
        ]
        if not worthwhile:
            # The first transient one: its apology asks the person to try again.
            raise max((each.error for each in candidates if each.error), key=is_transient)
        patience = self._policy.patience
        return min(worthwhile, key=lambda each: max(each.delay - patience, 0.0))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
            raise asyncio.CancelledError


@dataclass(slots=True)
class _Candidate:
    """The state of one model during one answer."""

    model: Endpoint
    breaker: CircuitBreaker
    policy: RetryPolicy
    _error: ModelError | None = None
    _failures: int = 0
    _ready_at: float = 0.0  # loop time

    @property
    def error(self) -> ModelError | None:
        """The error of its last attempt, or of its open circuit breaker."""
        return self._error or copy(self.breaker.error)

    @property
    def delay(self) -> float:
        opens_in = self.breaker.delay if self._error else self.breaker.first_delay
        return max(self._ready_at - _now(), opens_in, 0.0)

    def is_worthwhile(self, *, since: float, deadline: float) -> bool:
        """Whether its delay ends within the time that a person waits, counted from `since`."""
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
        # The breaker's delay includes the time that the server asked for.
        self._ready_at = _now() + delay


class CircuitBreaker:
    """Limits the requests of a process to a model that is unavailable.

    While closed, it lets every attempt pass. It opens after `failures` in a row for `open_for`
    seconds, and after a single one for the time that the server asked for (Retry-After, RFC 9110,
    10.2.3). Then attempts pass as probes, one each five seconds. Each failed probe doubles the time
    up to `longest_open`, and the first delta closes the breaker.
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
        self._probe_alone_until = 0.0
        self._passed_at = 0.0  # when the last attempt began
        self._asked_until = 0.0  # until when the server asked for a pause

    @property
    def delay(self) -> float:
        """Seconds until an attempt may pass, or until the next check; 0 is now."""
        if not self.error:
            return 0.0
        now = self._clock()
        alone = min(self._probe_alone_until - now, self._policy.open_for)
        return max(alone, self._open_until - now, 0.0)

    @property
    def first_delay(self) -> float:
        """The delay before the first attempt of an answer.

        While the breaker is open, one such attempt passes every `open_for` seconds, unless the
        server has asked for a pause: a question that always fails must not use all probes.
        """
        free_at = max(self._passed_at + self._policy.open_for, self._asked_until)
        return min(self.delay, max(free_at - self._clock(), 0.0))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Record one attempt, up to its first delta. Call only if `delay` or `first_delay` is 0."""
        began = self._clock()
        # The first attempt of another answer is no probe: its failure adds no information.
        is_probe = self.error is not None and not self.delay
        self._passed_at = began
        if is_probe:
            self._probe_alone_until = began + _PROBE_ALONE
        try:
            yield
        except ModelError as error:
            if is_transient(error):
                self._fail(error, probed_at=began if is_probe else None)
            else:
                self._close()
            raise
        else:
            self._close()
        finally:
            if is_probe:
                self._probe_alone_until = 0.0

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
            log.warning(
                "Model %s gets no requests until it is available again: %s", self._name, error
            )
        # A copy holds no traceback, and so no prompt.
        self.error = copy(error)
        self._reopened_at = self._clock()
        self._open_until = self._reopened_at + max(self._next_open_for, retry_after)
        self._next_open_for = min(2 * self._next_open_for, self._policy.longest_open)

    def _close(self) -> None:
        if self.error:
            log.warning("Model %s is available again", self._name)
        self.error, self._failures, self._next_open_for = None, 0, self._policy.open_for


def is_transient(error: ModelError) -> bool:
    """Whether another attempt may succeed."""
    return isinstance(error, _TRANSIENT)


def _now() -> float:
    return asyncio.get_running_loop().time()
