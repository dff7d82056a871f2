"""What a model server may send for one answer, and what the bot takes of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from bot.domain import Message
from bot.errors import AnswerCut, EmptyAnswer, ModelError, ModelSilent
from tests.support.model import OneAttempt, open_model

PROMPT = [Message("user", "What is a secret question?")]
MAX_TOKENS = 50
MOST = 2000  # characters; many more than 50 tokens can be
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def make_event(text: str, *, field: str = "content") -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {field: text}}]}).encode() + b"\n\n"


@asynccontextmanager
async def serve_pieces(
    pieces: Sequence[bytes], *, again: bool, encoding: str = "identity"
) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Answer with these pieces, `again` and again; yields the address, and who has hung up."""
    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"Content-Type: text/event-stream\r\nContent-Encoding: {encoding}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n".encode())
        try:
            while True:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if not again:
                    break
        except OSError:
            hung_up.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield "http://{}:{}/v1".format(*server.sockets[0].getsockname()), hung_up


@asynccontextmanager
async def connected(url: str, *, seconds: float = 20.0) -> AsyncIterator[OneAttempt]:
    async with open_model(
        model="mistral",
        base_url=url,
        api_key="",
        max_tokens=MAX_TOKENS,
        temperature=None,
        top_p=None,
        idle_timeout=seconds,
        total_timeout=seconds,
    ) as model:
        yield model


async def read_all(model: OneAttempt) -> tuple[str, ModelError | None]:
    """Return all that was said, and how it ended."""
    said = ""
    try:
        async for delta in model.stream(PROMPT):
            said += delta
    except ModelError as error:
        return said, error
    return said, None


class Turns:
    """Counts what the event loop does for others, and the most that happened meanwhile."""

    def __init__(self) -> None:
        self.times = 0
        self.most = 0
        self._since = 0

    def count(self) -> None:
        self._since += 1
        self.most = max(self.most, self._since)

    async def tick(self) -> None:
        while True:
            self.times += 1
            self._since = 0
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "piece",
    [make_event("word "), make_event("x") * 1000, make_event("x" * 250_000), make_event("\n\n.")],
    ids=["words", "letters", "one large event", "lines"],
)
async def test_an_answer_without_an_end_is_cut_like_one_that_reached_max_tokens(
    piece: bytes,
) -> None:
    async with serve_pieces([piece], again=True) as (url, hung_up), connected(url) as model:
        said, error = await read_all(model)
        async with asyncio.timeout(20):
            await hung_up.wait()

    assert type(error) is AnswerCut
    assert MAX_TOKENS < len(said) < MOST


@pytest.mark.parametrize("text", [" ", "\n" * 9000, "\u200b", "\x00"])
async def test_white_space_without_an_end_is_no_answer(text: str) -> None:
    async with (
        serve_pieces([make_event(text)], again=True) as (url, hung_up),
        connected(url) as model,
    ):
        said, error = await read_all(model)
        async with asyncio.timeout(20):
            await hung_up.wait()

    assert (said, type(error)) == ("", EmptyAnswer)
    assert "white space" in str(error)


async def test_a_model_that_thinks_beyond_its_room_is_reported_as_one() -> None:
    async with (
        serve_pieces([make_event("<think>" + "hm " * 9000)], again=True) as (url, _),
        connected(url) as model,
    ):
        said, error = await read_all(model)

    assert (said, type(error)) == ("", EmptyAnswer)
    assert "only thoughts" in str(error)
    assert "raise MAX_TOKENS" in str(error)


# Each has no more than 50 tokens in the vocabulary of its kind that needs fewest.
@pytest.mark.parametrize(
    "text",
    ["internationalization " * 32, (" " * 30 + "|" + " " * 30 + "|\n") * 9, "x" + "-" * 800],
    ids=["long words", "a diagram", "a run"],
)
async def test_no_text_that_so_many_tokens_may_be_is_cut(text: str) -> None:
    async with (
        serve_pieces([make_event(text), END], again=False) as (url, _),
        connected(url) as model,
    ):
        said, error = await read_all(model)

    assert (said, error) == (text, None)


async def test_many_small_events_leave_the_loop_to_others() -> None:
    turns = Turns()
    async with (
        serve_pieces([make_event("x") * 800, END], again=False) as (url, _),
        connected(url) as model,
    ):
        ticking = asyncio.create_task(turns.tick())
        async for _ in model.stream(PROMPT):
            turns.count()
        ticking.cancel()

    assert turns.most <= 100


async def test_a_compressed_stream_leaves_the_loop_to_others() -> None:
    turns = Turns()
    small = zlib.compress((b":" + b"." * 1000 + b"\n") * 10_000)
    async with (
        serve_pieces([small, END], again=False, encoding="deflate") as (url, _),
        connected(url) as model,
    ):
        asking = asyncio.create_task(read_all(model))
        ticking = asyncio.create_task(turns.tick())
        _, error = await asking
        ticking.cancel()

    assert isinstance(error, ModelError)
    assert turns.times > 60


@contextmanager
def flooding(piece: bytes, *, head: bytes, calls: int) -> Iterator[str]:
    """Answer as `serve_pieces` does, but from threads, so that more is always there to be read."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError), server.accept()[0] as client:
            client.recv(65_536)
            client.sendall(head)
            while True:
                client.sendall(piece)

    threads = [threading.Thread(target=serve) for _ in range(calls)]
    for thread in threads:
        thread.start()
    with server:
        yield "http://{}:{}/v1".format(*server.getsockname())
    for thread in threads:
        thread.join()


async def longest_turn(asking: Sequence[asyncio.Task[object]]) -> float:
    """Return the longest turn of the event loop, in CPU seconds, while these ran."""
    most = 0.0
    while not all(each.done() for each in asking):
        began = time.thread_time()
        await asyncio.sleep(0)
        most = max(most, time.thread_time() - began)
    return most


async def test_events_that_come_faster_than_they_are_read_end_in_time() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with flooding(b"data:\n" * 10_000, head=head, calls=1) as url:
        async with connected(url, seconds=0.3) as model:
            _, error = await read_all(model)

    assert type(error) is ModelSilent


async def test_headers_without_an_end_leave_the_loop_to_others() -> None:
    with flooding(b"HTTP/1.1 102 Processing\r\n\r\n" * 4000, head=b"", calls=10) as url:
        async with connected(url, seconds=0.5) as model:
            most = await longest_turn([asyncio.create_task(read_all(model)) for _ in range(10)])

    # 0.1 s when measured, and 1 s if each connection holds as much as it can.
    assert most < 0.4
