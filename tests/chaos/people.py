"""People who ask one question after the other, change their minds, and talk with each other."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

from tests.chaos.talks import Talk, number_of
from tests.emulators.model.asked import Asked
from tests.support.waiting import until

QUESTIONS = 25  # in one talk
PATIENCE = 90.0  # seconds for which a person waits for an answer before asking on
LAST = 330.0  # seconds in which Slack has told of a question, or an edit, for the last time
# What is done to the newest question, or its answer, and when.
CHANGES = (
    "edit waiting",
    "edit running",
    "edit answered",
    "delete waiting",
    "delete running",
    "delete answered",
    "delete answer",
)


class People:
    """Asks in all talks until told to end.

    `doubled` counts the events delivered once more, `changes` what was edited and deleted.

    Each of `opened` begins a talk with a number of its own; after so many questions people are
    done with it and begin another. `said` is set whenever somebody has asked.
    """

    def __init__(
        self,
        opened: Sequence[Callable[[int], Talk]],
        rng: random.Random,
        said: asyncio.Event,
        prompts: Sequence[Asked],
    ) -> None:
        self.talks: list[Talk] = []
        self.doubled = 0
        self.changes = Counter[str]()
        self._opened = opened
        self._rng = rng
        self._said = said
        self._prompts = prompts
        self._taken, self._read = set[int](), 0  # the questions of the first prompts
        self._last = 0

    @property
    def turns(self) -> int:
        return sum(len(talk.asked) for talk in self.talks)

    async def ask(self, ending: asyncio.Event) -> None:
        """Keep as many talks going as there are ways to begin one, until the event is set."""
        async with asyncio.TaskGroup() as group:
            for begin in self._opened:
                group.create_task(self._keep_talking(begin, ending))

    async def _keep_talking(self, begin: Callable[[int], Talk], ending: asyncio.Event) -> None:
        while not ending.is_set():
            talk = begin(len(self.talks))
            self.talks.append(talk)
            while not ending.is_set() and len(talk.asked) < QUESTIONS:
                await self._ask(talk, ending)

    async def _ask(self, talk: Talk, ending: asyncio.Event) -> None:
        is_asked = False
        for which in range(self._rng.choice((1, 1, 1, 2))):
            if talk.asked:
                # Questions that wait are answered together; the judge expects an answer to each.
                await _first(ending, self._until_taken(talk))
                if which and ending.is_set():
                    break
            await self._remark(talk)
            self._last += 1
            if is_asked := await talk.ask(self._last):
                self._said.set()
        if not is_asked:
            return
        if self._rng.random() < 0.2:
            await asyncio.sleep(self._rng.choice((0, 0.3, 1.5)))
            self.doubled += 1
            await talk.repeat()
        if self._rng.random() < 0.3:
            await self._change(talk, self._rng.choice(CHANGES), ending)
        await _first(ending, until_true(talk.is_answered))

    async def _until_taken(self, talk: Talk) -> None:
        """Return when the model was asked the newest question, or never will be."""
        number = talk.asked[-1]
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                while number not in self._taken:
                    # Each prompt is read once: there will be thousands.
                    new = self._prompts[self._read :]
                    self._taken |= {number_of(one.messages[-1]["content"]) for one in new}
                    self._read += len(new)
                    await asyncio.sleep(0.05)

    async def _remark(self, talk: Talk) -> None:
        """Let others speak, at least once before the bot is called."""
        most = self._rng.randint(0, 2) if talk.asked else self._rng.randint(1, 4)
        for _ in range(most if talk.is_joined else 0):
            self._last += 1
            await talk.remark(self._last)

    async def _change(self, talk: Talk, change: str, ending: asyncio.Event) -> None:
        what, _, when = change.partition(" ")
        if when == "running":
            await _first(ending, until_true(talk.is_begun))
        elif when != "waiting":
            await _first(ending, until_true(talk.is_answered))
        # A first question stays, because its thread hangs on it.
        is_first = len(talk.asked) < 2
        if ending.is_set() or (what == "delete" and (talk.is_joined or is_first)):
            return
        if change == "delete answer" and not talk.is_whole():
            return
        self.changes[change] += 1
        if what == "edit":
            self._last += 1
            await talk.edit(self._last)
            # Only the last question is answered anew, so nothing may be asked before it is.
            await _first(ending, until_true(talk.is_answered, within=LAST))
        elif change == "delete answer":
            await _first(ending, talk.delete_answer())
        else:
            await _first(ending, talk.delete())


async def until_true(condition: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Return when the condition holds, or a person would wait no longer."""
    with suppress(TimeoutError):
        await until(condition, within=within)


async def _first(event: asyncio.Event, other: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(event.wait()), asyncio.create_task(other)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not tasks[1].cancelled():
        tasks[1].result()
