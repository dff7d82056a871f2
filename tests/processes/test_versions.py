"""The page's process and the worker are killed while branches begin, grow and are opened.

KILLS in the environment says how often; the default is for every day.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from aiohttp import ClientError

from tests.chaos.fleet import Crew, Fleet, fleet, server
from tests.emulators.model import ModelEmulator
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.support.web_page import Browser, Screen, browser, new_talk, web_variables

KILLS = int(os.environ.get("KILLS", "3"))
PATIENCE = 120.0  # seconds
RNG = random.Random(KILLS)


def says(messages: Sequence[Mapping[str, str]]) -> str:
    return f"Answer to {messages[-1]['content'].splitlines()[-1]}: " + "so it is, " * 10


class Page:
    """A page that repeats what is not through, and what its person expects to see there."""

    def __init__(self, person: Browser, screen: Screen, talk: str) -> None:
        self.person, self.screen, self.talk = person, screen, talk
        self.branch: list[str] = []  # the ids on the open branch
        self.texts: dict[str, str] = {}
        self.tails: dict[str, list[str]] = {}  # of the versions that are not open
        self.groups: dict[str, list[str]] = {}  # the versions of each, itself among them

    async def send(self, path: str, body: object) -> None:
        """Repeat a request until a process has answered it, and once more."""
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        path_ = f"/api/conversations/{self.talk}/{path}"
                        status, said = await self.person.send("POST", path_, body)
                        if status < 429:
                            assert status in (200, 202), said
                            break
                    except (ClientError, OSError):
                        pass
                    await asyncio.sleep(0.05)

    async def ask(self) -> None:
        name, text = str(uuid4()), f"question-{len(self.texts)}"
        self.branch.append(name)
        self.texts[name] = text
        self.groups[name] = [name]
        await self.send("questions", {"id": name, "text": text})

    async def edit(self, at: int) -> None:
        old, name, text = self.branch[at], str(uuid4()), f"question-{len(self.texts)}"
        self.tails[old], self.branch = self.branch[at + 1 :], [*self.branch[:at], name]
        self.texts[name] = text
        self.groups[old].append(name)
        self.groups[name] = self.groups[old]
        await self.send(f"turns/{old}/edit", {"id": name, "text": text})

    async def open(self, at: int, wanted: str) -> None:
        old = self.branch[at]
        self.tails[old] = self.branch[at + 1 :]
        self.branch = [*self.branch[:at], wanted, *self.tails.pop(wanted)]
        await self.send(f"turns/{wanted}/open", {})

    async def act(self) -> None:
        """Ask, edit an earlier question, or open another version."""
        at = RNG.randrange(3)
        here = self.groups[self.branch[at]] if at < len(self.branch) else []
        others = [one for one in here if one in self.tails]
        if not here:
            await self.ask()
        elif others and RNG.random() < 0.5:
            await self.open(at, RNG.choice(others))
        else:
            await self.edit(at)

    def groups_open(self) -> list[list[str]]:
        return [self.groups[one] for one in self.branch]

    async def shows_all(self) -> None:
        await until(self.is_as_expected, within=PATIENCE, why=self.screen.__str__)

    def is_as_expected(self) -> bool:
        turns = self.screen.turns
        return list(turns) == self.branch and all(
            turns[one]["question"] == self.texts[one]
            and turns[one]["answer"].startswith(f"Answer to {self.texts[one]}: so")
            and turns[one]["state"] == "done"
            and len(turns[one]["versions"] or [one]) == len(self.groups[one])
            for one in self.branch
        )


async def kill(bots: Fleet) -> None:
    """Kill one at a moment of a branch that chance chooses."""
    await asyncio.sleep(RNG.random() * 0.4)
    if one := bots.victim(RNG):
        one.kill()


async def test_no_kill_in_the_middle_of_a_branch_loses_or_doubles_anything(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.answer, model.first_delay, model.delay = says, 0.1, 0.02
    async with server(data_dir) as store:
        port = free_port()
        url = f"unix://{store.socket}"
        variables = web_variables(model, WEB_PORT=str(port), REDIS_URL=url)
        crews = [Crew((role,), variables, {}) for role in ("web", "worker")]
        async with fleet(data_dir, crews) as bots:
            await until(lambda: len(bots.up()) == 2, within=PATIENCE, why=lambda: str(bots.texts))
            async with browser(f"http://127.0.0.1:{port}") as person:
                talk = new_talk()
                async with person.page(talk) as screen:
                    page = Page(person, screen, talk)
                    for _ in range(3):
                        await page.act()
                    await page.shows_all()
                    for _ in range(KILLS):
                        async with asyncio.TaskGroup() as group:
                            group.create_task(kill(bots))
                            group.create_task(page.act())
                        await page.shows_all()
                    # Each version is there with what followed it.
                    for other in list(page.tails):
                        at = next(
                            (at for at, it in enumerate(page.groups_open()) if other in it), -1
                        )
                        if at >= 0 and other in page.tails:
                            await page.open(at, other)
                            await page.shows_all()
            names = await store.redis.keys("parley:{0}:turn:*")
    assert len(names) == len(page.texts)
    assert "Traceback" not in "\n".join(bots.texts)
    print(f"{KILLS} kills, {len(page.texts)} turns, {len(page.tails)} versions aside")
