"""What a token of a streamed answer costs this process, beside raw reading and the library itself.

    python -m bench.model [STREAMS]

An emulated server in another process says 200 tokens to so many readers at once, 50 in a second.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import uvloop
from huggingface_hub import AsyncInferenceClient

from bench import figures
from bot.domain import Message
from bot.model import connect
from tests.emulators.model import ModelEmulator

TOKENS, PAUSE = 200, 0.02  # of an answer, and the seconds between two
QUESTION = "How many?"
_MODEL = "emulated"
_SERVER_SECONDS = 10.0  # to start or to end

Read = Callable[[str], Awaitable[None]]


def main(streams: int) -> None:
    pipe, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(other,))
    server.start()
    try:
        if not pipe.poll(_SERVER_SECONDS):
            raise SystemExit("the emulated model did not start")
        uvloop.run(compare(pipe.recv(), streams))
    finally:
        pipe.send("end")
        server.join(_SERVER_SECONDS)


def serve(pipe: Connection) -> None:
    """Answer until anything comes through the pipe."""

    async def until_told() -> None:
        async with ModelEmulator() as model:
            model.answer, model.chunk, model.delay = "word " * TOKENS, len("word "), PAUSE
            pipe.send(model.url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(until_told())


async def compare(url: str, streams: int) -> None:
    print(f"{streams} streams of {TOKENS} tokens at once, {figures.load()}")
    bare = await cost(raw, url, streams)
    print(f"raw socket                      {bare:4.0f} µs a token")
    # First: from then on the bot's connections stand in for the library's.
    print_beside("AsyncInferenceClient itself", await cost(library, url, streams), bare)
    async with parley(url) as read:
        print_beside("this bot", await cost(read, url, streams), bare)


def print_beside(name: str, found: float, bare: float) -> None:
    print(f"{name:<32}{found:4.0f} µs a token, {found / bare:.1f} times as much")


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
async def parley(url: str) -> AsyncIterator[Read]:
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

        async def read(_url: str) -> None:
            async for _ in model.stream([Message("user", QUESTION)]):
                pass

        yield read


async def library(url: str) -> None:
    """Read an answer as the library's documentation shows."""
    messages = [{"role": "user", "content": QUESTION}]
    async with AsyncInferenceClient(base_url=url, api_key="-") as client:
        async for _ in await client.chat_completion(messages, model=_MODEL, stream=True):
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
