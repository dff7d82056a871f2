"""What people see of a store of an hour ago that was restored."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bot.store import Store, connect
from tests.app.test_backup import back_up, put_back
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.at_work import all_ended
from tests.support.ports import free_port
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    SlackDm,
    SlackMention,
    Way,
    discord_variables,
    offers_another,
    shows,
    slack_variables,
)
from tests.support.service import Service, serving
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import Browser, browser, new_talk, web_variables

FIRST, SECOND, THIRD = "zebra one", "zebra two", "zebra three"
OPEN = "zebra open"
ROLES = ("discord", "slack", "web", "worker")
HOUR = 3600


def answer(text: str) -> str:
    return f"You said: {text}"


@dataclass
class Scene:
    """People on all platforms, who stay while the bot is stopped and its store replaced."""

    discord: DiscordEmulator
    slack: SlackEmulator
    model: ModelEmulator
    page: Browser
    talk: str
    variables: dict[str, str]

    @asynccontextmanager
    async def served(self, store: Store) -> AsyncIterator[Service]:
        self.discord.connected.clear()
        self.slack.connected.clear()
        async with serving(store, *ROLES, variables=self.variables) as service:
            await until(self.discord.connected.is_set, why=service.text)
            await until(self.slack.connected.is_set, why=service.text)
            yield service

    def asked(self, text: str) -> int:
        """Return how often the model was asked a question."""
        last = [str(request.messages[-1]["content"]) for request in self.model.requests]
        return sum(text in one for one in last)


@asynccontextmanager
async def scene(model: ModelEmulator) -> AsyncIterator[Scene]:
    port = free_port()
    async with AsyncExitStack() as stack:
        discord = await stack.enter_async_context(DiscordEmulator())
        slack = await stack.enter_async_context(SlackEmulator())
        page = await stack.enter_async_context(browser(f"http://127.0.0.1:{port}", enters=False))
        variables = {
            **discord_variables(discord, model),
            **slack_variables(slack, model),
            **web_variables(model, WEB_PORT=str(port)),
        }
        yield Scene(discord, slack, model, page, new_talk(), variables)


async def heard_at(store: Store) -> str | None:
    """Return the key that says when Slack was heard last, once it is there."""
    names = (one.name for one in await stored(store))
    return next((store.key(it) for it in names if re.fullmatch("slack:.*:heard", it)), None)


async def let_pass(store: Store, seconds: int) -> None:
    """Let the store be so old that processes search for what they missed."""
    heard = await heard_at(store)
    assert heard
    await store.command("SET", heard, int(await store.command("GET", heard)) - seconds)


def ends_with(way: Way, text: str) -> bool:
    return way.finals()[-1:] == [text]


async def are_answered(ways: Sequence[Way], text: str, service: Service) -> None:
    for way in ways:
        await way.ask(text)
    for way in ways:
        await until(partial(ends_with, way, answer(text)), why=service.text)


async def ask_while_a_backup_is_made(
    scene: Scene, data_dir: Path, ways: Sequence[Way], late: Sequence[Way], helped: Way
) -> str:
    """Ask, back up while answers grow and questions wait, and live on for an hour.

    Return the question that was open on the page.
    """
    async with connect(url="", data_dir=data_dir) as store, scene.served(store) as service:
        await scene.page.get("/api/me")
        await are_answered(ways, FIRST, service)
        await scene.page.answered(scene.talk, FIRST)
        await all_ended(store)

        scene.model.delay = 60.0  # longer than the backup takes
        for way in late:
            await way.ask(OPEN)
        waiting = await scene.page.ask(scene.talk, OPEN)
        await until(lambda: all(way.finals() for way in late), why=service.text)
        async with asyncio.timeout(60):
            while not await heard_at(store):
                await asyncio.sleep(0.05)
        await back_up(data_dir)
        scene.model.delay = 0.0

        # Edits begin anew, and a stop ends, what was open in the backup.
        for way in late:
            await way.edit(f"{OPEN} edited")
        for way in late:
            await until(partial(shows, way, answer(f"{OPEN} edited")), why=service.text)
        status, _ = await scene.page.press(scene.talk, waiting, "stop")
        assert status < 300
        # People have an answer of the backup written anew, go on, and edit others.
        await ways[0].press()
        await until(lambda: scene.asked(FIRST) == len(ways) + 2, why=service.text)
        await until(lambda: offers_another(ways[0]), why=service.text)
        await are_answered(ways, SECOND, service)
        await scene.page.answered(scene.talk, SECOND)
        await ways[0].edit(f"{SECOND} edited")
        await until(lambda: ways[0].finals()[-1] == answer(f"{SECOND} edited"), why=service.text)
        # What is not a question was answered, too.
        await helped.ask("help")
        await until(helped.finals, why=service.text)
        await all_ended(store)
        return waiting


async def test_nothing_is_answered_twice_after_a_restore_of_an_hour_ago(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with scene(model) as here:
        discord, slack = here.discord, here.slack
        ways: list[Way] = [DiscordMention(discord), SlackMention(slack), SlackDm(slack)]
        late: list[Way] = [DiscordMention(discord), SlackMention(slack)]
        helped = DiscordDm(discord)
        everywhere = *ways, *late, helped
        waiting = await ask_while_a_backup_is_made(here, data_dir, ways, late, helped)
        screens = [way.finals() for way in everywhere]
        asked = len(model.requests)

        said = await put_back(data_dir, data_dir / "old")
        async with connect(url="", data_dir=data_dir) as store:
            await let_pass(store, HOUR)
            async with here.served(store) as service:
                await until(lambda: "catching up" in service.text(), why=service.text)
                for way in everywhere:
                    await way.redeliver()
                # An old answer that the store does not know, and an edit that comes again.
                await ways[0].edit(f"{SECOND} edited")
                await ways[1].press()
                await until(lambda: slack.ephemerals, why=service.text)
                shown = [way.finals() for way in everywhere]
                new = len(model.requests) - asked

                # People ask again, and go on.
                for way in ways:
                    await way.ask(SECOND)
                for way, before in zip(ways, screens, strict=False):
                    await until(partial(shows, way, *before, answer(SECOND)), why=service.text)
                await are_answered(late, THIRD, service)
                await here.page.answered(here.talk, THIRD)
                await all_ended(store)
                async with here.page.page(here.talk) as screen:
                    talk = [turn["question"] for turn in screen.turns.values()]
                    left = screen.turn(waiting)

    assert (new, shown) == (0, screens)
    assert [way.finals() for way in ways] == [[*one, answer(SECOND)] for one in screens[:3]]
    assert [way.finals() for way in late] == [[*one, answer(THIRD)] for one in screens[3:5]]
    assert helped.finals() == screens[-1]
    assert "without an answer: 3." in said
    # The page shows what the store has, and lets its person ask again.
    assert talk == [FIRST, OPEN, THIRD]
    assert (left["state"], left["answer"]) == ("failed", "")
    for request in model.requests[asked : asked + 3]:
        texts = str(request.messages)
        assert FIRST in texts
        assert "edited" not in texts
    assert not service.errors()
