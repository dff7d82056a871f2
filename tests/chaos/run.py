"""One run: processes, people and faults, and then the judge."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.domain import Exchange
from bot.history import decode
from tests.chaos.faults import World
from tests.chaos.fleet import fleet
from tests.chaos.judge import KINDS, Verdict, judge
from tests.chaos.server import Server, server
from tests.chaos.talks import DiscordTalk, People, SlackTalk, Talk, answer
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.limits import Limits
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.outage import Wire
from tests.process import discord_variables, slack_variables

CREWS = (("discord", "slack", "worker"), ("discord", "slack", "worker"), ("worker",))
TALKS = 4  # of each kind on each platform, unless told otherwise
STARTING = 30.0  # seconds
RESTING = 120.0  # seconds after the last fault until every answer has to be there


@dataclass(frozen=True)
class Report:
    """What happened in a run; `str` is a table."""

    turns: int
    doubled: int
    faults: Counter[str]
    verdict: Verdict

    def __str__(self) -> str:
        counts = " · ".join(f"{kind} {self.verdict.counts[kind]}" for kind in KINDS)
        lines = [f"turns {self.turns} · events delivered twice {self.doubled}", counts]
        lines += [f"{name}: {number}" for name, number in self.faults.most_common()]
        if found := self.verdict.recoveries:
            middle, worst = statistics.median(found), max(found)
            lines.append(f"recovery of {len(found)}: median {middle:.2f} s, worst {worst:.2f} s")
        return "\n".join([*lines, *self.verdict.problems])


async def run(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    names: Sequence[str],
    pause: float,
    most: int = -1,
    each: int = TALKS,
) -> Report:
    """Let faults of these names strike for so long, `pause` seconds apart on average, and judge.

    It is over after `most` faults, if that is sooner.
    """
    rng = random.Random(seed)
    report: Report | None = None
    try:
        async with _world(folder, rng) as world:
            people = People(_talks(world, each), rng)
            ending = asyncio.Event()
            asking = asyncio.create_task(people.ask(ending))
            try:
                await _strike(world, seconds=seconds, names=names, pause=pause, most=most)
            finally:
                ending.set()
                await asking
            report = await _judged(world, people)
    except AssertionError as error:
        # What the emulators have to say when they end is a part of the judgement.
        if report is None:
            raise
        report.verdict.problems.append(str(error))
    return report


async def _strike(
    world: World, *, seconds: float, names: Sequence[str], pause: float, most: int
) -> None:
    clock = asyncio.get_running_loop().time
    ends = clock() + seconds
    # A fault is never left half way: what it broke would stay so.
    while clock() < ends and world.done.total() != most:
        await asyncio.sleep(world.rng.expovariate(1 / pause))
        await world.fleet.hears()
        await world.strike(world.rng.choice(names))


async def _judged(world: World, people: People) -> Report:
    await _rest(world, people.talks)
    verdict = judge(
        people.talks,
        asked=world.model.requests,
        remembered=await _remembered(world.server),
        killed=world.killed,
        logs=world.fleet.texts,
    )
    return Report(people.turns, people.doubled, world.done, verdict)


@asynccontextmanager
async def _world(folder: Path, rng: random.Random) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelEmulator())
        model.answer, model.chunk, model.delay = answer, 12, 0.03
        discord = await stack.enter_async_context(DiscordEmulator(limits=_many_threads()))
        slack = await stack.enter_async_context(SlackEmulator())
        store = await stack.enter_async_context(server(folder))
        wires = {
            "discord": await stack.enter_async_context(Wire(discord.api_url)),
            "slack": await stack.enter_async_context(Wire(slack.api_url)),
            "model": await stack.enter_async_context(Wire(model.url)),
        }
        variables = _variables(discord, slack, model, wires) | {"REDIS_URL": store.line.url}
        crew = await stack.enter_async_context(fleet(folder, variables, CREWS))
        await asyncio.wait_for(discord.connected.wait(), STARTING)
        await asyncio.wait_for(slack.connected.wait(), STARTING)
        yield World(rng, crew, store, discord, slack, model, wires)


def _many_threads() -> Limits:
    """Return limits under which a run does not wait for the quota of new threads."""
    return Limits(thread=(1000, 300.0))


def _variables(
    discord: DiscordEmulator, slack: SlackEmulator, model: ModelEmulator, wires: dict[str, Wire]
) -> dict[str, str]:
    return (
        discord_variables(discord, model)
        | slack_variables(slack, model)
        | {
            "DISCORD_API_URL": wires["discord"].url,
            "SLACK_API_URL": wires["slack"].url,
            "MODEL_URL": wires["model"].url,
        }
    )


def _talks(world: World, each: int) -> list[Talk]:
    talks: list[Talk] = []
    for number in range(each):
        for dm in (True, False):
            kind = "DM" if dm else "thread"
            talks.append(DiscordTalk(world.discord, f"D-{kind}-{number}", dm=dm))
            talks.append(SlackTalk(world.slack, f"S-{kind}-{number}", dm=dm))
    return talks


async def _rest(world: World, talks: Sequence[Talk]) -> None:
    """Let all go well from now on, and wait for the answers that are still to come."""
    world.heal()
    try:
        async with asyncio.timeout(RESTING):
            while not all(_is_at_rest(talk) for talk in talks):
                await asyncio.sleep(0.1)
            while await world.server.redis.keys("*mailbox:*"):
                await asyncio.sleep(0.1)
    except TimeoutError:
        return


def _is_at_rest(talk: Talk) -> bool:
    return talk.is_answered() and not any(one.startswith("stop") for one in talk.buttons())


async def _remembered(store: Server) -> list[list[Exchange]]:
    names = await store.redis.keys("*history:*")
    lines = [await store.redis.lrange(name, 0, -1) for name in names]
    return [[decode(str(line)) for line in thread] for thread in lines]
