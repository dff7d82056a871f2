"""Processes that are killed while files are fetched, read, stored and asked about.

KILLS in the environment says how many of them; the default is for every day.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="reading needs requirements-files.txt")
pytest.importorskip("openpyxl", reason="the samples need requirements-files.txt")

from tests.chaos.fleet import Crew, Fleet, Server, fleet, server
from tests.chaos.talks import number_of, question
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.files.samples import pdf, shown
from tests.support.process import DiscordDm, SlackDm, discord_variables, slack_variables
from tests.support.waiting import until

KILLS = int(os.environ.get("KILLS", "4"))
PEOPLE = 4  # on each platform
MOST = 3  # kills for one question
ROLES = (("discord", "slack", "worker"), ("discord", "slack", "worker"), ("worker",))
# Seconds after a fetch has begun; by then most files are read, stored and asked about.
LATEST = 0.8
PATIENCE = 60.0  # seconds, of a person


async def test_no_kill_loses_a_file_and_none_is_fetched_after_it_was_asked_about(
    data_dir: Path, model: ModelEmulator
) -> None:
    rng, kills = random.Random(KILLS), 0
    discord, slack = DiscordEmulator(), SlackEmulator()
    fetched_when_asked = dict[int, int]()

    def fetched() -> list[str]:
        return [*discord.cdn.fetched, *slack.files.fetched]

    def answer(messages: Sequence[Mapping[str, str]]) -> str:
        text = messages[-1]["content"]
        number = number_of(text)
        fetched_when_asked.setdefault(number, fetched().count(_name(number)))
        words = re.findall(r"\| The word is (\w+)", text)
        return f"{number}: {' '.join(words)}."

    model.answer, model.delay = answer, 0.02
    async with discord, slack, server(data_dir) as store:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables["REDIS_URL"] = f"unix://{store.socket}"
        async with fleet(data_dir, [Crew(roles, variables, {}) for roles in ROLES]) as bots:
            await until(lambda: len(bots.up()) == len(ROLES), why=lambda: bots.texts)
            numbers = iter(range(1, 10_000))
            is_over = asyncio.Event()
            answered, killed = list[int](), Counter[int]()

            async def ask(talk: DiscordDm | SlackDm) -> None:
                platform = discord if isinstance(talk, DiscordDm) else slack
                while not is_over.is_set():
                    number = next(numbers)
                    file = _name(number), pdf([shown(f"The word is w{number}.")])
                    await platform.say(talk.channel, talk.person, question(number), files=(file,))
                    async with asyncio.timeout(PATIENCE):
                        while talk.finals()[-1:] != [f"{number}: w{number}."]:
                            await asyncio.sleep(0.02)
                    answered.append(number)

            async def kill() -> None:
                nonlocal kills
                seen = 0
                while kills < KILLS:
                    while len(fetched()) == seen:
                        await asyncio.sleep(0.01)
                    seen = len(fetched())
                    known = {int(name[5:-4]) for name in fetched()}
                    await asyncio.sleep(rng.uniform(0, LATEST))
                    kills += await _kill_who_has(known, bots, store, killed)
                    await bots.hears()
                is_over.set()

            people = [kind for _ in range(PEOPLE) for kind in (DiscordDm(discord), SlackDm(slack))]
            async with asyncio.TaskGroup() as group:
                group.create_task(kill())
                for talk in people:
                    group.create_task(ask(talk))
            logs = "\n".join(bots.texts)

    assert kills >= KILLS
    again = {n for n, times in fetched_when_asked.items() if fetched().count(_name(n)) > times}
    assert not again
    assert "Traceback" not in logs
    print(
        f"{kills} kills · {len(answered)} answers · {len(fetched())} fetches · {len(again)} again"
    )


def _name(number: int) -> str:
    return f"file-{number}.pdf"


async def _kill_who_has(numbers: set[int], bots: Fleet, store: Server, killed: Counter[int]) -> int:
    """Kill a process that works on one of these questions, if there is one.

    A question whose processes were all killed would be given up.
    """
    for one in bots.up():
        held = await store.held_by(one.process.pid)
        if held & numbers and all(killed[number] < MOST for number in held):
            # It may just have ended.
            with suppress(ProcessLookupError):
                one.kill()
                killed.update(held)
                return 1
    return 0
