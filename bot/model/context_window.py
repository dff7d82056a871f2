"""Fits each prompt into the context window of a model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

from bot.domain import Message
from bot.errors import PromptTooLong
from bot.model.endpoint import Answer, Endpoint
from bot.model.fit import Count, Prompt, fit
from bot.model.server_counter import ServerCounter
from bot.model.server_info import ServerWatch
from bot.text.control_tokens import as_words
from bot.tokens.counters import Counter

log = logging.getLogger(__name__)

# Shorter prompts are counted at once; a thread would take longer to begin.
_INLINE_CHARACTERS = 20_000
# A server that counts is asked about a prompt of this many times what the estimate finds safe.
_OPTIMISM = 1.3
_MOST_OPTIMISM = 3.0
_SAFETY = 0.97
# Of the room; if the estimate is above it, a server that counts is asked.
_NEAR = 0.8
# Of the budget at most; in a small context a template that says more costs one refusal.
_MOST_RESERVE = 0.25
# After a refusal without figures.
_SHARE = 0.5
_LEAST_SHARE = 0.1
_LEAST_ROOM = 64  # tokens; a server that reports less room is not believed


class ContextWindowModel:
    """Drops and shortens messages until the prompt is within `budget`; an `Endpoint`.

    `budget`, and the room that the `answer` needs beside it, are in tokens. `counter` may be
    replaced at any time by a better one. What fits is settled by the counter and its reserve for
    the chat template, a quarter of the budget at most. Near the limit and beyond it, a server that
    counts is asked once, and what it finds too long is never sent. If the server refuses a prompt
    as too long, a shorter one is sent, once. Control tokens that a question or an answer spells are
    sent, and counted, as words.
    """

    def __init__(
        self,
        *,
        model: Endpoint,
        counter: Counter,
        counting_server: ServerCounter | None,
        watch: ServerWatch | None,
        budget: int,
        answer: int,
    ) -> None:
        self.name = model.name
        self.counter = counter
        self._model = model
        self._counting_server = counting_server
        self._watch = watch
        self._most = self._budget = budget
        self._reported: int | None = None
        self._answer = answer
        self._optimism = _OPTIMISM

    @asynccontextmanager
    async def stream(
        self, prompt: Sequence[Message], *, deadline: float, accepted: Callable[[], None]
    ) -> AsyncIterator[Answer]:
        """Send as much of a prompt as fits, and wait for the first delta.

        Raises ModelError, and PromptTooLong only if the shorter prompt was refused, too.
        """
        if self._watch:
            await self._watch.refresh(deadline=deadline)
            self._set_budget(self._watch.context)
        counter, prompt, answer = self.counter, as_words(prompt), None
        fitted = await self._fit(prompt, counter)
        with self._watch.expiring() if self._watch else nullcontext():
            try:
                async with AsyncExitStack() as stack:
                    stream = self._model.stream(
                        fitted.messages, deadline=deadline, accepted=accepted
                    )
                    try:
                        answer = await stack.enter_async_context(stream)
                    except PromptTooLong as refusal:
                        shorter = await self._shorter(prompt, fitted, counter, refusal)
                        if shorter is None:
                            raise
                        log.warning("Sending a shorter prompt to %s: %s", self.name, refusal)
                        stream = self._model.stream(
                            shorter.messages, deadline=deadline, accepted=accepted
                        )
                        answer = await stack.enter_async_context(stream)
                        self._learn(refusal, fitted, counter)
                        fitted = shorter
                    answer.left_out = fitted.left_out
                    yield answer
            finally:
                if answer and answer.prompt_tokens:
                    counter.learn(fitted.messages, answer.prompt_tokens)

    def _set_budget(self, context: int | None) -> None:
        """Set the budget by the context that the server reports, the answer included.

        A refusal's figures hold until the server reports another context.
        """
        if context is not None and context != self._reported:
            self._reported = context
            self._budget = min(self._most, max(context - self._answer, context - context // 2))

    async def _fit(self, prompt: Sequence[Message], counter: Counter) -> Prompt:
        room = self._room(counter)
        safe = await _fitted(prompt, room, counter.count)
        if self._counting_server is None or counter.exact:
            return safe
        if not (safe.dropped or safe.left_out) and counter.count(safe.messages) <= room * _NEAR:
            return safe
        larger = await _fitted(prompt, int(room * self._optimism), counter.count)
        used = await self._counting_server.count(larger.messages)
        if used is None:
            return safe
        # The next turn asks about what would have fitted now.
        estimated = counter.count(larger.messages)
        counter.learn(larger.messages, used)
        self._optimism = min(max(estimated / used * _SAFETY, 1.0), _MOST_OPTIMISM)
        if used <= self._budget:
            return larger
        return await _fitted(prompt, self._room(counter), counter.count)

    def _room(self, counter: Counter) -> int:
        return self._budget - min(counter.reserve, int(self._budget * _MOST_RESERVE))

    async def _shorter(
        self, prompt: Sequence[Message], refused: Prompt, counter: Counter, refusal: PromptTooLong
    ) -> Prompt | None:
        """Return less of a prompt than was refused, by the refusal's figures; None: nothing is."""
        # By the plain estimate: what servers counted of some texts says nothing of their parts.
        counted = counter.estimate(refused.messages)
        room = refusal.room(answer=self._answer)
        share = _SHARE
        if room is not None and room >= _LEAST_ROOM:
            used = refusal.used or counted
            # Relative to the estimate of this prompt; the template cannot be dropped.
            share = min(room / used, 1 - (used - room) / counted, 1.0) * _SAFETY
        budget = int(counted * max(share, _LEAST_SHARE))
        shorter = await _fitted(prompt, budget, counter.estimate)
        return None if shorter.messages == refused.messages else shorter

    def _learn(self, refusal: PromptTooLong, refused: Prompt, counter: Counter) -> None:
        """Remember a refusal that led to an answer; others may only repeat what a person wrote."""
        room = refusal.room(answer=self._answer)
        if room is None or room < _LEAST_ROOM:
            return
        if refusal.used:
            counter.learn(refused.messages, refusal.used)
        # The server takes less than CONTEXT_TOKENS says.
        self._budget = min(self._budget, room)


async def _fitted(prompt: Sequence[Message], budget: int, count: Count) -> Prompt:
    if sum(len(message.text) for message in prompt) <= _INLINE_CHARACTERS:
        return fit(prompt, budget=budget, count=count)
    # The event loop runs others meanwhile.
    return await asyncio.to_thread(fit, prompt, budget=budget, count=count)
