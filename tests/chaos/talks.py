"""People who ask one question after the other, and sometimes the next before the answer."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from bot import errors
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.slack import Shown as SlackShown
from tests.emulators.slack import SlackEmulator
from tests.support.waiting import until

_NUMBER = re.compile(r"question (\d+)")
_WORDS = (
    "amber",
    "birch",
    "cloud",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "juniper",
)
# What may stand in the place of an answer, or below a part of it.
APOLOGIES = tuple(
    kind.apology
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ParleyError)
)
LONG = 9  # every so manieth answer fills several messages of Discord
QUESTIONS = 25  # in one talk
PATIENCE = 90.0  # seconds for which a person waits for an answer before asking on


def question(number: int) -> str:
    return f"This is question {number}, please."


def number_of(text: str) -> int:
    return int(_NUMBER.findall(text)[-1])


def answer(messages: Sequence[dict[str, str]]) -> str:
    """Return what the model says to the last question, the same each time that it is asked."""
    return answer_to(number_of(messages[-1]["content"]))


@cache
def answer_to(number: int) -> str:
    rng = random.Random(number)
    count = 450 if number % LONG == 0 else rng.randint(10, 60)
    return f"Answer {number}: " + " ".join(rng.choice(_WORDS) for _ in range(count)) + "."


@dataclass
class Talk:
    """One conversation; `asked` are the numbers of its questions in the order of asking."""

    name: str
    asked: list[int] = field(default_factory=list)

    async def ask(self, number: int) -> bool:
        """Say a question; False where there is no place for it yet."""
        raise NotImplementedError

    async def repeat(self) -> None:
        """Deliver the event of the newest question once more."""
        raise NotImplementedError

    def told(self, number: int) -> str:
        """How the bot was told of a question, in words, as far as is known."""
        return ""

    def shown(self) -> list[str]:
        """What the bot's messages show."""
        raise NotImplementedError

    def buttons(self) -> list[str]:
        """The names of the buttons below the bot's messages."""
        raise NotImplementedError

    def is_answered(self) -> bool:
        """Whether there seem to be as many answers and apologies as there were questions."""
        shown = self.shown()
        text = "".join("".join(shown).split())
        whole = sum("".join(answer_to(each).split()) in text for each in self.asked)
        return whole + sum(one.endswith(APOLOGIES) for one in shown) >= len(self.asked)


class DiscordTalk(Talk):
    """A DM, or a thread that a mention opens."""

    def __init__(self, discord: DiscordEmulator, name: str, *, dm: bool) -> None:
        super().__init__(name)
        self._discord = discord
        self._person = discord.user(name)
        self._channel = discord.dm(self._person) if dm else ""
        self._ids: list[str] = []

    async def ask(self, number: int) -> bool:
        if self._ids and not await self._is_opened():
            return False
        self.asked.append(number)
        where, text = self._where(), question(number)
        if not where:
            where, text = self._discord.channel_id, f"{self._discord.bot_mention} {text}"
        self._ids.append(await self._discord.say(where, self._person, text))
        return True

    async def repeat(self) -> None:
        await self._discord.redeliver(self._ids[-1])

    def shown(self) -> list[str]:
        return [one.text for one in self._screen()]

    def buttons(self) -> list[str]:
        return [button for one in self._screen() for button in one.buttons]

    def _screen(self) -> list[DiscordShown]:
        shown = self._discord.screen(self._where()) if self._where() else []
        return [one for one in shown if one.author_id == self._discord.bot_id and one.text]

    async def _is_opened(self) -> bool:
        with suppress(TimeoutError):
            await until(self._where)
        return bool(self._where())

    def _where(self) -> str:
        return self._channel or (self._ids and self._discord.thread_of(self._ids[0])) or ""


class SlackTalk(Talk):
    """A DM, or the thread of a mention."""

    def __init__(self, slack: SlackEmulator, name: str, *, dm: bool) -> None:
        super().__init__(name)
        self._slack = slack
        self._person = slack.user(name)
        self._channel = slack.dm(self._person) if dm else slack.channel(f"channel-{name.lower()}")
        self._thread: str | None = None
        self._dm = dm
        self._ts: dict[int, str] = {}  # of each question

    async def ask(self, number: int) -> bool:
        self.asked.append(number)
        text = question(number) if self._dm else f"{self._slack.bot_mention} {question(number)}"
        said = self._slack.say(self._channel, self._person, text, thread_ts=self._thread)
        self._ts[number] = await said
        if not self._dm:
            self._thread = self._thread or self._ts[number]
        return True

    async def repeat(self) -> None:
        await self._slack.redeliver(self._ts[self.asked[-1]])

    def told(self, number: int) -> str:
        tries = [one for one in self._slack.deliveries if one.ts == self._ts[number]]
        answers = [f"{one.status} {one.body[:40]!r} at {one.at:.1f}" for one in tries]
        return f"told {len(tries)} times: {', '.join(answers)}"

    def shown(self) -> list[str]:
        return [one.text for one in self._screen()]

    def buttons(self) -> list[str]:
        return [button for one in self._screen() for button in one.buttons]

    def _screen(self) -> list[SlackShown]:
        ours = (self._slack.bot_id, self._slack.bot_user_id)
        shown = self._slack.screen(self._channel, self._thread) if self.asked else []
        return [one for one in shown if one.author in ours and one.text]


class People:
    """Asks in all talks until told to end; `doubled` counts the events delivered once more.

    Each of `opened` begins a talk with a number of its own; after so many questions people are
    done with it and begin another. `said` is set whenever somebody has asked.
    """

    def __init__(
        self, opened: Sequence[Callable[[int], Talk]], rng: random.Random, said: asyncio.Event
    ) -> None:
        self.talks: list[Talk] = []
        self.doubled = 0
        self._opened = opened
        self._rng = rng
        self._said = said
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
        for which in range(self._rng.choice((1, 1, 1, 2))):
            if which and talk.asked:
                # Questions that wait are answered together; the judge expects an answer to each.
                await _first(ending, until_begun(talk))
                if ending.is_set():
                    break
            self._last += 1
            if await talk.ask(self._last):
                self._said.set()
        if self._rng.random() < 0.2:
            await asyncio.sleep(self._rng.choice((0, 0.3, 1.5)))
            self.doubled += 1
            await talk.repeat()
        await _first(ending, until_answered(talk))


async def until_begun(talk: Talk) -> None:
    """Return when something of the newest answer is shown, or a person would wait no longer."""
    with suppress(TimeoutError):
        await until(lambda: f"Answer {talk.asked[-1]}:" in "".join(talk.shown()), within=PATIENCE)


async def until_answered(talk: Talk) -> None:
    """Return when the newest answer is there, or a person would wait no longer."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not talk.is_answered():
                await asyncio.sleep(0.05)
    except TimeoutError:
        return


async def _first(event: asyncio.Event, other: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(event.wait()), asyncio.create_task(other)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
