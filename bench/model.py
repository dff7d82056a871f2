"""What streams of answers cost this process: CPU for a token, memory over many, and many at once.

    python -m bench.model                cost, leak and crowd, one after the other
    python -m bench.model cost [STREAMS]   CPU beside raw reading and the library itself
    python -m bench.model leak [STREAMS]   memory and connections over so many streams
    python -m bench.model crowd [STREAMS]  so many at once

A server in another process, on loopback, is what they read from: the emulated model, and for a
crowd one that does nothing but speak in time, so that as little as possible of a delay is its own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import uvloop
from huggingface_hub import AsyncInferenceClient

from bench import figures
from bot.app.assistant import open_assistant
from bot.domain import Message
from bot.local import hardware
from bot.ports import Model
from tests.emulators.model import ModelEmulator
from tests.support.model import open_model
from tests.support.settings import settings_of

TOKENS, PAUSE = 200, 0.02  # of an answer, and the seconds between two
SHORT = 20  # tokens of an answer where streams count and tokens do not
STREAMS = {"cost": 20, "leak": 10_000, "crowd": 1000}
AT_ONCE = 50  # of many streams
CROWD_PAUSE = 0.05  # seconds between two tokens of each of a crowd
QUESTION = "How many?"
_MODEL = "emulated"
_FILES = 4096  # more than a crowd has connections
_SERVER_SECONDS = 10.0  # to start or to end

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_END = b"0\r\n\r\n"
_SENT = re.compile(rb'"content": "(\d+\.\d+) ')

Read = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Speech:
    """What the emulated server says to everybody."""

    tokens: int
    pause: float


SPEECHES = {
    "cost": Speech(TOKENS, PAUSE),
    "leak": Speech(SHORT, 0.0),
    "crowd": Speech(TOKENS, CROWD_PAUSE),
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
    talk = keep_time if name == "crowd" else serve
    server = spawn.Process(target=talk, args=(other, SPEECHES[name]))
    server.start()
    try:
        if not pipe.poll(_SERVER_SECONDS):
            raise SystemExit("the emulated model did not start")
        uvloop.run(BENCHES[name](pipe.recv(), streams))
        pipe.send("end")
        if name == "leak" and pipe.poll(_SERVER_SECONDS):
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


def keep_time(pipe: Connection, speech: Speech) -> None:
    """Say when each token leaves, by the clock that all processes of a machine share."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]) if length else 0)
                if not head.startswith(b"POST"):
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                writer.write(STREAM_HEAD)
                due = time.monotonic()
                for _ in range(speech.tokens):
                    due += speech.pause
                    await asyncio.sleep(due - time.monotonic())
                    writer.write(part(f"{time.monotonic():.6f} "))
                writer.write(part("", "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def until_told() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=_FILES) as server:
            port = server.sockets[0].getsockname()[1]
            pipe.send(f"http://127.0.0.1:{port}/v1")
            await asyncio.to_thread(pipe.recv)

    figures.allow_files(_FILES)
    uvloop.run(until_told())


def part(text: str, finish: str | None = None) -> bytes:
    """Return an event as servers send it: some 200 bytes, of which a few are the text."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}
    event = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": _MODEL,
        "choices": [choice],
    }
    return chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


def chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


async def compare(url: str, streams: int) -> None:
    """Print what a token costs, with connections that are there already."""
    print(f"cost: {streams} streams of {TOKENS} tokens at once, {figures.load()}")
    bare = await cost(raw, url, streams)
    print(f"  raw socket                      {bare:4.0f} µs a token")
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
    """Print what so many streams at once cost, and how late the deltas came to whom they are for.

    Reading the sockets and looking for the time in what comes is the least that any client can do.
    """
    print(
        f"crowd: {streams} streams at once of {SPEECHES['crowd'].tokens} tokens,"
        f" {1 / CROWD_PAUSE:.0f} a second, {figures.load()}"
    )
    print(
        f"{'':14}all have begun  then: of a core  µs a token  memory"
        "  delay: median, 99 of 100, worst"
    )
    await print_crowd("raw sockets", lambda heard: raw_times(url, heard), streams)
    settings = settings_of(model_url=url, model_id=_MODEL)
    hardware.collect_garbage_seldom()
    async with open_assistant(settings, asyncio.Event()) as mind:
        await print_crowd("this bot", lambda heard: times(mind.model, heard), streams)
    print(f"  {figures.load()}")


class Heard:
    """How late tokens came, in seconds, and what they cost, from when all streams have begun."""

    def __init__(self, streams: int) -> None:
        self.late: list[float] = []
        self.tokens = 0
        self.used = self.since = self.memory = 0.0
        self._unbegun = streams

    def token(self, sent: str | bytes, *, first: bool) -> None:
        self.tokens += 1
        if not self._unbegun:
            self.late.append(time.monotonic() - float(sent))
        elif first:
            self._unbegun -= 1
            if not self._unbegun:
                self.used, self.since = time.process_time(), time.monotonic()
                self.memory = figures.resident(os.getpid())


async def print_crowd(
    name: str, listen: Callable[[Heard], Coroutine[Any, Any, None]], streams: int
) -> None:
    heard = Heard(streams)
    memory, began = figures.resident(os.getpid()), time.monotonic()
    await asyncio.gather(*(listen(heard) for _ in range(streams)))
    took, used = time.monotonic() - heard.since, time.process_time() - heard.used
    if heard.tokens != streams * SPEECHES["crowd"].tokens:
        raise SystemExit(f"{name}: {heard.tokens} tokens came")
    late = sorted(heard.late)
    at = [late[int((len(late) - 1) * share)] * 1e3 for share in (0.5, 0.99, 1.0)]
    print(
        f"  {name:<14}after {heard.since - began:4.1f} s{used / took:19.0%}"
        f"{used / len(late) * 1e6:12.0f}{heard.memory - memory:5.0f} MB"
        f"{at[0]:15.0f}, {at[1]:.0f}, {at[2]:.0f} ms"
    )


async def times(model: Model, heard: Heard) -> None:
    first = True
    async for delta in model.stream([Message("user", QUESTION)]):
        if isinstance(delta, str):
            heard.token(delta, first=first)
            first = False


async def raw_times(url: str, heard: Heard) -> None:
    first = True
    async for received in parts(url):
        for sent in _SENT.findall(received):
            heard.token(sent, first=first)
            first = False


BENCHES = {"cost": compare, "leak": leak, "crowd": crowd}


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
    async for _ in parts(url):
        pass


async def parts(url: str) -> AsyncIterator[bytes]:
    """Yield what comes of an answer, as it comes."""
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
    while received := await reader.read(65_536):
        yield received
        if received.endswith(_END):
            break
    writer.close()


@asynccontextmanager
async def parley(url: str) -> AsyncIterator[Model]:
    async with open_model(
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
