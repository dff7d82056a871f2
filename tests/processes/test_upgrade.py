"""A gateway and a worker are replaced one after the other while people ask, and so is the way back.

OLD_VERSION in the environment is a folder with the version to come from and to go back to; without
it, that is this one. PEOPLE says how many ask on each platform, and QUESTIONS how many are answered
between two replacements. The defaults are for every day: who asks takes the time of who starts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bot.store import connect
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.at_work import all_ended
from tests.support.process import (
    ROOT,
    BotProcess,
    DiscordDm,
    SlackDm,
    Way,
    bot,
    discord_variables,
    slack_variables,
)
from tests.support.waiting import until

NEW = str(ROOT)
OLD = os.environ.get("OLD_VERSION", NEW)
QUESTIONS = int(os.environ.get("QUESTIONS", "4"))
PEOPLE = int(os.environ.get("PEOPLE", "1"))
GATEWAY, WORKER = ("discord", "slack"), ("worker",)


class Person:
    """Asks the next question as soon as the last one is answered."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.asked: list[str] = []

    async def go_on(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self.asked.append(f"zebra {len(self.asked)}")
            await self.way.ask(self.asked[-1])
            await until(lambda: f"You said: {self.asked[-1]}" in self.way.finals(), why=self.text)

    def text(self) -> str:
        return f"{self.asked[-2:]}: {self.way.finals()[-2:]}"


async def test_nothing_is_lost_or_doubled_over_an_upgrade_and_the_way_back(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.delay = 0.15
    async with AsyncExitStack() as stack:
        discord = await stack.enter_async_context(DiscordEmulator())
        slack = await stack.enter_async_context(SlackEmulator())
        store = await stack.enter_async_context(connect(url="", data_dir=data_dir))
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables["REDIS_URL"] = store.url

        async def start(version: str, roles: Sequence[str]) -> BotProcess:
            there = variables | {"PYTHONPATH": version}
            begun = await stack.enter_async_context(bot(*roles, data_dir=data_dir, variables=there))
            await until(lambda: "Running as" in begun.text(), why=begun.text)
            return begun

        running = dict(
            zip(
                (WORKER, GATEWAY),
                await asyncio.gather(*(start(OLD, roles) for roles in (WORKER, GATEWAY))),
                strict=True,
            )
        )
        await until(discord.connected.is_set, why=running[GATEWAY].text)
        await until(slack.connected.is_set, why=running[GATEWAY].text)
        ways = [way for _ in range(PEOPLE) for way in (DiscordDm(discord), SlackDm(slack))]
        people = [Person(way) for way in ways]
        stopping = asyncio.Event()
        asking = asyncio.gather(*(one.go_on(stopping) for one in people))

        async def more_are_answered() -> None:
            wanted = sum(len(one.asked) for one in people) + QUESTIONS
            await until(
                lambda: sum(len(one.asked) for one in people) >= wanted or asking.done(),
                why=lambda: "\n".join(one.text() for one in people),
            )

        # As docs/operating.md says: the new version is beside the old one until that has ended.
        upgrade, way_back = [(NEW, WORKER), (NEW, GATEWAY)], [(OLD, GATEWAY), (OLD, WORKER)]
        for version, roles in upgrade + (way_back if OLD != NEW else []):
            old, running[roles] = running[roles], await start(version, roles)
            await more_are_answered()
            old.process.terminate()
            assert await asyncio.wait_for(old.process.wait(), 60) == 0
            assert "Traceback" not in old.text()
        await more_are_answered()
        stopping.set()
        await asking
        await all_ended(store)

    for one in people:
        assert one.way.finals() == [f"You said: {it}" for it in one.asked]
    print(f"{sum(len(one.asked) for one in people)} questions")
