"""Whether the sums of usage are the model server's own, with workers that are killed.

USAGE_TURNS in the environment says how many questions are asked; a worker is killed for every
eighth of them. The default is for every day.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from bot.store import connect
from bot.turns.usage import Row, UsageSums
from tests.chaos.fleet import Crew, Fleet, Server, fleet, server
from tests.chaos.talks import number_of, question
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.model.asked import Asked
from tests.emulators.model.behaviour import tokens
from tests.support.process import DiscordDm, discord_variables
from tests.support.waiting import until

TURNS = int(os.environ.get("USAGE_TURNS", "8"))
TURNS_PER_KILL = 8
AT_ONCE = 6
ROLES = (("discord",), ("worker",), ("worker",))
THINKING, WORD = 0.2, 0.03  # seconds, of the model
PATIENCE = 180.0  # seconds until a kill has struck, and until a turn has ended
WORDS = ("amber", "birch", "cloud", "delta", "ember", "fjord", "grove", "heron", "inlet")
RNG = random.Random(TURNS)


def says(messages: Sequence[dict[str, str]]) -> str:
    rng = random.Random(number_of(messages[-1]["content"]))
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(8, 40)))
    return f"Answer {number_of(messages[-1]['content'])}: {text}."


async def ask(discord: DiscordEmulator, numbers: Iterator[int], people: dict[int, str]) -> None:
    """Ask one question after the other, each as somebody else, and wait for its answer."""
    for number in numbers:
        talk = DiscordDm(discord)
        people[number] = talk.person
        await talk.ask(question(number))

        def is_whole(talk: DiscordDm = talk, number: int = number) -> bool:
            return any(
                one.text == says([{"content": question(number)}]) and not _stops(one.buttons)
                for one in talk.shown()
            )

        await until(is_whole, within=PATIENCE)


def _stops(buttons: Sequence[str]) -> bool:
    return any(one.startswith("stop") for one in buttons)


async def kill(bots: Fleet, store: Server, model: ModelEmulator) -> None:
    """Kill a worker in the middle of an answer, or while the model has not begun one."""
    found: list[int] = []

    async def is_found() -> bool:
        running = [one.pid for one in await store.open_turns() if one.state == "running"]
        found[:] = running if model.running else []
        return bool(found)

    while True:
        async with asyncio.timeout(PATIENCE):
            while not await is_found():
                await asyncio.sleep(0.01)
        await asyncio.sleep(RNG.uniform(0.0, THINKING + 20 * WORD))
        victims = [one for one in bots.up() if one.process.pid == found[0]]
        if victims:
            victims[0].kill()
            await victims[0].process.wait()
            return


async def sums_of(store: Server) -> list[Row]:
    async with connect(url=f"unix://{store.socket}", data_dir=Path()) as connected:
        usage = UsageSums(connected)
        return [it async for it in usage.rows(date(2000, 1, 1), by_person=True)]


async def test_the_sums_of_usage_are_what_the_model_server_has_counted(
    data_dir: Path, model: ModelEmulator
) -> None:
    discord = DiscordEmulator()
    people: dict[int, str] = {}
    model.answer = says
    model.first_delay, model.delay = THINKING, WORD
    kills = TURNS // TURNS_PER_KILL
    async with discord, server(data_dir) as store:
        variables = discord_variables(discord, model) | {
            "REDIS_URL": f"unix://{store.socket}",
            "LEASE_SECONDS": "1",
            "PRICES": "emulated=2/10",
        }
        async with fleet(data_dir, [Crew(roles, variables, {}) for roles in ROLES]) as bots:
            await until(lambda: len(bots.up()) == len(ROLES), why=lambda: bots.texts)
            await until(discord.connected.is_set)
            numbers = iter(range(1, TURNS + 1))
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(ask(discord, numbers, people))
                for at in range(kills):
                    await until(
                        lambda: len(people) >= at * TURNS_PER_KILL + 1,  # noqa: B023
                        within=PATIENCE,
                    )
                    await kill(bots, store, model)

            async def open_turns() -> int:
                return len(await store.open_turns())

            while await open_turns():
                await asyncio.sleep(0.05)
            rows = await sums_of(store)

    asked = defaultdict[int, list[Asked]](list)
    for one in model.requests:
        if one.call.startswith("POST"):
            asked[number_of(one.sent[-1]["content"])].append(one)
    counted = {row.person.partition(":")[2]: row for row in rows if row.person}
    assert sum(row.sums.questions for row in rows) == len(counted) == TURNS
    differs, cut, all_read, all_written = 0, 0, 0, 0
    for number, person in people.items():
        row, requests = counted[person].sums, asked[number]
        whole = [one for one in requests if one.finished]
        read = sum(model.need(one).prompt for one in requests)
        written = sum(len(tokens("".join(it.text for it in one.deltas))) for one in requests)
        longest = max(len(tokens(says([{"content": question(number)}]))) for one in requests)
        all_read, all_written = all_read + read, all_written + written
        differs += row.read != read
        if len(requests) == len(whole) == 1:
            # A worker that dies in the moment before its request leaves one that never came.
            assert (row.read % read, row.written) == (0, written), number
        else:
            cut += len(requests) - 1
            # At most the text since the last save is missing; what is saved is estimated.
            assert abs(row.written - written) <= longest * (len(requests) - 1), number
        assert row.money == 2 * row.read + 10 * row.written
    read, written = (sum(getattr(it.sums, name) for it in rows) for name in ("read", "written"))
    print(
        f"{TURNS} turns, {kills} kills, {cut} requests cut: read {read} of {all_read}, "
        f"written {written} of {all_written}, {differs} turns differ in what was read"
    )
    assert differs <= max(2, kills // 4)
