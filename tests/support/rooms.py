"""A thread of several people on either platform, in which the bot is called and commanded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from bot.app.service import DRAIN_SECONDS
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import Shown as SlackShown
from tests.emulators.slack import SlackEmulator
from tests.support.at_work import make_queue
from tests.support.process import discord_variables, slack_variables
from tests.support.service import Service, serving
from tests.support.waiting import until

Platform = DiscordEmulator | SlackEmulator
PLATFORMS = pytest.mark.parametrize("kind", [DiscordEmulator, SlackEmulator])


def last_word(messages: list[dict[str, str]]) -> str:
    """Answer with the last word of the question."""
    return messages[-1]["content"].split()[-1]


def asked(model: ModelEmulator) -> list[str]:
    """Return the questions of the last prompt, the newest last."""
    return [one["content"] for one in model.requests[-1].messages if one["role"] == "user"]


def system(model: ModelEmulator) -> str:
    """Return the system prompt that the model has read last."""
    return model.requests[-1].messages[0]["content"]


@asynccontextmanager
async def served(
    platform: Platform,
    store: Store,
    model: ModelEmulator,
    *,
    drain: float = DRAIN_SECONDS,
    variables: Mapping[str, str] = {},
) -> AsyncIterator[Service]:
    """Serve a platform that runs already, and outlives the service."""
    if isinstance(platform, DiscordEmulator):
        access = discord_variables(platform, model)
    else:
        access = slack_variables(platform, model)
    async with serving(store, variables={**access, **variables}, drain_seconds=drain) as service:
        await until(platform.connected.is_set, why=service.text)
        yield service
    assert not service.errors()


async def until_open(store: Store, turns: int) -> None:
    """Wait until so many turns are admitted and have no outcome."""
    queue = make_queue(store)
    async with asyncio.timeout(60):
        while (await queue.load([])).open != turns:
            await asyncio.sleep(0.01)


class Room:
    """A thread that Ann has begun, and in which the bot was not called yet; Bob is there, too."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.people = {name: platform.user(name) for name in ("Ann", "Bob")}
        self.thread = ""
        self._commands: list[str] = []  # Discord's interactions

    async def begin(self, text: str = "Ideas?") -> None:
        platform, ann = self.platform, self.people["Ann"]
        self.thread = await platform.say(platform.channel_id, ann, text)
        if isinstance(platform, DiscordEmulator):
            self.thread = await platform.open_thread(self.thread, ann, "Ideas")

    async def say(self, text: str, *, person: str = "Ann") -> str:
        platform, user = self.platform, self.people[person]
        if isinstance(platform, DiscordEmulator):
            return await platform.say(self.thread, user, text)
        return await platform.say(platform.channel_id, user, text, thread_ts=self.thread)

    async def call(self, text: str = "", *, person: str = "Ann") -> str:
        return await self.say(f"{self.platform.bot_mention} {text}".strip(), person=person)

    async def edit(self, message: str, text: str) -> None:
        if isinstance(self.platform, DiscordEmulator):
            await self.platform.edit(message, text)
        else:
            await self.platform.edit(self.platform.channel_id, message, text)

    async def delete(self, message: str) -> None:
        if isinstance(self.platform, DiscordEmulator):
            await self.platform.delete(message)
        else:
            await self.platform.delete(self.platform.channel_id, message)

    async def command(self, name: str, /, *, person: str = "Ann", **options: str) -> str:
        """Use a command in the thread; return what the person alone is told."""
        platform, before = self.platform, len(self.told())
        if isinstance(platform, DiscordEmulator):
            user, command = self.people[person], f"parley {name}"
            self._commands.append(await platform.slash(self.thread, user, command, **options))
        else:
            await self.call(" ".join(["/parley", name, *options.values()]), person=person)
        await until(lambda: len(self.told()) > before)
        return self.told()[-1]

    async def press(self, button: str, *, person: str = "Ann") -> None:
        """Press a button below what a person was told last."""
        platform = self.platform
        if isinstance(platform, DiscordEmulator):
            told = platform.original(self._commands[-1])
            assert told
            named = next(one for one in told.buttons if one.startswith(button))
            self._commands.append(await platform.click(told.id, self.people[person], named))
        else:
            named = next(one for one in platform.ephemerals[-1].buttons if one.startswith(button))
            await platform.press(platform.ephemerals[-1], named)

    def told(self) -> list[str]:
        platform = self.platform
        if isinstance(platform, SlackEmulator):
            return [one.text for one in platform.ephemerals]
        return [one.text for one in map(platform.original, self._commands) if one and one.text]

    def answers(self) -> list[str]:
        return [one.text for one in self._own()]

    def labels(self) -> list[tuple[str, ...]]:
        """What stands on the buttons of each answer."""
        return [one.labels for one in self._own()]

    def _own(self) -> Sequence[DiscordShown | SlackShown]:
        platform = self.platform
        if isinstance(platform, DiscordEmulator):
            screen = platform.screen(self.thread)
            own = [one for one in screen if not one.ephemeral]
            return [one for one in own if one.author_id == platform.bot_id]
        bots = (platform.bot_id, platform.bot_user_id)
        replies = platform.screen(platform.channel_id, self.thread)
        return [one for one in replies if one.author in bots]
