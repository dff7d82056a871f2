"""Workers over a store, the turns that they are given, and what comes of these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from bot.concurrency import cancelled
from bot.domain import Person, Shown, ThreadKey, Turn
from bot.ports import Platform
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from bot.turns.conversation import Conversation
from bot.turns.history import History
from bot.turns.queue import Limits, Mend, Taken, Token, TurnQueue
from bot.turns.repair import Reconciler
from bot.turns.worker import Worker
from tests.support.fakes import FakeModel, FakePlatform

KEY = ThreadKey("console", "local", "ann", "t1")
LEASE = 0.3  # seconds
LONGEST = 20_000  # characters of an answer
LIMITS = Limits(waiting_per_thread=50, waiting_per_person=50, waiting=100, running_per_person=10)
WORDS = [f"word{number} " for number in range(30)]


def a_turn(number: int = 1, *, thread: str = "t1", text: str = "") -> Turn:
    key = replace(KEY, thread=thread)
    question = text or f"question {number}"
    return Turn(f"console:{number}", key, Person("u1", "Ann"), question, {}, 1000.0)


def a_queue(
    store: Store, name: str = "w1", *, lease: float = LEASE, limits: Limits = LIMITS
) -> TurnQueue:
    return TurnQueue(store=store, worker=name, limits=limits, lease_seconds=lease, keep_seconds=60)


def a_conversation(store: Store, model: FakeModel) -> Conversation:
    return Conversation(
        history=History(store=store, keep_seconds=60),
        model=model,
        budgets=EditBudgets(store=store),
        system_prompt="Be brief.",
        patience=2.0,
        longest=LONGEST,
    )


def a_worker(
    store: Store,
    platform: FakePlatform,
    model: FakeModel,
    *,
    name: str = "w1",
    capacity: int = 8,
    drain: float = 5.0,
    lease: float = LEASE,
    queue: TurnQueue | None = None,
) -> Worker:
    return Worker(
        queue=queue or a_queue(store, name, lease=lease),
        platforms={"console": platform, "slack": platform},
        conversation=a_conversation(store, model),
        capacity=capacity,
        lease_seconds=lease,
        drain_seconds=drain,
    )


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Event]:
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.run(stopping))
    try:
        yield stopping
    finally:
        stopping.set()
        async with asyncio.timeout(10):
            await task


async def all_ended(store: Store) -> None:
    queue = a_queue(store, "watcher")
    async with asyncio.timeout(10):
        while await queue.depth():
            await asyncio.sleep(0.02)


async def outcome(store: Store, number: int = 1) -> str:
    ended = await a_queue(store).ended(f"console:{number}")
    assert ended
    return ended.outcome


async def remembered(store: Store) -> list[tuple[str, str]]:
    exchanges = await History(store=store, keep_seconds=60).read(KEY)
    return [(exchange.question, exchange.answer) for exchange in exchanges]


async def ready(queue: TurnQueue, platform: str = "console") -> list[Token]:
    while not (tokens := await queue.ready([platform], count=1, block_seconds=0.1)):
        pass
    return tokens


async def take(queue: TurnQueue, platform: str = "console") -> Taken:
    (token,) = await ready(queue, platform)
    taken = await queue.take(token)
    assert taken
    return taken


async def expire(store: Store, token: Token, worker: str) -> None:
    """Let a lease run out without waiting for it."""
    await store.command(
        *("XCLAIM", store.key("ready", token.platform), "workers", worker),
        *(0, token.entry, "IDLE", 600_000, "JUSTID"),
    )


async def press(store: Store, number: int = 1, *, press_id: str = "p1") -> None:
    await a_queue(store).regenerate(f"console:{number}", person_id="u1", press_id=press_id)


@asynccontextmanager
async def mending(queue: TurnQueue, platform: Platform) -> AsyncIterator[None]:
    """Mend as a worker does besides its work."""
    mender = Reconciler(
        queue=queue,
        platforms={platform.name: platform},
        conversation=a_conversation(queue.store, FakeModel()),
        lease_seconds=LEASE,
    )
    task = asyncio.create_task(mender.run())
    try:
        yield
    finally:
        await cancelled(task)


async def given_up_unseen(queue: TurnQueue, turn: Turn | None = None) -> None:
    turn = turn or a_turn()
    await queue.admit(turn)
    await queue.back(await take(queue, turn.key.platform), delay_seconds=0, counts=True)
    await queue.finish(await take(queue, turn.key.platform), Shown(outcome="dead"), None)


async def shows(platform: FakePlatform, screen: dict[str, str]) -> None:
    async with asyncio.timeout(8):
        while {name: page.text for name, page in platform.shown.screen.items()} != screen:
            await asyncio.sleep(0.02)


async def to_mend(store: Store) -> int:
    return int(await store.command("ZCARD", store.key("mend", "console")))


async def all_mended(store: Store) -> None:
    async with asyncio.timeout(10):
        while await to_mend(store):
            await asyncio.sleep(0.02)


async def due(queue: TurnQueue, *, patience: float = 60.0) -> Mend:
    async with asyncio.timeout(10):
        while not (mend := await queue.mend("console", patience=patience)):
            await asyncio.sleep(0.02)
    return mend
