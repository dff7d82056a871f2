"""How long a search over a person's conversations takes, beside a bare scan of the same bytes.

    python -m bench.search [CONVERSATIONS] [KB of each]

The store is the embedded one. While searches go on, another client sends it small commands.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bench import figures
from bot.domain import ThreadKey
from bot.store import Command, Store, connect
from bot.turns.lookup import TurnLookup

CONVERSATIONS, SIZE = 1000, 12  # KB of each
TIMES = 20
EXCHANGES = 6  # of a conversation
ASKED = 0.1  # of what is said
PAUSE = 0.002  # seconds between two commands of the other client
# What people look for; each word is in as many conversations as it says.
NEEDLES = {"nowhere": 0, "heron": 1, "lighthouse": 50, "river": 1000, "river lighthouse": 50}
WORDS = """
the of and to in is that it for as with on be at by this are from or an which you not have can
there when one all if more will about time other into water house light morning number people
between system example function value question because through before after should could write
measure winter harbour engine paper window letter station bridge market village mountain
"""


async def main(count: int, size: int) -> None:
    print(f"{figures.load()}\n")
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with connect(url="", data_dir=Path(folder)) as store:
            threads, text = await fill(store, count, size)
            print(f"{count} conversations, {len(text) / 1e6:.1f} MB in all")
            lookup, server = TurnLookup(store), int((await store.redis.info())["process_id"])
            for needle in NEEDLES:
                words = needle.split()
                wanted = dict.fromkeys(threads, words)
                bare = await timed(partial(scanned, text, words))
                before = figures.cpu(server)
                took = await timed(partial(lookup.search, wanted))
                used = (figures.cpu(server) - before) / TIMES
                found = len(await lookup.search(wanted))
                print(f"{needle:<18} {found:>5} found: {in_ms(took)};", end=" ")
                print(f"CPU of the store {used * 1e3:.1f} ms; bare scan {in_ms(bare)}")
            alone = await waits(store, asyncio.sleep(1))
            beside = await waits(store, lookup_often(lookup, threads))
            waited = f"{in_ms(alone)} alone, {in_ms(beside)} beside searches"
            print(f"the other client's command: {waited}")
    print(f"\n{figures.load()}")


async def fill(store: Store, count: int, size: int) -> tuple[list[ThreadKey], str]:
    """Store what ended turns leave of conversations; return these, and all that is said."""
    dice, said = random.Random(1), []
    threads = [ThreadKey("web", "", "bench", f"talk-{number}") for number in range(count)]
    commands: list[Command] = []
    for number, thread in enumerate(threads):
        marks = [word for word, most in NEEDLES.items() if number < most and " " not in word]
        for turn in range(EXCHANGES):
            share = size * 1000 / EXCHANGES
            asked, told = (prose(dice, int(part * share)) for part in (ASKED, 1 - ASKED))
            # In the oldest exchange, so that all of them are looked at.
            told = f"{told} {' '.join(marks)}." if turn == 0 else told
            name = f"web:bench:{number}-{turn}"
            fields = ("text", asked, "answer", told, "mixed", "GitHub iPhone JavaScript".lower())
            commands.append(("HSET", store.key("turn", name), "state", "done", *fields))
            commands.append(("RPUSH", store.key("history", str(thread)), name))
            said += [asked, told]
    for at in range(0, len(commands), 500):
        await store.commands(commands[at : at + 500])
    return threads, "\n".join(said)


def prose(dice: random.Random, length: int) -> str:
    return " ".join(dice.choices(WORDS.split(), k=length // 5))[:length].capitalize()


async def scanned(text: str, words: list[str]) -> list[int]:
    lower = text.lower()
    return [at for word in words if (at := lower.rfind(word, 0, len(lower) // 2)) >= 0]


async def timed(call: Callable[[], Awaitable[object]]) -> list[float]:
    """Return how long each of some calls took."""
    seconds: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return seconds


async def lookup_often(lookup: TurnLookup, threads: list[ThreadKey]) -> None:
    for _ in range(TIMES):
        await lookup.search({thread: ["nowhere"] for thread in threads})


async def waits(store: Store, beside: Awaitable[object]) -> list[float]:
    """Return how long each command of the other client takes meanwhile."""
    meanwhile, seconds = asyncio.ensure_future(beside), []
    while not meanwhile.done():
        began = time.perf_counter()
        await store.command("GET", store.key("bench"))
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)
    await meanwhile
    return seconds


def in_ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} / {max(seconds) * 1e3:.1f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=CONVERSATIONS)
    parser.add_argument("size", nargs="?", type=int, default=SIZE)
    given = parser.parse_args()
    asyncio.run(main(given.count, given.size))
