"""How far one Redis carries: workers side by side, memory of a thread, turns a second.

    python -m bench.scale [WORKERS …] [--threads N]

Workers are processes over one store, and a model that needs so many seconds for an answer, as real
ones do, answers them. Whoever asks stands in for the gateways: turns of the console, which has no
rate limits. The store is the embedded one, which syncs every write to disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import figures
from bot.domain import Exchange, Person, Place, Shown, ThreadKey, Turn
from bot.store import Store, connect
from bot.turns.queue import Taken, TurnQueue
from bot.turns.script import Limits
from tests.emulators.model import ModelEmulator
from tests.support.process import BotProcess, bot
from tests.support.waiting import until

CAPACITY = 64  # turns at once in each worker
THINKING = 4.0  # seconds that the model takes for an answer
WRITES = 4  # in which an answer grows, as on Discord in that time
ROUNDS = 3  # of answers that each worker gives, with all its places taken
TURNS = 3000  # that go through the queue alone
AT_ONCE = 50  # calls of this process to the store
EXCHANGES = 5  # of a thread, each with so many characters:
QUESTION, ANSWER = 120, 600
DAY = 24 * 3600.0
UNLIMITED = Limits(1_000_000, 1_000_000, 1_000_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Run:
    """What so many workers did: turns a second, and the CPU seconds of each turn."""

    workers: int
    pace: float
    work: float
    store: float


async def main(workers: Sequence[int], threads: int) -> None:
    print(figures.load())
    runs = [await with_workers(number) for number in workers]
    print(f"\nA model that takes {THINKING:.0f} s, {CAPACITY} turns at once in each worker")
    for run in runs:
        print(
            f"{run.workers} workers  {run.pace:6.1f} turns/s  x {run.pace / runs[0].pace:.2f}"
            f"  CPU a turn: worker {run.work * 1e3:.1f} ms, store {run.store * 1e3:.2f} ms"
        )
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with connect(url="", data_dir=Path(folder)) as store:
            await through_the_queue(store)
            await remembered(store, threads)


async def with_workers(number: int) -> Run:
    turns = number * CAPACITY * ROUNDS
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with (
            ModelEmulator() as model,
            connect(url="", data_dir=Path(folder)) as store,
            AsyncExitStack() as stack,
        ):
            model.answer, model.first_delay = "a" * ANSWER, THINKING / 2
            model.chunk, model.delay = ANSWER // WRITES, THINKING / 2 / (WRITES - 1)
            variables = {
                "REDIS_URL": store.url,
                "MODEL_URL": model.url,
                "LEASE_SECONDS": "3",
                "CAPACITY": str(CAPACITY),
            }
            bots = [
                await stack.enter_async_context(
                    bot("worker", data_dir=Path(folder), variables=variables)
                )
                for _ in range(number)
            ]
            for one in bots:
                await until(partial(runs, one), why=one.text)
            return await measured(store, bots, turns)


def runs(one: BotProcess) -> bool:
    return "Running as" in one.text()


async def measured(store: Store, bots: Sequence[BotProcess], turns: int) -> Run:
    queue = a_queue(store)
    used, spent = sum(figures.processor(one.process.pid) for one in bots), await processor(store)
    began = time.perf_counter()
    await at_once([partial(queue.admit, a_turn(n)) for n in range(turns)])
    while (await queue.load([])).open:
        await asyncio.sleep(0.05)
    took = time.perf_counter() - began
    work = sum(figures.processor(one.process.pid) for one in bots) - used
    return Run(len(bots), turns / took, work / turns, (await processor(store) - spent) / turns)


async def through_the_queue(store: Store) -> None:
    """Print how many turns this one process brings through the queue, and what each costs."""
    spent, began = await processor(store), time.perf_counter()
    await at_once([partial(whole_turn, store, n) for n in range(TURNS)])
    took, cost = time.perf_counter() - began, (await processor(store) - spent) / TURNS
    print(f"\nThe queue alone: {TURNS / took:.0f} turns/s by one process; the store's CPU is")
    print(f"{cost * 1e6:.0f} us a turn, so its one core is full at about {1 / cost:.0f} turns/s")


async def remembered(store: Store, threads: int) -> None:
    """Print the memory of so many threads."""
    await store.command("FLUSHALL")
    before = await memory(store)
    for exchange in range(EXCHANGES):
        numbers = range(threads * exchange, threads * (exchange + 1))
        await at_once([partial(whole_turn, store, n, threads) for n in numbers])
    used = await memory(store) - before
    print(f"\n{threads} threads of {EXCHANGES} exchanges ({QUESTION} and {ANSWER} characters)")
    print(f"in all       {used / 2**20:.0f} MB, {used / threads / 1024:.1f} kB a thread")
    for kind in ("history", "turn", "posted"):
        sizes = [await size(store, kind, number) for number in range(0, threads, threads // 20)]
        print(f"{kind:<12} {statistics.mean(sizes):.0f} bytes each")


async def whole_turn(store: Store, number: int, threads: int = 1_000_000) -> None:
    """Bring one turn through the queue, with the writes of a short answer."""
    queue, turn = a_queue(store), a_turn(number, threads)
    await queue.admit(turn)
    while not isinstance(taken := await queue.leases.take(["console"]), Taken):
        await queue.leases.wait(["console"], 1)
    turn = taken.turn
    message_ids, answer = (f"m{turn.id}",), "a" * ANSWER
    for text in ("a", answer):
        await queue.leases.save(taken, Shown(message_ids, text, text))
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer)
    await queue.leases.finish(taken, Shown(message_ids, answer, answer, outcome="done"), exchange)


async def at_once(jobs: Sequence[Callable[[], Awaitable[object]]]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(job: Callable[[], Awaitable[object]]) -> None:
        async with places:
            await job()

    await asyncio.gather(*(one(job) for job in jobs))


def a_queue(store: Store) -> TurnQueue:
    return TurnQueue(
        store=store, worker="bench", limits=UNLIMITED, lease_seconds=3, keep_seconds=DAY
    )


def a_turn(number: int, threads: int = 1_000_000) -> Turn:
    """Return a turn with ids as long as a platform's; everybody has a thread of their own."""
    key = ThreadKey("console", "1" * 18, "2" * 18, f"{number % threads:018}")
    place: Place = {"channel": "2" * 18, "message": f"{number:018}", "opens_thread": False}
    person = Person(f"{number % threads:018}", "Ann")
    return Turn(f"console:{number:018}", key, person, "q" * QUESTION, place, 0.0)


async def processor(store: Store) -> float:
    """Return the CPU seconds that the store has used."""
    told = await store.redis.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


async def memory(store: Store) -> int:
    return int((await store.redis.info("memory"))["used_memory"])


async def size(store: Store, kind: str, number: int) -> int:
    turn = a_turn(number)
    names = {
        "history": str(turn.key),
        "turn": turn.id,
        "posted": f"console:m{turn.id}",
    }
    return int(await store.command("MEMORY", "USAGE", store.key(kind, names[kind]), "SAMPLES", 0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=10_000)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.workers, chosen.threads))
