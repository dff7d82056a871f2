"""What goes wrong, by name; each fault is over when its coroutine returns."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet
from tests.chaos.server import Server
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import How, ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.outage import Wire
from tests.process import LEASE

_WRITES_DISCORD = "(POST|PATCH) /channels/"
_WRITES_SLACK = "chat\\."
_ANSWERS = "POST /v1/chat/completions"


@dataclass
class World:
    """All that can go wrong; `killed` has the moments of all SIGKILLs, in monotonic seconds."""

    rng: random.Random
    fleet: Fleet
    server: Server
    discord: DiscordEmulator
    slack: SlackEmulator
    model: ModelEmulator
    wires: Mapping[str, Wire]
    done: Counter[str] = field(default_factory=Counter)
    killed: list[float] = field(default_factory=list)

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    async def strike(self, name: str) -> None:
        """Let one fault happen, and count it."""
        self.done[name] += 1
        await FAULTS[name](self)

    def heal(self) -> None:
        """End what has not struck yet."""
        for emulator in (self.discord, self.slack, self.model):
            emulator.heal()


async def kill(world: World) -> None:
    """A process is gone from one instruction to the next."""
    if victim := world.fleet.victim(world.rng):
        world.killed.append(time.monotonic())
        victim.kill()


async def freeze(world: World) -> None:
    """A process stands still for longer than its leases, and then goes on as if nothing were."""
    if victim := world.fleet.victim(world.rng):
        victim.pause()
        await asyncio.sleep(world.between(1.5, 4) * LEASE)
        victim.wake()


async def end(world: World) -> None:
    """A process is told to end, as by every deployment."""
    if victim := world.fleet.victim(world.rng):
        victim.process.terminate()


async def lose_answers(world: World) -> None:
    """The platforms do what they are asked, and their answers are lost."""
    how = world.rng.choice((True, False))
    world.discord.fail(_WRITES_DISCORD, "drop", times=2, applied=how)
    world.slack.fail(_WRITES_SLACK, "drop", times=2, applied=how)


async def slow_answers(world: World) -> None:
    """Every call to a platform takes long."""
    world.discord.latency = world.slack.latency = world.between(0.2, 0.6)
    await asyncio.sleep(2)
    world.discord.latency = world.slack.latency = 0.0


async def refuse_calls(world: World) -> None:
    """The platforms answer with errors of their own."""
    world.discord.fail(_WRITES_DISCORD, status=world.rng.choice((500, 502, 503)), times=2)
    world.slack.fail(_WRITES_SLACK, error="internal_error", times=2)


async def cut_gateways(world: World) -> None:
    """The platforms' events stop in the middle."""
    await world.discord.cut()
    await world.slack.cut()


async def cut_discord(world: World) -> None:
    await _cut(world, "discord")


async def cut_slack(world: World) -> None:
    await _cut(world, "slack")


async def cut_model(world: World) -> None:
    await _cut(world, "model")


async def break_answers(world: World) -> None:
    """The model breaks an answer off."""
    how: How = world.rng.choice(("drop", "reset", "eof"))
    world.model.fail(_ANSWERS, how, at_delta=world.rng.randint(0, 10))


async def cut_redis(world: World) -> None:
    await world.server.line.cut()
    await asyncio.sleep(world.between(0.1, 1.0))
    await world.server.line.mend()


async def kill_redis(world: World) -> None:
    """Redis is killed and comes back with what stands on its disk."""
    await world.server.kill()
    await asyncio.sleep(world.between(0.0, 1.0))
    await world.server.start()


async def fill_redis(world: World) -> None:
    """Redis takes no writes for want of memory."""
    await world.server.refuse_writes(True)
    await asyncio.sleep(world.between(0.5, 1.5))
    await world.server.refuse_writes(False)


async def lose_redis(world: World) -> None:
    """Redis is away for a minute."""
    await world.server.kill()
    await asyncio.sleep(60)
    await world.server.start()


async def _cut(world: World, name: str) -> None:
    await world.wires[name].cut()
    await asyncio.sleep(world.between(0.1, 1.0))
    await world.wires[name].mend()


FAULTS: dict[str, Callable[[World], Awaitable[None]]] = {
    "SIGKILL": kill,
    "SIGSTOP past the lease": freeze,
    "SIGTERM": end,
    "answers of platforms lost": lose_answers,
    "platforms slow": slow_answers,
    "platforms fail": refuse_calls,
    "gateways cut": cut_gateways,
    "way to Discord cut": cut_discord,
    "way to Slack cut": cut_slack,
    "way to the model cut": cut_model,
    "model breaks off": break_answers,
    "way to Redis cut": cut_redis,
    "Redis killed": kill_redis,
    "Redis full": fill_redis,
    "Redis away for 60 s": lose_redis,
}
