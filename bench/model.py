"""What streams of answers cost this process: CPU for a token, memory over many, and many at once.

    python -m bench.model                cost, leak and crowd, one after the other
    python -m bench.model cost [STREAMS]   CPU beside raw reading and the library itself
    python -m bench.model leak [STREAMS]   memory and connections over so many streams
    python -m bench.model crowd [STREAMS]  so many at once

An emulated server in another process, on loopback, is what they read from.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import uvloop
from huggingface_hub import AsyncInferenceClient

from bench import figures
from bot.domain import Message
from bot.model import connect
from bot.ports import Model
from bot.tasks import cancelled
from tests.emulators.model import ModelEmulator

TOKENS, PAUSE = 200, 0.02  # of an answer, and the seconds between two
SHORT = 20  # tokens of an answer where streams count and tokens do not
STREAMS = {"cost": 20, "leak": 10_000, "crowd": 600}
AT_ONCE = 50  # of many streams
CROWD_PAUSE = 0.1  # seconds between two tokens of each of a crowd
QUESTION = "How many?"
_MODEL = "emulated"
_FILES = 4096  # more than a crowd has connections
_SERVER_SECONDS = 10.0  # to start or to end

Read = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Speech:
    """What the emulated server says to everybody."""

    tokens: int
    pause: float


SPEECHES = {
    "cost": Speech(TOKENS, PAUSE),
    "leak": Speech(SHORT, 0.0),
    "crowd": Speech(TOKENS // 2, CROWD_PAUSE),
}


def main(arguments: Sequence[str]) -> None:
    what = arguments[0] if arguments else ""
    for name in [what] if what else STREAMS:
        streams = int(arguments[1]) if len(arguments) > 1 else STREAMS[name]
        run(name, streams)


def run(name: str, streams: int) -> None:
    figures.allow_files(_FILES)
    pipe, other = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    server = spawn.Process(target=serve, args=(other, SPEECHES[name]))
    server.start()
    try:
        if not pipe.poll(_SERVER_SECONDS):
            raise SystemExit("the emulated model did not start")
        uvloop.run(BENCHES[name](pipe.recv(), streams))
        pipe.send("end")
        if name != "cost" and pipe.poll(_SERVER_SECONDS):
            connections, most_running = pipe.recv()
            print(f"  the server saw {connections} connections, {most_running} streams at once")
    finally:
        server.join(_SERVER_SECONDS)
        server.kill()


def serve(pipe: Connection, speech: Speech) -> None:
    """Answer until anything comes through the pipe; then tell what was seen."""

    async def until_told() -> None:
        async with ModelEmulator() as model:
            model.answer, model.chunk = "word " * speech.tokens, len("word ")
            model.delay = speech.pause
            pipe.send(model.url)
            await asyncio.to_thread(pipe.recv)
            pipe.send((model.connections, model.most_running))

    figures.allow_files(_FILES)
    uvloop.run(until_told())


async def compare(url: str, streams: int) -> None:
    """Print what a token costs, with connections that are there already."""
    print(f"cost: {streams} streams of {TOKENS} tokens at once, {figures.load()}")
    bare = await cost(raw, url, streams)
    print(f"  raw socket                      {bare:4.0f} µs a token")
    # First: from then on the bot's connections stand in for the library's.
    print_beside("AsyncInferenceClient itself", await cost(library, url, streams), bare)
    async with parley(url) as model:

        async def read(_: str) -> None:
            await answer(model)

        print_beside("this bot", await cost(read, url, streams), bare)


async def leak(url: str, streams: int) -> None:
    """Print memory, objects and open sockets as the streams go by."""
    print(f"leak: {streams} streams of {SHORT} tokens, {AT_ONCE} at once, {figures.load()}")
    began = time.monotonic()
    async with parley(url) as model:
        for done in range(0, streams, AT_ONCE):
            if done and done % (streams // 5) == 0:
                print_standing(done)
            await asyncio.gather(*(answer(model) for _ in range(AT_ONCE)))
        print_standing(streams)
    print(f"  {streams / (time.monotonic() - began):.0f} streams a second")


async def crowd(url: str, streams: int) -> None:
    """Print what so many streams at once cost, and how late the loop came to anything."""
    print(
        f"crowd: {streams} streams at once of {TOKENS // 2} tokens,"
        f" {1 / CROWD_PAUSE:.0f} a second, {figures.load()}"
    )
    async with parley(url) as model:
        lags: list[float] = []
        watching = asyncio.create_task(watch(lags))
        before, began = time.process_time(), time.monotonic()
        words = await asyncio.gather(*(answer(model) for _ in range(streams)))
        took, used = time.monotonic() - began, time.process_time() - before
        await cancelled(watching)
    whole = sum(each == TOKENS // 2 for each in words)
    print(
        f"  {whole} of {streams} whole in {took:.1f} s, {used / took:.0%} of a core,"
        f" {used / sum(words) * 1e6:.0f} µs a token, worst lag of the loop"
        f" {max(lags) * 1e3:.0f} ms"
    )


BENCHES = {"cost": compare, "leak": leak, "crowd": crowd}


async def watch(lags: list[float]) -> None:
    """Note how late the loop comes to a sleeper, in seconds."""
    step = 0.01
    while True:
        before = time.monotonic()
        await asyncio.sleep(step)
        lags.append(time.monotonic() - before - step)


def print_standing(done: int) -> None:
    gc.collect()
    print(
        f"  after {done:6} streams {figures.resident(os.getpid()):6.1f} MB,"
        f" {len(gc.get_objects()):6} objects, {figures.sockets()} sockets"
    )


def print_beside(name: str, found: float, bare: float) -> None:
    print(f"  {name:<32}{found:4.0f} µs a token, {found / bare:.1f} times as much")


async def cost(read: Read, url: str, streams: int) -> float:
    """Return the CPU microseconds that a token takes, with connections that are there already."""
    await asyncio.gather(*(read(url) for _ in range(streams)))
    before = time.process_time()
    await asyncio.gather(*(read(url) for _ in range(streams)))
    return (time.process_time() - before) / streams / TOKENS * 1e6


async def raw(url: str) -> None:
    """Wait for each piece of an answer and look into none."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps(
        {"model": _MODEL, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    )
    head = (
        f"POST {address.path}/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    writer.write((head + body).encode())
    while await reader.read(65_536):
        pass
    writer.close()


@asynccontextmanager
async def parley(url: str) -> AsyncIterator[Model]:
    async with connect(
        model=_MODEL,
        base_url=url,
        api_key="",
        max_tokens=4 * TOKENS,
        temperature=None,
        top_p=None,
        idle_timeout=30,
        total_timeout=60,
    ) as model:
        yield model


async def answer(model: Model) -> int:
    """Return how many deltas an answer had."""
    deltas = 0
    async for _ in model.stream([Message("user", QUESTION)]):
        deltas += 1
    return deltas


async def library(url: str) -> None:
    """Read an answer as the library's documentation shows."""
    messages = [{"role": "user", "content": QUESTION}]
    async with AsyncInferenceClient(base_url=url, api_key="-") as client:
        async for _ in await client.chat_completion(messages, model=_MODEL, stream=True):
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
