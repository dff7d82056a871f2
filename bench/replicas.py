"""What it costs to wait for a replica: turns a second, and how long an admission takes.

    python -m bench.replicas [TURNS]

A turn is admitted, taken, saved twice and ended, fifty at once, by one process over a primary and
a replica on this machine, which sync to disk once a second.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bot.domain import Person, Shown, ThreadKey, Turn
from bot.store import connect
from bot.turns.queue import Taken, TurnQueue
from bot.turns.script import Limits
from tests.support.sentinels import servers

AT_ONCE = 50


async def main(turns: int) -> None:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with servers(Path(folder), 2) as (primary, replica):
            await replica.follow(primary)
            # The scripts are loaded before.
            for replicas, count in (
                (0, 100),
                (1, 100),
                (0, turns),
                (1, turns),
                (0, turns),
                (1, turns),
            ):
                await primary.redis.flushdb()
                seconds, admissions = await _measure(primary.address, replicas, count)
                p99 = sorted(admissions)[int(count * 0.99) - 1]
                print(
                    f"REDIS_REPLICAS={replicas}: {count / seconds:.0f} turns a second, admission "
                    f"p50 {statistics.median(admissions) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
                )


async def _measure(address: str, replicas: int, count: int) -> tuple[float, list[float]]:
    url, admissions, numbers = f"redis://{address}/0", list[float](), iter(range(count))
    async with connect(url=url, data_dir=Path(), replicas=replicas) as store:
        limits = Limits(count, count, count, count)
        queue = TurnQueue(
            store=store, worker="bench", limits=limits, lease_seconds=30, keep_seconds=60
        )

        async def work() -> None:
            for number in numbers:
                key = ThreadKey("console", "bench", "bench", str(number))
                person = Person(f"p{number}", "P")
                began = time.perf_counter()
                await queue.admit(Turn(f"console:{number}", key, person, "text", {}, 0.0))
                admissions.append(time.perf_counter() - began)
                taken = await queue.leases.take(["console"])
                assert isinstance(taken, Taken)
                for text in ("half", "half and half"):
                    await queue.leases.save(taken, Shown((f"m{number}",), text, text))
                await queue.leases.finish(taken, Shown(outcome="done"), None)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return time.perf_counter() - began, admissions


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000))
