"""One run: processes, people and faults, and then the judge."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from bot.domain import Exchange
from bot.store import connect
from tests.chaos.faults import FAULTS, World
from tests.chaos.fleet import Crew, Server, fleet, server
from tests.chaos.judge import Recovery, Verdict, judge, recoveries
from tests.chaos.matrix import MatrixTalk, homeserver
from tests.chaos.people import CHANGES, People
from tests.chaos.screens import ENDS, EXTRAS, read_talk
from tests.chaos.talks import DiscordTalk, SlackTalk, Talk, answer
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.limits import Limits
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.matrix_proxy import in_front_of
from tests.support.outage import Line, SocketLine, Wire
from tests.support.process import (
    PROCESS_LEASE,
    discord_variables,
    model_variables,
    slack_variables,
    threads,
)

PLATFORMS = ("discord", "slack", "matrix")
HEARS = (True, True, False)  # whether each process hears the platforms; all answer
TALKS = 3  # of each kind on each platform, unless told otherwise
# Seconds after the last fault until every answer has to be there: Slack tells of an event for the
# last time five minutes after it told it first.
RESTING = 330.0
# After that: late writes are deleted, by another worker if the first is gone (turns/repair.py).
MENDING = 40 * PROCESS_LEASE  # seconds
AT_ONCE = 2  # faults
LONG_APART = 600.0  # seconds from a fault that lasts long to the next one of that kind
_ADDRESSES = {
    "discord": "DISCORD_API_URL",
    "slack": "SLACK_API_URL",
    "matrix": "MATRIX_HOMESERVER",
    "model": "MODEL_URL",
    "redis": "REDIS_URL",
}
_LIMITS = Limits(thread=(1000, 300.0))  # nobody waits for the quota of new threads
# A fault that has struck so often and had no effect tests nothing.
_IN_VAIN = 3


@dataclass(frozen=True)
class Report:
    """What happened in a run; `str` is a table.

    `late` are the delays of this process's own loop, in seconds: on a machine that is too busy for
    the people and the emulators, recoveries are late for that reason.
    """

    people: People
    faults: Counter[str]
    effects: Counter[str]
    recoveries: Sequence[Recovery]
    late: Sequence[float]
    verdict: Verdict

    def __str__(self) -> str:
        counts = self.verdict.counts
        alone = [one.seconds for one in self.recoveries if not one.others]
        attended = [one.seconds for one in self.recoveries if one.attended]
        long = 2 * PROCESS_LEASE
        lines = [
            f"turns {self.people.turns} · events delivered twice {self.people.doubled}",
            " · ".join(f"{change} {self.people.changes[change]}" for change in CHANGES),
            " · ".join(f"{end} {counts[end]}" for end in ENDS),
            "besides: " + " · ".join(f"{extra} {counts[extra]}" for extra in EXTRAS),
            *(self._line(name) for name, _ in self.faults.most_common()),
            f"recovery: {_spread([one.seconds for one in self.recoveries], above=long)}",
            f"without another SIGKILL: {_spread(alone, above=long)}",
            f"with another process up all the time: {_spread(attended, above=long)}",
            f"delays of the loop that emulates: {_spread(self.late, above=0.1)}",
        ]
        return "\n".join([*lines, *self.verdict.problems])

    def _line(self, name: str) -> str:
        return f"{name}: {self.faults[name]}, {self.effects[name]} {FAULTS[name].effects}"


def _spread(seconds: Sequence[float], *, above: float) -> str:
    if not seconds:
        return "none"
    found = sorted(seconds)
    middle, rare = statistics.median(found), found[int(0.95 * (len(found) - 1))]
    many = sum(one > above for one in found)
    return (
        f"{len(found)}, median {middle:.2f} s, 95th percentile {rare:.2f} s,"
        f" worst {found[-1]:.2f} s, {many} above {above:.1f} s"
    )


async def run(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    names: Sequence[str],
    pause: float,
    most: int = -1,
    each: int = TALKS,
    hears: Sequence[bool] = HEARS,
    platforms: Sequence[str] = PLATFORMS,
    traces: Path | None = None,
) -> Report:
    """Let faults of these names strike for so long, `pause` seconds apart on average, and judge.

    It is over after `most` faults, if that is sooner. There is a process for each of `hears`, and
    `traces` is a folder for what is left.
    """
    rng = random.Random(seed)
    names = [it for it in names if not FAULTS[it].on or {*FAULTS[it].on} & {*platforms}]
    report: Report | None = None
    try:
        async with _world(folder, rng, hears, platforms) as world:
            people = People(_talks(world, each, platforms), rng, world.said, world.model.requests)
            late: list[float] = []
            watching = asyncio.create_task(_watch_the_loop(late))
            ending = asyncio.Event()
            asking = asyncio.create_task(people.ask(ending))
            try:
                await _strike(world, seconds=seconds, names=names, pause=pause, most=most)
            finally:
                ending.set()
                await asking
                watching.cancel()
            report = await _judged(world, people, late)
            if traces:
                await _keep(world, people.talks, traces)
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
    ends, next_long = clock() + seconds, 0.0
    under_way: dict[asyncio.Task[None], str] = {}
    # A fault is never left half way: what it broke would stay so.
    async with asyncio.TaskGroup() as striking:
        while clock() < ends and world.done.total() != most:
            await asyncio.sleep(world.rng.expovariate(1 / pause))
            await world.fleet.hears()
            if len(under_way) >= AT_ONCE:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            due = [name for name in names if clock() >= next_long or not FAULTS[name].long]
            # Each kind as often as any other: a short run leaves none out.
            fewest = min((world.done[name] for name in due), default=0)
            needed = {FAULTS[name].needs for name in under_way.values()} - {""}
            rare = [name for name in due if world.done[name] == fewest]
            if free := [name for name in rare if FAULTS[name].needs not in needed]:
                name = world.rng.choice(free)
                if FAULTS[name].long:
                    next_long = clock() + LONG_APART
                world.done[name] += 1
                task = striking.create_task(world.strike(name))
                under_way[task] = name
                task.add_done_callback(under_way.pop)


async def _watch_the_loop(late: list[float]) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + 0.1
        await asyncio.sleep(0.1)
        late.append(clock() - due)


async def _judged(world: World, people: People, late: Sequence[float]) -> Report:
    await _rest(world, people.talks)
    if world.matrix:
        await world.matrix.look_at_last()
    asked, remembered = world.model.requests, await _remembered(world.server)
    verdict = judge(people.talks, asked=asked, remembered=remembered, logs=world.fleet.texts)
    verdict.problems += [
        f"{name} has struck {times} times and done nothing"
        for name, times in world.done.items()
        if times >= _IN_VAIN and not world.effects[name]
    ]
    if world.matrix:
        verdict.problems += [one async for one in world.matrix.problems()]
    found = recoveries(asked, world.kills)
    return Report(
        people=people,
        faults=world.done,
        effects=world.effects,
        recoveries=found,
        late=late,
        verdict=verdict,
    )


@asynccontextmanager
async def _world(
    folder: Path, rng: random.Random, processes: Sequence[bool], platforms: Sequence[str]
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelEmulator())
        model.answer, model.chunk, model.delay = answer, 12, 0.03
        discord = await stack.enter_async_context(DiscordEmulator(limits=_LIMITS))
        slack = await stack.enter_async_context(SlackEmulator())
        matrix = (
            await stack.enter_async_context(homeserver(folder)) if "matrix" in platforms else None
        )
        store = await stack.enter_async_context(server(folder))
        crews: list[Crew] = []
        for hears in processes:
            wires: dict[str, Line] = {
                "discord": await stack.enter_async_context(Wire(discord.api_url)),
                "slack": await stack.enter_async_context(Wire(slack.api_url)),
                "model": await stack.enter_async_context(Wire(model.url)),
                "redis": await stack.enter_async_context(
                    SocketLine(server=store.socket, socket=folder / f"line-{len(crews)}")
                ),
            }
            variables = model_variables(model) | {"REDIS_URL": ""}
            if "discord" in platforms:
                variables |= discord_variables(discord)
            if "slack" in platforms:
                variables |= slack_variables(slack)
            if matrix:
                proxy = await stack.enter_async_context(in_front_of(matrix.synapse.url))
                matrix.proxies.append(proxy)
                wires["matrix"] = await stack.enter_async_context(Wire(proxy.url))
                variables |= {"MATRIX_HOMESERVER": "", "MATRIX_TOKEN": matrix.account.token}
            for name, variable in _ADDRESSES.items():
                if variable in variables:
                    variables[variable] = wires[name].url
            crews.append(Crew((*(platforms if hears else ()), "worker"), variables, wires))
        crew = await stack.enter_async_context(fleet(folder, crews))
        for name, emulator in (("discord", discord), ("slack", slack)):
            if name in platforms:
                await asyncio.wait_for(emulator.connected.wait(), 30)
        world = World(rng, crew, store, discord, slack, model, crews, matrix)
        if matrix:
            for number, proxy in enumerate(matrix.proxies):
                proxy.watch = partial(world.seen_at_proxy, number)
        yield world
        # Where the way to the model is cut, the bot asks as if it were another kind of server.
        model.unknown.clear()


def _talks(world: World, each: int, platforms: Sequence[str]) -> list[Callable[[int], Talk]]:
    found: list[Callable[[int], Talk]] = []
    for kind in ("DM", "thread", "joined") * each:
        forgotten = world.server.forgotten
        if "discord" in platforms:
            found.append(partial(DiscordTalk, world.discord, forgotten, kind))
        if "slack" in platforms:
            found.append(partial(SlackTalk, world.slack, forgotten, kind))
        if world.matrix:
            found.append(partial(MatrixTalk, world.matrix, forgotten, kind))
    return found


async def _rest(world: World, talks: Sequence[Talk]) -> None:
    """Let all go well from now on, and wait for what is still to come, and to be taken away."""
    world.heal()
    with suppress(TimeoutError):
        async with asyncio.timeout(RESTING):
            while not all(talk.is_answered() and not talk.is_stoppable() for talk in talks):
                await asyncio.sleep(0.1)
            while await world.server.redis.keys("*mailbox:*"):
                await asyncio.sleep(0.1)
    with suppress(TimeoutError):
        async with asyncio.timeout(MENDING):
            while any(read_talk(talk).extras for talk in talks):
                await asyncio.sleep(0.1)


async def _remembered(store: Server) -> list[list[Exchange]]:
    async with connect(url=f"unix://{store.socket}", data_dir=Path()) as opened:
        return await threads(opened)


async def _keep(world: World, talks: Iterable[Talk], folder: Path) -> None:
    """Write what each process logged, each call to a platform, each turn's record and each kill.

    Also what was said in each talk and what it shows, and how sessions of Discord went on. Times
    are monotonic seconds, but for the logs'.
    """
    redis = world.server.redis
    names = sorted(await redis.keys("*turn:*"))
    turns = [{"key": name, **await redis.hgetall(name)} for name in names]
    calls = [asdict(call) for call in world.discord.requests]
    calls += [asdict(call) for call in world.slack.requests]
    texts = {f"{number:04}.log": text for number, text in enumerate(world.fleet.texts)}
    texts |= {
        "calls.jsonl": _lines(sorted(calls, key=itemgetter("at"))),
        "turns.jsonl": _lines(turns),
        "talks.jsonl": _lines(map(_talk, talks)),
        "sessions.jsonl": _lines(map(asdict, world.discord.handshakes)),
        "kills": "\n".join(map(str, world.kills)),
    }
    _write(folder, texts)


def _talk(talk: Talk) -> dict[str, Any]:
    numbers = (*talk.asked, *talk.former, *talk.gone)
    messages = {number: talk.message_of(number) for number in sorted(numbers)}
    return {
        "name": talk.name,
        "asked": talk.asked,
        "former": talk.former,
        "gone": talk.gone,
        "changed": talk.changed,
        "remarks": talk.remarks,
        "messages": messages,
        "shown": talk.shown(),
    }


def _lines(values: Iterable[dict[Any, Any]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False, default=str) + "\n" for value in values)


def _write(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
