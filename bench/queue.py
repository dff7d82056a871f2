"""How long a turn waits from its admission to its worker, against a bare Redis round trip.

    python -m bench.queue [TURNS]

Both are measured in the same run on the embedded store, which syncs every write to disk.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bot.domain import Person, Shown, ThreadKey, Turn
from bot.store import Store, connect
from bot.turns.queue import Taken, TurnQueue
from bot.turns.script import Limits


async def main(turns: int) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with connect(url="", data_dir=Path(folder)) as store:
            write = await _round_trips(store, turns)
            start = await _starts(store, turns)
    print(f"turns                      {turns}")
    _print("one synced write", write)
    _print("admit to start", start)
    print(f"ratio of the medians       {statistics.median(start) / statistics.median(write):.1f}")


def _print(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99) - 1]
    print(f"{name:<26} p50 {statistics.median(ordered) * 1e3:.2f} ms  p99 {p99 * 1e3:.2f} ms")


async def _round_trips(store: Store, count: int) -> list[float]:
    taken = []
    for number in range(count):
        began = time.perf_counter()
        await store.command("SET", store.key("bench"), number)
        taken.append(time.perf_counter() - began)
    return taken


async def _starts(store: Store, count: int) -> list[float]:
    queue = TurnQueue(
        store=store,
        worker="bench",
        limits=Limits(count, count, count, count),
        lease_seconds=3,
        keep_seconds=60,
    )
    admitted: list[float] = []
    started: list[float] = []

    async def work() -> None:
        while len(started) < count:
            found = await queue.leases.take(["console"])
            if isinstance(found, Taken):
                started.append(time.perf_counter())
                await queue.leases.finish(found, Shown(outcome="done"), None)
            else:
                await queue.leases.wait(["console"], 1)

    working = asyncio.create_task(work())
    for number in range(count):
        key = ThreadKey("console", "bench", "bench", str(number))
        admitted.append(time.perf_counter())
        await queue.admit(Turn(f"console:{number}", key, Person("p", "P"), "text", {}, 0.0))
        await asyncio.sleep(0.005)
    await working
    return [end - begin for begin, end in zip(admitted, started, strict=True)]


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
