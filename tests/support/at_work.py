"""Workers over a store, the turns that they are given, and what comes of these."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from bot.concurrency import Backoff, cancelled
from bot.domain import Person, Place, Shown, ThreadKey, Turn
from bot.ports import Model, Platform
from bot.reply.edit_budget import EditBudgets
from bot.store import Store, connect
from bot.text.prompt import SystemPrompt
from bot.tools.toolbox import Toolbox
from bot.turns.context import ContextReader
from bot.turns.conversation import Conversation
from bot.turns.files import FileReader
from bot.turns.queue import Repair, Taken, TurnLeases, TurnQueue
from bot.turns.records import History
from bot.turns.repair import Reconciler, WorkPolicy
from bot.turns.script import Limits, QueueScript
from bot.turns.worker import Worker
from tests.support.fakes import FakePlatform
from tests.support.outage import SocketLine, line
from tests.support.waiting import until

KEY = ThreadKey("console", "local", "ann", "t1")
ANN, BOB = Person("u1", "Ann"), Person("u2", "Bob")
LEASE = 0.5  # seconds
KEEP = 60.0  # seconds
LIMITS = Limits(waiting_per_thread=50, waiting_per_person=50, waiting=100, running_per_person=10)
POLICY = WorkPolicy(
    longest_read=0.05, store_pause=0.05, repair_retry=Backoff(0.05, 60.0), save_leases=0.3
)
WORDS = [f"word{number} " for number in range(30)]

_Leases = TypeVar("_Leases", bound=TurnLeases)


def make_turn(
    number: int = 1,
    *,
    thread: str = "t1",
    key: ThreadKey | None = None,
    person: Person = ANN,
    text: str = "",
    place: Place | None = None,
) -> Turn:
    key = key or replace(KEY, thread=thread)
    return Turn(f"console:{number}", key, person, text or f"question {number}", place or {}, 1000.0)


def make_queue(
    store: Store,
    worker: str = "w1",
    *,
    lease: float = LEASE,
    limits: Limits = LIMITS,
    late_write_leases: float = 0.2,
    own_names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> TurnQueue:
    return TurnQueue(
        store=store,
        worker=worker,
        limits=limits,
        lease_seconds=lease,
        keep_seconds=KEEP,
        late_write_leases=late_write_leases,
        own_names=own_names,
    )


def make_leases(kind: type[_Leases], store: Store, *, lease: float = LEASE) -> _Leases:
    """Make leases of another class; to be handed to a worker."""
    script = QueueScript(store, keep_seconds=KEEP)
    return kind(script, worker="w1", limits=LIMITS, lease_seconds=lease, late_write_seconds=0.0)


def make_conversation(
    store: Store, model: Model, *, tools: Toolbox | None = None, patience: float = 2.0
) -> Conversation:
    history = History(store=store, keep_seconds=KEEP)
    return Conversation(
        history=history,
        model=model,
        budgets=EditBudgets(store=store),
        system_prompt=SystemPrompt("Be brief.", adds_line=False),
        patience=patience,
        context=ContextReader(queue=make_queue(store), history=history, most=50),
        files=FileReader(most=3, most_mb=1),
        tools=tools,
    )


def make_worker(
    store: Store,
    platform: FakePlatform,
    model: Model,
    *,
    name: str = "w1",
    capacity: int = 8,
    drain: float = 5.0,
    lease: float = LEASE,
    late_write_leases: float = 3,
    leases: TurnLeases | None = None,
    policy: WorkPolicy = POLICY,
    tools: Toolbox | None = None,
    patience: float = 2.0,
) -> Worker:
    queue = make_queue(store, name, lease=lease, late_write_leases=late_write_leases)
    queue.leases = leases or queue.leases
    return Worker(
        queue=queue,
        platforms={"console": platform, "slack": platform},
        conversation=make_conversation(store, model, tools=tools, patience=patience),
        capacity=capacity,
        lease_seconds=lease,
        drain_seconds=drain,
        policy=policy,
    )


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Event]:
    """Run a worker; yields what stops it."""
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.run(stopping))
    try:
        yield stopping
    finally:
        stopping.set()
        async with asyncio.timeout(60):
            await task


@asynccontextmanager
async def cuttable(store: Store, valkey_url: str) -> AsyncIterator[tuple[SocketLine, Store]]:
    """Yields a way to the store that can be cut, and the store at its end."""
    prefix = store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            line(valkey_url, folder) as way,
            connect(url=way.url, data_dir=folder, prefix=prefix) as there,
        ):
            yield way, there


async def answer(
    store: Store, platform: FakePlatform, model: Model, *turns: Turn, **how: Any
) -> None:
    """Admit turns, and let a worker answer all that wait."""
    async with working(make_worker(store, platform, model, **how)):
        for turn in turns:
            await make_queue(store).admit(turn)
        await all_ended(store)


async def all_ended(store: Store) -> None:
    queue = make_queue(store, "watcher")
    async with asyncio.timeout(60):
        while (await queue.load([])).open:
            await asyncio.sleep(0.01)


async def outcome(store: Store, number: int = 1) -> str:
    result = await make_queue(store).lookup.result(f"console:{number}")
    assert result
    return result.outcome


async def remembered(store: Store) -> list[tuple[str, str]]:
    exchanges = await History(store=store, keep_seconds=KEEP).read(KEY)
    return [(exchange.question, exchange.answer) for exchange in exchanges]


async def take(queue: TurnQueue, platform: str = "console") -> Taken:
    taken = await queue.leases.take([platform])
    assert isinstance(taken, Taken)
    return taken


async def expire_all(store: Store, platform: str = "console") -> None:
    """Let all leases and pauses of a platform end without waiting for it."""
    due = store.key("due", platform)
    for thread in await store.command("ZRANGE", due, 0, -1):
        await store.command("ZADD", due, "XX", 0, thread)


async def press(store: Store, number: int = 1, *, press_id: str = "p1") -> None:
    await make_queue(store).changes.regenerate(
        f"console:{number}", person_id="u1", press_id=press_id
    )


@asynccontextmanager
async def repairing(
    queue: TurnQueue, platform: Platform, policy: WorkPolicy = POLICY
) -> AsyncIterator[Reconciler]:
    """Repair as a worker does beside its work."""
    reconciler = Reconciler(
        queue=queue,
        platforms={platform.name: platform},
        budgets=EditBudgets(store=queue.leases.store),
        patience=2.0,
        lease_seconds=LEASE,
        policy=policy,
    )
    task = asyncio.create_task(reconciler.run())
    try:
        yield reconciler
    finally:
        await cancelled(task)


async def given_up_unseen(queue: TurnQueue, turn: Turn | None = None) -> None:
    turn = turn or make_turn()
    await queue.admit(turn)
    first = await take(queue, turn.key.platform)
    await queue.leases.release(first, delay_seconds=0, counts=True)
    second = await take(queue, turn.key.platform)
    await queue.leases.finish(second, Shown(outcome="dead"), None)


async def until_shown(platform: FakePlatform, screen: dict[str, str]) -> None:
    def texts() -> dict[str, str]:
        return {name: page.text for name, page in platform.shown.screen.items()}

    await until(lambda: texts() == screen, why=lambda: str(texts()))


async def pending_repairs(store: Store) -> int:
    return int(await store.command("ZCARD", store.key("repairs", "console")))


async def all_repaired(store: Store) -> None:
    async with asyncio.timeout(60):
        while await pending_repairs(store):
            await asyncio.sleep(0.01)


async def due_repair(queue: TurnQueue, *, seconds: float = 60.0) -> Repair:
    async with asyncio.timeout(60):
        while not (repair := await queue.repairs.claim("console", seconds=seconds)):
            await asyncio.sleep(0.01)
    return repair
