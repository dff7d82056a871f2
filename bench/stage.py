"""The platforms that the bots of a bench answer on, with the people who ask at once."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.bound import Budget, Rate
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.model.asked import Asked
from tests.emulators.slack import SlackEmulator
from tests.emulators.timeline import Moment
from tests.support.process import discord_variables, slack_variables

TOKENS, SPEED = 200, 30.0  # of a reply, and in a second
LETTERS = 5  # of a token
LATENCY = 0.08  # seconds that a call takes; half of it, δ, before it shows
WAY = LATENCY / 2
THINKING = 0.3  # seconds from a request to the first token

Place = Literal["one channel", "threads", "update", "streams"]
PLACES: dict[str, tuple[Place, ...]] = {
    "discord": ("one channel", "threads"),
    "slack": ("update", "streams"),
}

_PROSE = (
    "The river rises in the hills and runs past mills, gardens and small towns, and where it is "
    "wide enough people go out in boats in the evening to see the swallows hunt.\n\n"
)
# Slack's documentation, "Rate limits": the tiers promise so many calls a minute, and a channel one
# post a second, with bursts; the emulator takes five.
_MINUTE = 60.0
_UPDATES = Budget(posts=Rate(5, 5.0), edits=Rate(50, _MINUTE), refills=True)
_STREAMS = Budget(
    posts=Rate(20, _MINUTE), edits=Rate(100, _MINUTE), ends=Rate(20, _MINUTE), refills=True
)
_NUMBER = re.compile(r"question (\d+)")


class Call(Protocol):
    """A request of the bot to its platform."""

    @property
    def at(self) -> float:
        """When it came, in monotonic seconds."""

    @property
    def limited(self) -> bool:
        """Whether it was answered with 429."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one person asked, and when; `id` is the message's."""

    number: int
    at: float
    channel: str
    id: str

    @property
    def opening(self) -> str:
        """What the answer begins with, and no other."""
        return f"Answer {self.number}:"


class Stage(Protocol):
    """One platform and a model that answers every question with 200 tokens of prose."""

    model: ModelEmulator
    budget: Budget

    def variables(self) -> dict[str, str]:
        """Return what our bot has to know to find its way here."""

    async def connected(self) -> None:
        """Return when a bot is there."""

    async def ask(self, numbers: Sequence[int]) -> list[Question]:
        """Let as many people ask at once, in a place where nothing was written before."""

    def moments(self, question: Question) -> list[Moment]:
        """Return what happened to the messages of an answer."""

    def stoppable(self, question: Question) -> bool:
        """Whether the answer still has a button to stop it."""

    def calls(self) -> Sequence[Call]:
        """Return the bot's calls so far."""

    def complaints(self) -> list[str]:
        """Return what the bot did against the platform's rules, and forget it."""

    def sharing(self, replies: int) -> int:
        """Return how many of so many replies at once share a budget."""

    def rest(self) -> None:
        """Let the platform forget how much the bot wrote before."""

    def limit(self, question: Question, *, seconds: float) -> None:
        """Let the next edit of an answer earn a 429 that concerns no other."""


def answer(messages: list[dict[str, str]]) -> str:
    """Return 200 tokens, beginning with the number of the question; a short word to question 0."""
    (number,) = _NUMBER.findall(messages[-1]["content"])[-1:]
    if number == "0":
        return "Answer 0: well."
    text = f"Answer {number}: " + _PROSE * 20
    return text[: TOKENS * LETTERS - 1].rstrip().ljust(TOKENS * LETTERS, ".")


def request_of(model: ModelEmulator, question: Question) -> Asked | None:
    """Return the request that a bot made of the model for a question."""
    for asked in reversed(model.requests):
        if _NUMBER.findall(asked.messages[-1]["content"])[-1:] == [str(question.number)]:
            return asked
    return None


@asynccontextmanager
async def a_stage(platform: str, place: Place) -> AsyncIterator[Stage]:
    """Set up a platform, within its honest limits, and a model."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelEmulator())
        model.answer, model.chunk, model.delay = answer, LETTERS, 1 / SPEED
        model.first_delay = THINKING
        if platform == "discord":
            discord = await stack.enter_async_context(DiscordEmulator(latency=LATENCY))
            yield DiscordStage(discord, model, place)
        else:
            slack = await stack.enter_async_context(SlackEmulator(latency=LATENCY))
            yield SlackStage(slack, model, place)
            slack.heal()  # who asks for no stream meets no refusal of one


class DiscordStage:
    """A guild: everybody mentions the bot in one channel, and is answered there or in threads."""

    def __init__(self, discord: DiscordEmulator, model: ModelEmulator, place: Place) -> None:
        self.discord = discord
        self.model = model
        self.in_threads = place == "threads"
        self.budget = Budget(Rate(*discord.limits.create), Rate(*discord.limits.edit))
        # Whether those who are to be answered in one channel ask in one of Discord's threads, for
        # bots that open a thread wherever they are mentioned outside of one.
        self.ask_inside = False

    def variables(self) -> dict[str, str]:
        threads = "on" if self.in_threads else "off"
        return {**discord_variables(self.discord, self.model), "DISCORD_THREADS": threads}

    async def connected(self) -> None:
        await asyncio.wait_for(self.discord.connected.wait(), 60)

    async def ask(self, numbers: Sequence[int]) -> list[Question]:
        discord = self.discord
        channel = discord.channel(f"questions-{numbers[0]}")
        if self.ask_inside and not self.in_threads:
            host = discord.user("Host")
            first = await discord.say(channel, host, "Ask here.")
            channel = await discord.open_thread(first, host, "questions")
        people = [discord.user(f"Person {number}") for number in numbers]
        questions = []
        for number, person in zip(numbers, people, strict=True):
            at = time.monotonic()
            said = await discord.say(channel, person, f"{discord.bot_mention} question {number}")
            questions.append(Question(number, at, channel, said))
        return questions

    def moments(self, question: Question) -> list[Moment]:
        return _of(question, self.discord.timeline(self._channel(question)))

    def stoppable(self, question: Question) -> bool:
        return any(
            button.startswith("stop")
            for shown in self.discord.screen(self._channel(question))
            for button in shown.buttons
            if question.opening in shown.text
        )

    def calls(self) -> Sequence[Call]:
        return self.discord.requests

    def complaints(self) -> list[str]:
        return _taken(self.discord.unknown) + _taken(self.discord.violations)

    def sharing(self, replies: int) -> int:
        return 1 if self.in_threads else replies

    def rest(self) -> None:
        """Every channel has buckets of its own, and every round of questions a channel."""

    def limit(self, question: Question, *, seconds: float) -> None:
        call = f"PATCH /channels/{question.id}/messages"
        self.discord.fail(call, status=429, retry_after=seconds)

    def _channel(self, question: Question) -> str:
        thread = self.discord.thread_of(question.id) if self.in_threads else None
        return thread or question.channel


class SlackStage:
    """A workspace: everybody mentions the bot in one channel, and is answered in a thread each."""

    def __init__(self, slack: SlackEmulator, model: ModelEmulator, place: Place) -> None:
        self.slack = slack
        self.model = model
        self.in_streams = place == "streams"
        self.budget = _STREAMS if self.in_streams else _UPDATES
        if not self.in_streams:
            slack.fail("chat.startStream", error="feature_not_enabled", times=1_000_000)

    def variables(self) -> dict[str, str]:
        return slack_variables(self.slack, self.model)

    async def connected(self) -> None:
        await asyncio.wait_for(self.slack.connected.wait(), 60)

    async def ask(self, numbers: Sequence[int]) -> list[Question]:
        slack = self.slack
        channel = slack.channel(f"questions-{numbers[0]}")
        people = [slack.user(f"Person {number}") for number in numbers]
        questions = []
        for number, person in zip(numbers, people, strict=True):
            at = time.monotonic()
            ts = await slack.say(channel, person, f"{slack.bot_mention} question {number}")
            questions.append(Question(number, at, channel, ts))
        return questions

    def moments(self, question: Question) -> list[Moment]:
        return _of(question, self.slack.timeline(question.channel, question.id))

    def stoppable(self, question: Question) -> bool:
        return any(
            button.startswith("stop")
            for shown in self.slack.screen(question.channel, question.id)
            for button in shown.buttons
        )

    def calls(self) -> Sequence[Call]:
        return self.slack.requests

    def complaints(self) -> list[str]:
        return _taken(self.slack.unknown) + _taken(self.slack.violations)

    def sharing(self, replies: int) -> int:
        return replies

    def rest(self) -> None:
        self.slack.clock.advance(_MINUTE)

    def limit(self, question: Question, *, seconds: float) -> None:
        raise NotImplementedError("Slack's limits are those of a workspace")


def _of(question: Question, moments: Sequence[Moment]) -> list[Moment]:
    """Return what happened to the messages that have ever shown the answer to a question."""
    ids = {one.message for one in moments if one.text.startswith(question.opening)}
    return [one for one in moments if one.message in ids and one.what != "sign"]


def _taken(words: list[str]) -> list[str]:
    taken = list(words)
    words.clear()
    return taken
