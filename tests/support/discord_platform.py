"""The Discord platform against the emulator, as a whole process or for one turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from adapters.discord.platform import DiscordPlatform, connect
from adapters.discord.reply.channel import ChannelAddress
from adapters.discord.settings import DiscordSettings
from adapters.discord.tuning import Tuning
from bot.concurrency import running
from bot.domain import Page, Person, Place, ThreadKey, Turn
from bot.intake.intake import Intake
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.discord import DiscordEmulator, GatewayRules
from tests.support.fakes import EmptyStore, FakeQueue, NoLimits, NotedIntake, RefusingStore, door
from tests.support.waiting import until

Shards = tuple[tuple[int, ...], int]

FAST = GatewayRules(identify_seconds=0.0)
# Sessions begin without a pause, and are saved soon.
QUICK = Tuning(start_pause=(0.0, 0.0), start_spacing=0.01, save_every=0.02)
# No second session begins within a test.
SLOW_STARTS = replace(QUICK, start_pause=(3600.0, 3600.0), longest_start_pause=3600.0)
# A process that saves no session, neither while it listens nor at its end.
KILLED = replace(QUICK, save_every=3600.0, last_save_within=0.0)


@asynccontextmanager
async def logged_in(
    emulator: DiscordEmulator,
    *,
    threads: bool = True,
    store: Store | None = None,
    gateway_url: str = "",
    budgets: EditBudgets | None = None,
    tuning: Tuning | None = None,
    shards: Shards | None = None,
    leaves_other_servers: bool = False,
) -> AsyncIterator[DiscordPlatform]:
    # A busy machine may take longer than Discord would wait.
    emulator.callback_seconds = 60.0
    own = DiscordSettings(
        token=emulator.token,
        api_url=emulator.api_url,
        gateway_url=gateway_url or emulator.gateway_url,
        threads=threads,
        shards=shards,
    )
    async with connect(
        own,
        budgets=budgets or (EditBudgets(store=store) if store else NoLimits()),
        tuning=tuning or Tuning(answer_within=60.0),
        leaves_other_servers=leaves_other_servers,
    ) as platform:
        yield platform


@asynccontextmanager
async def listening(
    emulator: DiscordEmulator, intake: Intake | FakeQueue, **options: Any
) -> AsyncIterator[DiscordPlatform]:
    """Listen without a store; the options are those of `logged_in`."""
    async with (
        logged_in(emulator, **options) as platform,
        running(platform.listener.listen(door(intake), store=EmptyStore())),
    ):
        await until(emulator.connected.is_set)
        yield platform


@asynccontextmanager
async def heard(
    *, refuses: Exception | None = None, message_content: bool = True, threads: bool = True
) -> AsyncIterator[tuple[DiscordEmulator, FakeQueue, str]]:
    """A Discord where the bot listens, what it asks of the queue, and Ada, a person there."""
    queue = FakeQueue()
    queue.refuses = refuses
    emulated = DiscordEmulator(message_content=message_content)
    async with emulated as emulator, listening(emulator, queue, threads=threads):
        yield emulator, queue, emulator.user("Ada")


def turn_at(place: Place, *, turn_id: str = "discord:1", text: str = "why?") -> Turn:
    key = ThreadKey("discord", "1", "2", "3")
    return Turn(turn_id, key, Person("9", "Ada"), text, place, time.time())


def channel_turn(emulator: DiscordEmulator, question: str, *, opens_thread: bool = True) -> Turn:
    place = ChannelAddress(int(emulator.channel_id), int(question), opens_thread=opens_thread)
    return turn_at(place.to_json(), turn_id=f"discord:{question}")


def dm_turn(emulator: DiscordEmulator) -> Turn:
    channel = emulator.dm(emulator.user("Ada"))
    return turn_at(ChannelAddress(int(channel), None, opens_thread=False).to_json())


def page(text: str, *, number: int = 0, final: bool = False, last: bool = False) -> Page:
    return Page(number, text, final or last, last=last)


def snowflake_of(moment: float) -> int:
    return int((moment - 1_420_070_400) * 1000) << 22


@asynccontextmanager
async def running_process(
    emulator: DiscordEmulator,
    intake: Intake | FakeQueue,
    store: Store,
    *,
    shards: Shards | None = None,
    gateway_url: str | None = None,
    tuning: Tuning = QUICK,
    hearing: int | None = None,
) -> AsyncIterator[DiscordPlatform]:
    """Listen like a process of its own, which ends as one does on SIGTERM.

    Each of its shards hears what is said from now on, or so many of them as `hearing`.
    """
    awaited = hearing or len(shards[0] if shards else (0,))
    wanted = emulator.sessions + emulator.resumes + awaited
    async with (
        logged_in(
            emulator, gateway_url=gateway_url or "", tuning=tuning, shards=shards
        ) as platform,
        running(platform.listener.listen(door(intake), store=store)) as task,
    ):
        await until(lambda: emulator.sessions + emulator.resumes >= wanted or task.done())
        yield platform


class Hidden:
    """A record in Redis that Redis cannot tell of, as if it were away, until it is `back`.

    `former` is what stood there, where a session does.
    """

    def __init__(self, store: Store, emulator: DiscordEmulator, *name: str) -> None:
        self.former: dict[str, str] = {}
        assert isinstance(store, RefusingStore)
        self._store = store
        self._name = store.key("gateway", emulator.application_id, *(name or ("all", "session")))

    async def hide(self) -> None:
        self._store.refused.add(self._name)

    async def spoil(self) -> None:
        """Let it name a session that Discord has ended."""
        await self._store.redis.execute_command("HSET", self._name, "id", "ended")  # type: ignore[no-untyped-call]

    async def back(self) -> None:
        self._store.refused.remove(self._name)


async def saved(store: Store) -> dict[str, str]:
    for name in await store.command("KEYS", store.key("gateway", "*", "session")):
        return dict(await store.command("HGETALL", name))
    return {}


async def until_saved(store: Store, seq: int) -> None:
    async with asyncio.timeout(60):
        while (found := await saved(store)).get("servers") != "" or int(found["seq"]) < seq:
            await asyncio.sleep(0.01)


async def until_pending(store: Store, *, but: str) -> None:
    """Wait until another session than this is saved; its catch-up must not have ended."""
    async with asyncio.timeout(60):
        while (await saved(store))["id"] == but:
            await asyncio.sleep(0.01)
    assert (await saved(store))["servers"]


async def until_heard(store: Store, message: str) -> None:
    """Wait until it is saved that this message was dealt with."""
    async with asyncio.timeout(60):
        while True:
            for name in await store.command("KEYS", store.key("gateway", "*", "heard")):
                heard = await store.command("HVALS", name)
                if heard and max(map(int, heard)) >= int(message):
                    return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def after_a_session(
    store: Store, *, rules: GatewayRules = FAST
) -> AsyncIterator[tuple[DiscordEmulator, str]]:
    """A Discord where a process has listened, and Ada, a person there; the session is over."""
    async with DiscordEmulator(gateway=rules) as emulator:
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        emulator.clock.advance(3600)
        yield emulator, emulator.user("Ada")


async def make_hidden_session(emulator: DiscordEmulator, store: Store) -> tuple[str, Hidden]:
    """Return Ada, a person, and the session of an ended process, of which Redis cannot tell.

    She has told "one" since, in a DM that is new: who begins a session of its own does not hear it.
    """
    ada, hidden = emulator.user("Ada"), Hidden(store, emulator)
    async with running_process(emulator, FakeQueue(), store):
        await until_saved(store, 1)
    hidden.former = await saved(store)
    await emulator.say(emulator.dm(ada), ada, "one")
    await hidden.hide()
    return ada, hidden


async def our_thread(
    emulator: DiscordEmulator, platform: DiscordPlatform, turns: FakeQueue | NotedIntake
) -> str:
    """Return a thread that the bot opened, for the last turn in a channel."""
    turn = next(each for each in reversed(turns.turns) if each.place["opens_thread"])
    async with platform.surface(turn):
        return emulator.thread_of(turn.id.removeprefix("discord:")) or ""


def said(*texts: str) -> list[str]:
    """Return what the emulated model answers to these."""
    return [f"You said: {text}" for text in texts]
