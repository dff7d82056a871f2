"""A model that is asked with as much of a prompt as fits its context."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from bot.domain import Delta, LeftOut, Message
from bot.errors import PromptTooLong
from bot.model.fit import Prompt, fit
from bot.text.control_tokens import as_words, without_marks
from bot.tokens.counters import Counter

log = logging.getLogger(__name__)

# Shorter prompts are counted at once; a thread would take longer to begin.
_INLINE_CHARACTERS = 20_000
# A server that counts is shown a prompt of this many times what the estimate finds safe.
_HOPE = 1.3
_MOST_HOPE = 3.0
_SAFETY = 0.97
# Of the room; where a count comes nearer to it, a server that counts is asked to be sure.
_NEAR = 0.8
# Of the budget at most; in a small context a template that says more costs one refusal.
_MOST_RESERVE = 0.25
# After a refusal without figures.
_SHARE = 0.5
_LEAST_SHARE = 0.1
_LEAST_ROOM = 64  # tokens; a server that tells of less room is not believed


class Told(Protocol):
    """A model that is asked once, and tells how many tokens its server found in the prompt."""

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        ...

    def stream(
        self, prompt: Sequence[Message], *, deadline: float, told: Callable[[int], object]
    ) -> AsyncGenerator[str]:
        """As `bot.model.retrying.Asked`; `told` may be called with the prompt's tokens."""
        ...


class Counts(Protocol):
    """A server that counts."""

    async def count(self, prompt: Sequence[Message]) -> int | None:
        """Return the tokens of a prompt; None where it did not say in time."""
        ...


class ContextWindowModel:
    """Satisfies `bot.model.retrying.Asked`: drops and shortens until the prompt is within `budget`.

    `budget` and `answer`, the room that the answer needs beside it, are in tokens. `counter` may be
    replaced at any time by a better one. What fits is settled by the counter and what it keeps in
    reserve for the template, a quarter of the budget at most; near the limit and beyond it, a
    server that counts is asked once, and what it finds too long is never sent. A prompt that the
    server refuses as too long is shortened by what it says, and sent once more. Control tokens that
    a question or an answer spells are sent, and counted, as words.
    """

    def __init__(
        self, *, model: Told, counter: Counter, server: Counts | None, budget: int, answer: int
    ) -> None:
        self.counter = counter
        self._model = model
        self._server = server
        self._most = self._budget = budget
        self._told: int | None = None
        self._answer = answer
        self._hope = _HOPE

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        return self._model.name

    def limit(self, context: int) -> None:
        """Heed that the server has room for so many tokens now, the answer's included.

        What a refusal told goes before the same word said again.
        """
        if context != self._told:
            self._told = context
            self._budget = min(self._most, max(context - self._answer, context - context // 2))

    async def stream(
        self, prompt: Sequence[Message], *, deadline: float
    ) -> AsyncGenerator[Delta, None]:
        """Yield deltas, with a LeftOut before them where the last message was shortened.

        Raises ModelError, PromptTooLong after a second refusal only.
        """
        counter = self.counter
        prompt = as_words(prompt)
        fitted = await self._fit(prompt, counter)
        begun = False
        try:
            async with aclosing(self._ask(fitted, counter, deadline)) as deltas:
                async for delta in deltas:
                    begun = True
                    yield delta
        except PromptTooLong as refusal:
            shorter = None if begun else await self._shorter(prompt, fitted, counter, refusal)
            if shorter is None:
                raise
            log.warning("A shorter prompt is tried: %s", refusal)
            room, used = refusal.room(answer=self._answer), refusal.used
        else:
            return
        heeded = False
        async with aclosing(self._ask(shorter, counter, deadline)) as deltas:
            async for delta in deltas:
                if not heeded:
                    heeded = True
                    self._heed(room, used, fitted, counter)
                yield delta

    async def _ask(
        self, fitted: Prompt, counter: Counter, deadline: float
    ) -> AsyncGenerator[Delta, None]:
        def told(used: int) -> None:
            counter.learn(fitted.messages, used)

        stream = self._model.stream(fitted.messages, deadline=deadline, told=told)
        last = ""
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                if fitted.left_out:
                    yield LeftOut(fitted.left_out)
                    fitted = Prompt(fitted.messages, fitted.dropped, left_out=0)
                if clean := without_marks(delta, last=last):
                    yield clean
                last = delta

    async def _fit(self, prompt: Sequence[Message], counter: Counter) -> Prompt:
        room = self._room(counter)
        safe = await _fitted(prompt, room, counter)
        if self._server is None or counter.exact:
            return safe
        if not (safe.dropped or safe.left_out) and counter.count(safe.messages) <= room * _NEAR:
            return safe
        hoped = await _fitted(prompt, int(room * self._hope), counter)
        used = await self._server.count(hoped.messages)
        if used is None:
            return safe
        # The next turn shows it what would have fitted now.
        counted = counter.count(hoped.messages)
        counter.learn(hoped.messages, used)
        self._hope = min(max(counted / used * _SAFETY, 1.0), _MOST_HOPE)
        if used <= self._budget:
            return hoped
        return await _fitted(prompt, self._room(counter), counter)

    def _room(self, counter: Counter) -> int:
        return self._budget - min(counter.reserve, int(self._budget * _MOST_RESERVE))

    async def _shorter(
        self,
        prompt: Sequence[Message],
        refused: Prompt,
        counter: Counter,
        refusal: PromptTooLong,
    ) -> Prompt | None:
        """Return less of a prompt than was refused, as the refusal asks; None: nothing can go."""
        counted = counter.count(refused.messages)
        room = refusal.room(answer=self._answer)
        if room is None or room < _LEAST_ROOM:
            shorter = await _fitted(prompt, int(counted * _SHARE), counter)
        else:
            used = refusal.used or counted
            # By what the counter makes of this very prompt; the template's words cannot go.
            share = min(room / used, 1 - (used - room) / counted, 1.0) * _SAFETY
            shorter = await _fitted(prompt, int(counted * max(share, _LEAST_SHARE)), counter)
        return None if shorter.messages == refused.messages else shorter

    def _heed(self, room: int | None, used: int | None, refused: Prompt, counter: Counter) -> None:
        """Remember a refusal that led to an answer: others may only repeat what a person wrote."""
        if room is None or room < _LEAST_ROOM:
            return
        if used:
            counter.learn(refused.messages, used)
        # The server takes less than CONTEXT_TOKENS has it.
        self._budget = min(self._budget, room)


async def _fitted(prompt: Sequence[Message], budget: int, counter: Counter) -> Prompt:
    if sum(len(message.text) for message in prompt) <= _INLINE_CHARACTERS:
        return fit(prompt, budget=budget, count=counter.count)
    # Beside the loop, which others need meanwhile.
    return await asyncio.to_thread(fit, prompt, budget=budget, count=counter.count)
