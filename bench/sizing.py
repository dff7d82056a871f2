"""How many people one worker carries, what a process needs, and how much is kept of a year.

    python -m bench.sizing [--turns N] [--threads N]

It assumes habits, and measures what they cost: memory of idle processes, CPU and memory of answers
that grow at once, and memory of the store. Half a minute with the defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench import figures
from bench.scale import (
    ANSWER,
    EXCHANGES,
    QUESTION,
    a_queue,
    a_turn,
    at_once,
    memory,
    processor,
    runs,
    whole_turn,
)
from bot.store import Store, connect
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import bot, discord_variables, slack_variables
from tests.support.waiting import until

PEOPLE, QUESTIONS = 1_000, 10  # who ask so much on a working day,
BUSIEST, DAYS = 0.2, 250  # so much of it in the busiest hour, on so many days of a year
SECONDS, WRITES = 20, 16  # of an answer; Discord's limit lets one grow every 1.2 s
SHARE = 0.5  # of a core that a process may use in the busiest hour
ROLES = ("discord", "slack", "web", "worker")


async def main(turns: int, threads: int) -> None:
    print(figures.load())
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with connect(url="", data_dir=Path(folder)) as store:
            await idle(store, Path(folder))
            work, store_work = await answering(store, Path(folder), turns)
            each = await kept(store, threads)
    print(
        f"\n{PEOPLE} people, {QUESTIONS} questions each on {DAYS} days, {BUSIEST:.0%} in one hour:"
    )
    rush = PEOPLE * QUESTIONS * BUSIEST / 3600
    places, cores = Settings().capacity / SECONDS, SHARE / work
    print(f"{rush:.2f} questions a second, so {rush * SECONDS:.0f} answers of {SECONDS} s at once")
    print(
        f"a worker takes {places:.1f} a second by CAPACITY, {cores:.1f} by {SHARE:.0%} of a core:"
    )
    print(f"x {min(places, cores) / rush:.0f}, or {min(places, cores) / rush * PEOPLE:.0f} people")
    print(f"the store takes {SHARE / store_work:.0f} a second by {SHARE:.0%} of a core")
    for days, name in ((DAYS * 30 // 365, "30 days"), (DAYS, "a year")):
        print(f"kept of {name}: {PEOPLE * QUESTIONS * days * each / 2**30:.1f} GB")


async def idle(store: Store, folder: Path) -> None:
    """Print the memory of a process of each role."""
    async with DiscordEmulator() as discord, SlackEmulator() as slack, ModelEmulator() as model:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables |= {"REDIS_URL": store.url, "WEB_PORT": "0", "WEB_PASSWORD": "long enough"}
        async with AsyncExitStack() as stack:
            for role in ROLES:
                process = bot(role, data_dir=folder, variables=variables)
                one = await stack.enter_async_context(process)
                await until(partial(runs, one), why=one.text)
                print(f"idle {role:<8} {figures.resident(one.process.pid):.0f} MB")


async def answering(store: Store, folder: Path, turns: int) -> tuple[float, float]:
    """Print what answers that grow at once take; return the CPU of one, and of the store for it."""
    async with ModelEmulator() as model:
        model.answer, model.chunk = "a" * ANSWER, ANSWER // WRITES
        model.delay = SECONDS / WRITES
        variables = {"REDIS_URL": store.url, "MODEL_URL": model.url, "LEASE_SECONDS": "3"}
        async with bot("worker", data_dir=folder, variables=variables) as one:
            await until(partial(runs, one), why=one.text)
            before = figures.resident(one.process.pid)
            used, spent = figures.processor(one.process.pid), await processor(store)
            queue = a_queue(store)
            await at_once([partial(queue.admit, a_turn(number)) for number in range(turns)])
            while (await queue.load([])).open:
                await asyncio.sleep(0.1)
            work = (figures.processor(one.process.pid) - used) / turns
            cost = (await processor(store) - spent) / turns
            most = figures.resident(one.process.pid, peak=True)
    print(f"\n{turns} answers of {SECONDS} s and {WRITES} writes at once")
    print(
        f"worker       {work * 1e3:.1f} ms of CPU each; {most:.0f} MB at most, {before:.0f} before"
    )
    print(f"store        {cost * 1e3:.1f} ms of CPU each")
    return work, cost


async def kept(store: Store, threads: int) -> float:
    """Print what the store keeps of an exchange, in bytes, and return it."""
    await store.command("FLUSHALL")
    before = await memory(store)
    for exchange in range(EXCHANGES):
        numbers: Sequence[int] = range(threads * exchange, threads * (exchange + 1))
        await at_once([partial(whole_turn, store, number, threads) for number in numbers])
    each = (await memory(store) - before) / threads / EXCHANGES
    print(f"\n{threads} threads of {EXCHANGES} exchanges ({QUESTION} and {ANSWER} characters)")
    print(f"store        {each:.0f} bytes an exchange")
    return each


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1_000)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.turns, chosen.threads))
