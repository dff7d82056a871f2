"""Whether quotas are exact: parallel questions over three processes that are killed and come again.

    python -m bench.quotas [--runs 20] [--redis URL]

In each run one person asks a hundred questions at once, each of them delivered to two of three
processes. One process is killed in the middle and started again with all its questions; so is one
of those that answer. Then what was counted must be what was admitted and answered, to the token.
Without a URL the embedded store is used. Exits with 1 if a run differs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bot.access.quotas import Quota
from bot.domain import Exchange, Person, Shown, ThreadKey, Turn
from bot.errors import LeaseLost, QuotaUsed
from bot.store import Store, connect
from bot.turns.queue import Taken, TurnQueue
from bot.turns.script import Limits

QUESTIONS, LIMIT = 100, 37
ESTIMATE, TOKENS = 1000, 120  # reserved and used by each question
PROCESSES = 3
_LEASE = 1.0  # seconds
_AT_ONCE = 34  # questions of one process


def queue_of(store: Store, run: int, process: str) -> TurnQueue:
    """Return the queue as one process of a run sees it."""
    limits = Limits(*(10 * QUESTIONS,) * 4)
    return TurnQueue(
        store=store,
        worker=f"{run}-{process}",
        limits=limits,
        lease_seconds=_LEASE,
        keep_seconds=600,
    )


def turn_of(run: int, number: int) -> Turn:
    """Return a question of a run, in a thread of its own."""
    key = ThreadKey("bench", f"run{run}", "channel", str(number))
    return Turn(f"bench:{run}:{number}", key, _person(run), f"question {number}", {}, 0.0)


async def ask(store: Store, run: int, process: int) -> None:
    """Ask all questions that are delivered to a process."""
    queue, slots = queue_of(store, run, f"ask{process}"), asyncio.Semaphore(_AT_ONCE)

    async def admit(number: int) -> None:
        async with slots:
            with suppress(QuotaUsed):
                await queue.admit(turn_of(run, number), quota=Quota(LIMIT), estimate=ESTIMATE)

    numbers = [one for one in range(QUESTIONS) if one % PROCESSES != process]
    await asyncio.gather(*map(admit, numbers))


async def answer(store: Store, run: int, process: int) -> None:
    """Answer questions until none is open."""
    queue = queue_of(store, run, f"work{process}")
    while (await queue.load([])).open:
        taken = await queue.leases.take(["bench"])
        if not isinstance(taken, Taken):
            await queue.leases.wait(["bench"], min(taken, 0.2))
            continue
        turn = taken.turn
        shown = Shown((f"m{turn.id}",), "answer", "answer", outcome="done")
        exchange = Exchange(turn.id, turn.person, 0.0, turn.text, "answer")
        with suppress(LeaseLost):
            await queue.leases.save(taken, shown, used=TOKENS)
            await queue.leases.finish(taken, shown, exchange, used=TOKENS)


async def measure(url: str, runs: int) -> int:
    """Return how many runs were not exact."""
    wrong = 0
    async with connect(url=url, data_dir=Path()) as store:
        for run in range(runs):
            kills = await _crowd(url, run, "ask")
            queue = queue_of(store, run, "judge")
            reserved = await queue.usage(turn_of(run, 0).key, _person(run), Quota())
            admitted = (await queue.load([])).open
            kills += await _crowd(url, run, "answer")
            used = await queue.usage(turn_of(run, 0).key, _person(run), Quota())
            exact = (
                admitted == reserved.questions == used.questions == LIMIT
                and reserved.tokens == reserved.server_tokens == LIMIT * ESTIMATE
                and used.tokens == used.server_tokens == LIMIT * TOKENS
            )
            wrong += not exact
            print(
                f"run {run + 1:3}: {admitted} of {QUESTIONS} admitted, {kills} kills, "
                f"reserved {reserved.tokens}, used {used.tokens}: {'exact' if exact else 'WRONG'}"
            )
    return wrong


async def _crowd(url: str, run: int, verb: str) -> int:
    """Let three processes work, one of which is killed and started again; return the kills."""
    crowd = [await _start(url, run, verb, process) for process in range(PROCESSES)]
    victim = random.randrange(PROCESSES)
    # By then it has begun, and has not ended.
    await crowd[victim].stdout.readline()  # type: ignore[union-attr]
    await asyncio.sleep(random.uniform(0.0, 0.03))
    killed = crowd[victim].returncode is None
    with suppress(ProcessLookupError):
        crowd[victim].kill()
    await crowd[victim].wait()
    crowd[victim] = await _start(url, run, verb, victim)
    await asyncio.gather(*(one.communicate() for one in crowd))
    if any(one.returncode for one in crowd):
        raise RuntimeError(f"run {run}: a process that should {verb} has failed")
    return int(killed)


async def _start(url: str, run: int, verb: str, process: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.quotas", "--redis", url, "--as", verb),
        *(str(run), str(process)),
        stdout=asyncio.subprocess.PIPE,
    )


async def _work(url: str, verb: str, run: int, process: int) -> None:
    async with connect(url=url, data_dir=Path()) as store:
        print("begun", flush=True)
        await (ask if verb == "ask" else answer)(store, run, process)


def _person(run: int) -> Person:
    return Person(f"ann{run}", "Ann")


async def main(arguments: Sequence[str]) -> int:
    """Run as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.quotas")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--redis", default="")
    parser.add_argument("--as", nargs=3, dest="part", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.part:
        verb, run, process = chosen.part
        await _work(chosen.redis, verb, int(run), int(process))
        return 0
    if chosen.redis:
        return int(await measure(chosen.redis, chosen.runs) > 0)
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with connect(url="", data_dir=Path(folder)) as store:
            socket = store.redis.connection_pool.connection_kwargs["path"]
            return int(await measure(f"unix://{socket}", chosen.runs) > 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
