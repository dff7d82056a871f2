"""What goes wrong, by name; each fault is over when its coroutine returns."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from redis.exceptions import RedisError

from tests.chaos.fleet import Crew, Fleet, Server
from tests.chaos.judge import Kill
from tests.chaos.matrix import Homeserver
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.edge import Call as DiscordCall
from tests.emulators.faults import Fault
from tests.emulators.model import How, ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.web import Call as SlackCall
from tests.support.matrix_proxy import Call as ProxyCall
from tests.support.matrix_proxy import MatrixProxy
from tests.support.outage import Line
from tests.support.process import PROCESS_LEASE, BotProcess

_WRITES_DISCORD = "(POST|PATCH) /channels/"
_WRITES_SLACK = "chat\\."
_ANSWERS = "POST /v1/chat/completions"
# Seconds for which a fault waits for its moment; people go on asking, on a busy machine slowly.
AMBUSH = 120.0


@dataclass(frozen=True, slots=True)
class MatrixCall:
    """A call of Matrix, as the others are."""

    call: str
    status: int
    body: Any


Call = DiscordCall | SlackCall | MatrixCall


class Slowed(Protocol):
    """What answers late, by so many seconds; `requests` are those it got."""

    latency: float

    @property
    def requests(self) -> Sized: ...


class Planted(Protocol):
    """What goes wrong `times` more times."""

    times: int


@dataclass
class World:
    """All that can go wrong; `said` is set when somebody has asked.

    `done` counts the faults by name, and `effects` what they did: see FAULTS.
    """

    rng: random.Random
    fleet: Fleet
    server: Server
    discord: DiscordEmulator
    slack: SlackEmulator
    model: ModelEmulator
    crews: Sequence[Crew]
    matrix: Homeserver | None = None
    said: asyncio.Event = field(default_factory=asyncio.Event)
    done: Counter[str] = field(default_factory=Counter)
    kills: list[Kill] = field(default_factory=list)
    _effects: Counter[str] = field(default_factory=Counter)
    _planted: list[tuple[str, Planted, int]] = field(default_factory=list)
    _waiting: list[Callable[[Call, BotProcess | None], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.discord.watch(self._seen)
        self.slack.watch(self._seen)

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    async def strike(self, name: str) -> None:
        """Let one fault happen, and count its effects."""
        did = await FAULTS[name].strike(self)
        if isinstance(did, int):
            self._effects[name] += did
        else:
            self._planted += [(name, fault, fault.times) for fault in did]

    @property
    def effects(self) -> Counter[str]:
        planted = Counter[str]()
        for name, fault, times in self._planted:
            planted[name] += times - fault.times
        return self._effects + planted

    async def kill(self, *victims: BotProcess) -> int:
        """Kill processes that run, all at once, and remember what they were at work on."""
        at = time.monotonic()
        for victim in victims:
            victim.kill()
        await self.remember(at, *victims)
        return len(victims)

    async def remember(self, at: float, *victims: BotProcess) -> None:
        gone = {one.process.pid for one in victims}
        up = frozenset(one.process.pid for one in self.fleet.up()) - gone
        for pid in gone:
            held = frozenset[int]()
            # Where the store is away nobody knows.
            with suppress(RedisError, OSError):
                held = await self.server.held_by(pid)
            self.kills.append(Kill(at, held, pid, up))

    async def kill_at(self, moment: Callable[[Call], bool]) -> int:
        """Kill the process whose call this is: its work is done, and it will never hear of it."""
        struck = asyncio.get_running_loop().create_future()

        def see(call: Call, victim: BotProcess | None) -> None:
            if victim and not struck.done() and call.status == 200 and moment(call):
                victim.kill()
                struck.set_result((time.monotonic(), victim))

        self._waiting.append(see)
        try:
            async with asyncio.timeout(AMBUSH):
                await self.remember(*await struck)
                return 1
        except TimeoutError:
            return 0
        finally:
            self._waiting.remove(see)

    def wires(self, name: str) -> list[Line]:
        """Return the ways of all processes to this one, or of one of them."""
        wires = [crew.wires[name] for crew in self.crews]
        return self.rng.choice([wires, *([one] for one in wires)])

    def heal(self) -> None:
        """End what has not struck yet."""
        for emulator in (self.discord, self.slack, self.model):
            emulator.heal()
        for proxy in self.proxies:
            proxy.heal()

    @property
    def proxies(self) -> Sequence[MatrixProxy]:
        return self.matrix.proxies if self.matrix else ()

    def seen_at_proxy(self, number: int, call: ProxyCall, body: bytes, _: bytes) -> None:
        """Look at a call of a crew's process to Matrix, whose answer is not sent yet."""
        if self._waiting and "/send/" in call.call:
            found = MatrixCall(call.call, call.status, json.loads(body))
            self._tell(found, self.fleet.running(number))

    def _seen(self, call: DiscordCall | SlackCall) -> None:
        self._tell(call, self.fleet.behind(call.port))

    def _tell(self, call: Call, victim: BotProcess | None) -> None:
        for see in list(self._waiting):
            see(call, victim)


async def kill(world: World) -> int:
    """A process is gone from one instruction to the next."""
    victim = world.fleet.victim(world.rng)
    return await world.kill(victim) if victim else 0


async def kill_at_admission(world: World) -> int:
    """Those who hear of a question, or one of them, are gone while they admit it."""
    world.said.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(AMBUSH):
            await world.said.wait()
    await asyncio.sleep(world.between(0.0, 0.02))
    hearing = world.fleet.hearing()
    victims = world.rng.choice([hearing, *([one] for one in hearing)])
    return await world.kill(*victims)


async def freeze(world: World) -> int:
    """A process stands still for longer than its leases, and then goes on as if nothing were."""
    victim = world.fleet.victim(world.rng)
    if victim is None:
        return 0
    victim.pause()
    await asyncio.sleep(world.between(1.5, 4) * PROCESS_LEASE)
    if victim.process.returncode is None:
        victim.wake()
    return 1


async def end(world: World) -> int:
    """A process is told to end, as by every deployment."""
    victim = world.fleet.victim(world.rng)
    if victim:
        victim.process.terminate()
    return int(bool(victim))


async def lose_answers(world: World) -> Iterable[Planted]:
    """The platforms do what they are asked, or not, and their answers are lost."""
    how = world.rng.choice((True, False))
    return (
        world.discord.fail(_WRITES_DISCORD, "drop", times=2, applied=how),
        world.slack.fail(_WRITES_SLACK, "drop", times=2, applied=how),
        *(proxy.lose_answer(times=2, applied=how) for proxy in world.proxies),
    )


async def slow_answers(world: World) -> int:
    """Every call to a platform takes long."""
    slow: list[Slowed] = [world.discord, world.slack, *world.proxies]
    before = sum(len(one.requests) for one in slow)
    seconds = world.between(0.2, 0.6)
    for one in slow:
        one.latency = seconds
    await asyncio.sleep(2)
    for one in slow:
        one.latency = 0.0
    return sum(len(one.requests) for one in slow) - before


async def refuse_calls(world: World) -> Iterable[Planted]:
    """The platforms answer with errors of their own."""
    status = world.rng.choice((500, 502, 503))
    return (
        world.discord.fail(_WRITES_DISCORD, status=status, times=2),
        world.slack.fail(_WRITES_SLACK, error="internal_error", times=2),
        *(proxy.fail(status, times=2) for proxy in world.proxies),
    )


async def cut_gateways(world: World) -> int:
    """The platforms' events stop in the middle."""
    return await world.discord.cut() + await world.slack.cut()


async def break_answers(world: World) -> Iterable[Fault]:
    """The model breaks an answer off."""
    how: How = world.rng.choice(("drop", "reset", "eof"))
    return (world.model.fail(_ANSWERS, how, at_delta=world.rng.randint(0, 10)),)


async def lose_model(world: World) -> int:
    """The model refuses all that it is asked, for longer than a process tries again at once."""
    every = 1_000_000
    fault = world.model.fail(_ANSWERS, status=503, times=every)
    await asyncio.sleep(world.between(2.0, 8.0))
    left, fault.times = fault.times, 0
    return every - left


async def kill_redis(world: World, seconds: float | None = None) -> int:
    """Redis is killed, and comes back with what stands on its disk, by default within a second."""
    await world.server.kill()
    await asyncio.sleep(world.between(0.0, 1.0) if seconds is None else seconds)
    await world.server.start()
    return 1


async def fill_redis(world: World) -> int:
    """Redis takes no writes for want of memory."""
    before = await world.server.writes_refused()
    await world.server.refuse_writes(True)
    await asyncio.sleep(world.between(0.5, 1.5))
    await world.server.refuse_writes(False)
    return await world.server.writes_refused() - before


async def kill_synapse(world: World) -> int:
    """Synapse is killed, and comes back with what stands on its disk."""
    if not world.matrix:
        return 0
    await asyncio.sleep(world.between(0.0, 1.0))
    await world.matrix.synapse.kill()
    await asyncio.sleep(world.between(0.0, 1.0))
    await world.matrix.synapse.start()
    return 1


async def _cut(world: World, *, name: str) -> int:
    ways = world.wires(name)
    broken = sum([await way.cut() for way in ways])
    await asyncio.sleep(world.between(0.1, 1.0))
    for way in ways:
        await way.mend()
    return broken


def _is_first_post(call: Call) -> bool:
    posts = r"POST /channels/\d+/messages|chat\.(postMessage|startStream)|PUT .*room\.message/.*"
    return bool(re.fullmatch(posts, call.call)) and "m.replace" not in json.dumps(call.body)


def _is_last_write(call: Call) -> bool:
    # The button stands below what is whole; Matrix has none, and each answer ends with a full stop.
    if isinstance(call, MatrixCall):
        return str(call.body.get("m.new_content", {}).get("body", "")).endswith(".")
    return '"regenerate' in json.dumps(call.body)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how it strikes, what its effects are, and what it needs for itself.

    `strike` returns how many effects it had, or what was planted and counts them. No other that
    needs the same is under way meanwhile. One that is `long` is for long runs only, and one that
    is `on` platforms for those with one of them.
    """

    strike: Callable[[World], Awaitable[int | Iterable[Planted]]]
    effects: str
    needs: str = ""
    long: bool = False
    on: Sequence[str] = ()


FAULTS: dict[str, Kind] = {
    "SIGKILL": Kind(kill, "processes killed"),
    "SIGKILL at admission": Kind(kill_at_admission, "processes killed", "said"),
    # Its message stands there, and it does not know the id yet.
    "SIGKILL at the first post": Kind(
        partial(World.kill_at, moment=_is_first_post), "processes killed", "ambush"
    ),
    # Its answer stands there, whole, and it cannot say so any more.
    "SIGKILL at the last write": Kind(
        partial(World.kill_at, moment=_is_last_write), "processes killed", "ambush"
    ),
    "SIGSTOP past the lease": Kind(freeze, "processes stopped", "freeze"),
    "SIGTERM": Kind(end, "processes ended"),
    "answers of platforms lost": Kind(lose_answers, "answers lost"),
    "platforms slow": Kind(slow_answers, "calls slowed", "latency"),
    "platforms fail": Kind(refuse_calls, "calls refused"),
    "gateways cut": Kind(cut_gateways, "connections cut", on=("discord", "slack")),
    "way to Discord cut": Kind(
        partial(_cut, name="discord"), "connections cut", "discord", on=("discord",)
    ),
    "way to Slack cut": Kind(
        partial(_cut, name="slack"), "connections cut", "slack", on=("slack",)
    ),
    "way to Matrix cut": Kind(
        partial(_cut, name="matrix"), "connections cut", "matrix", on=("matrix",)
    ),
    "Synapse killed": Kind(kill_synapse, "servers killed", "synapse", on=("matrix",)),
    "way to the model cut": Kind(partial(_cut, name="model"), "connections cut", "model"),
    "model breaks off": Kind(break_answers, "answers broken"),
    "model away": Kind(lose_model, "calls refused", "outage of the model"),
    "way to Redis cut": Kind(partial(_cut, name="redis"), "connections cut", "redis"),
    "Redis killed": Kind(kill_redis, "servers killed", "server"),
    "Redis full": Kind(fill_redis, "writes refused", "server"),
    "Redis away for 60 s": Kind(
        partial(kill_redis, seconds=60.0), "servers killed", "server", long=True
    ),
}
