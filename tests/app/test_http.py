"""The HTTP server answers in time, bounds strangers, and never holds up the end."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import math
import socket
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bot.app import http
from bot.errors import CannotStart
from bot.local import hardware
from bot.store import Store, connect
from config.settings import Settings
from tests.support.outage import line
from tests.support.ports import free_port

POST = b"POST /in HTTP/1.1\r\nHost: a\r\n"


async def swallow(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


class Swallow:
    """A handler that reads a body, and tells when it has begun and ended."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def read(self, request: web.Request) -> web.Response:
        self.begun.set()
        try:
            return await swallow(request)
        finally:
            self.ended.set()


@asynccontextmanager
async def door(
    store: Store,
    posts: Mapping[str, http.Handler] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    metrics_port: int | None = None,
    **options: Any,
) -> AsyncIterator[str]:
    """Serve on a free port; yield the address on this machine."""
    port = port or free_port()
    chosen: dict[str, Any] = {"downtimes": {}, "stopping": asyncio.Event()}
    async with http.serve(
        Settings(host=host, port=port, metrics_port=metrics_port),
        store=store,
        posts={"/in": swallow} if posts is None else posts,
        gets={},
        refresh_metrics=partial(asyncio.sleep, 0),
        **(chosen | options),
    ):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which a test says what it likes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the other side ends the connection."""
    told = b""
    try:
        async with asyncio.timeout(60):
            while piece := await reader.read(65536):
                told += piece
    except ConnectionError:
        pass
    return told


async def answer_to(url: str, said: bytes) -> bytes:
    """Return all that comes on a connection of which these are the only bytes."""
    async with raw(url) as (reader, writer):
        writer.write(said)
        return await everything(reader)


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_post_that_never_ends_does_not_hold_up_the_end(store: Store) -> None:
    handler = Swallow()
    async with AsyncExitStack() as stack:
        async with door(store, {"/in": handler.read}) as url:
            _, writer = await stack.enter_async_context(raw(url))
            writer.write(POST + b"Content-Length: 100\r\n\r\n")
            await handler.begun.wait()
            end = await stack.enter_async_context(asyncio.timeout(30))
        assert not end.expired()


async def test_a_taken_port_is_fatal_only_for_what_depends_on_it(store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async with door(store, {}, port=port), door(store, metrics_port=port):
            pass
        with pytest.raises(CannotStart, match=f"PORT={port}"):
            async with door(store, port=port):
                pass


# Ready


async def test_who_is_about_to_end_is_not_ready_and_takes_what_comes_all_the_same(
    store: Store,
) -> None:
    stopping, statuses = asyncio.Event(), []
    async with door(store, stopping=stopping) as url, aiohttp.ClientSession() as session:
        for _ in range(2):
            for method, path in (("GET", "livez"), ("GET", "readyz"), ("POST", "in")):
                async with session.request(method, f"{url}/{path}") as answer:
                    statuses.append(answer.status)
            stopping.set()

    assert statuses == [200, 200, 200, 200, 503, 200]


async def test_a_process_is_ready_when_each_of_its_platforms_is_heard(store: Store) -> None:
    told, silence = [], [math.inf]
    downtimes = {"discord": lambda: silence[0], "slack": lambda: 0.0}
    async with door(store, downtimes=downtimes) as url:
        for seconds in (math.inf, 0.0, 3.0, 60.0):
            silence[0] = seconds
            told.append(await get(f"{url}/readyz"))

    deaf = (503, "Discord is not connected\n")
    assert told == [deaf, (200, "ready\n"), (200, "ready\n"), deaf]


async def test_a_store_that_is_away_is_reported_without_its_address(
    valkey_url: str, data_dir: Path
) -> None:
    async with (
        line(valkey_url, data_dir) as way,
        connect(url=way.url, data_dir=data_dir) as store,
        door(store) as url,
    ):
        before = await get(f"{url}/readyz")
        await way.cut()

        async with asyncio.timeout(60):
            while (after := await get(f"{url}/readyz"))[0] == 200:
                await asyncio.sleep(0.05)

    assert before == (200, "ready\n")
    assert after == (503, "the store is not reached\n")


# Metrics


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("0.0.0.0", 404)]
)
async def test_metrics_are_on_the_public_port_where_it_is_loopback(
    host: str, status: int, store: Store
) -> None:
    async with door(store, host=host) as url:
        statuses = [(await get(f"{url}/{path}"))[0] for path in ("livez", "readyz", "metrics")]

    assert statuses == [200, 200, status]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_metrics_with_a_port_of_their_own_are_there_alone(host: str, store: Store) -> None:
    port, paths = free_port(), ("livez", "readyz", "metrics", "in")
    async with door(store, host=host, metrics_port=port) as url:
        places = (url, f"http://127.0.0.1:{port}")
        statuses = [(await get(f"{at}/{path}"))[0] for at in places for path in paths]

    assert statuses == [200, 200, 404, 405, 200, 200, 200, 404]


# Strangers


async def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/in", data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_compressed_body_is_not_inflated(store: Store) -> None:
    small = gzip.compress(b"0" * 100_000)
    async with door(store) as url:
        assert await post(url, small, **{"Content-Encoding": "gzip"}) == (200, small)


async def test_the_largest_request_is_answered_and_a_larger_body_refused(store: Store) -> None:
    headers = {f"X-{number:02}": "a" * 4080 for number in range(58)}
    body = b"0" * (256 * 1024)
    async with door(store) as url:
        assert await post(url, body, **headers) == (200, body)
        assert (await post(url, body + b"0"))[0] == 413


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nHost:",
        POST,
        POST + b"Content-Length: 100\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        POST + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    ],
    ids=str,
)
async def test_a_connection_ends_in_time_whatever_was_said(
    said: bytes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with door(store, connection_seconds=0.2) as url:
        answer = await answer_to(url, said)

        assert b"200 OK" not in answer
        assert "Traceback" not in caplog.text


async def test_a_connection_whose_answer_nobody_reads_ends_in_time(store: Store) -> None:
    ended = asyncio.Event()

    async def answer_for_ever(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"0" * 1_000_000)
        finally:
            ended.set()

    async with (
        door(store, {"/in": answer_for_ever}, connection_seconds=0.2) as url,
        raw(url) as (_, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(POST + b"Content-Length: 0\r\n\r\n")
        async with asyncio.timeout(30):
            await ended.wait()


async def test_a_connection_carries_one_request(store: Store) -> None:
    async with door(store) as url:
        answer = await answer_to(url, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 100)

    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in answer


async def test_of_too_many_connections_the_oldest_ends_with_one_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with door(store, most_connections=4) as url, AsyncExitStack() as stack:
        opened = [(await stack.enter_async_context(raw(url)))[0] for _ in range(12)]

        status, _ = await get(f"{url}/livez")
        ended = await asyncio.gather(*(everything(reader) for reader in opened[:8]))

        assert status == 200
        assert ended == [b""] * 8
        assert not opened[-1].at_eof()
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01 this is TLS, say\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X-A: a\r\n" * 1000 + b"\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
    ids=lambda said: said[:30].decode("latin-1"),
)
async def test_what_is_no_http_is_refused_without_a_line_in_the_log(
    said: bytes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with door(store) as url:
        answer = await answer_to(url, said)

        assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        assert not caplog.records


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=str,
)
async def test_little_is_kept_of_what_follows_an_upgrade(begun: bytes, store: Store) -> None:
    said = begun + b"\xff" * 5_000_000
    async with door(store, connection_seconds=2) as url, raw(url) as (reader, writer):
        await get(f"{url}/livez")
        tracemalloc.start()
        try:
            writer.write(said)
            await everything(reader)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 10_000_000


async def test_who_goes_in_the_middle_of_a_body_leaves_no_line_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Swallow()
    async with door(store, {"/in": handler.read}) as url, raw(url) as (_, writer):
        writer.write(POST + b"Content-Length: 100\r\n\r\nabc")
        await handler.begun.wait()
        writer.transport.abort()
        await handler.ended.wait()

    assert not caplog.records


async def test_a_mistake_of_a_handler_is_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: web.Request) -> web.Response:
        raise RuntimeError("a mistake")

    async with door(store, {"/in": fail}) as url:
        assert (await post(url, b""))[0] == 500

    assert "a mistake" in caplog.text


@asynccontextmanager
async def pages(
    *, seconds: float = 60.0, most: int = 100, most_pages: int = 100, most_own: int = 100
) -> AsyncIterator[str]:
    """Pages that trust whoever asks for /in."""

    async def let_in(request: web.Request) -> web.Response:
        http.trust(request, request.query.get("who", "ann"))
        return web.Response(text="in")

    async def keep_out(_: web.Request) -> web.Response:
        return web.Response(text="out")

    async def let_in_late(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)  # as long as a busy store takes, so that more waits than it may
        http.trust(request, "ann")
        digest = hashlib.sha256()
        async for part in request.content.iter_any():
            digest.update(part)
            await asyncio.sleep(0)
        return web.Response(text=digest.hexdigest())

    app = web.Application()
    app.router.add_route("*", "/in", let_in)
    app.router.add_get("/out", keep_out)
    app.router.add_post("/late", let_in_late)
    async with http.serve_pages(
        app,
        host="127.0.0.1",
        port=0,
        most_pages=most_pages,
        most_own=most_own,
        most_connections=most,
        connection_seconds=seconds,
    ) as url:
        yield url


async def said(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: bytes = b""
) -> bytes:
    """Return the body of the answer on a connection that stays open; empty if it has ended."""
    reader, writer = connection
    writer.write(b"POST" if body else b"GET")
    writer.write(f" {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    writer.write(body)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def test_who_is_let_in_keeps_the_connection_and_a_stranger_does_not() -> None:
    async with pages(seconds=2.0) as url, raw(url) as known, raw(url) as stranger:
        answers = [await said(known, "/in"), await said(stranger, "/out")]
        await everything(stranger[0])
        # More than a stranger's connection may bring in all.
        further = [await said(known, "/in", b"a" * 200_000) for _ in range(4)]

    assert answers == [b"in", b"out"]
    assert further == [b"in"] * 4


async def test_a_file_that_is_there_before_its_person_is_known_arrives_whole() -> None:
    data = bytes(range(256)) * 16_384
    async with pages() as url, raw(url) as new:
        async with asyncio.timeout(30):
            told = [await said(new, "/late", data) for _ in range(2)]

    assert told == [hashlib.sha256(data).hexdigest().encode()] * 2


async def test_a_person_pushes_out_only_their_own_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pages(most_own=2) as url, AsyncExitStack() as stack:
        bob, *anns = [await stack.enter_async_context(raw(url)) for _ in range(6)]
        await said(bob, "/in?who=bob")
        for one in anns:
            await said(one, "/in?who=ann")
        ended = [await everything(one[0]) for one in anns[:3]]
        others = [await said(one, "/in?who=ann") for one in anns[3:]]
        bobs = await said(bob, "/in?who=bob")

    assert ended == [b""] * 3
    assert [*others, bobs] == [b"in"] * 3
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


async def test_pages_leave_the_process_half_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "allow_files", lambda _: 20)
    async with pages() as url, AsyncExitStack() as stack:
        known = []
        for _ in range(12):
            known.append(await stack.enter_async_context(raw(url)))
            assert await said(known[-1], "/in") == b"in"
        ended = [await everything(one[0]) for one in known[:4]]
        others = [await said(one, "/in") for one in known[4:]]

    assert ended == [b""] * 4
    assert others == [b"in"] * 8


async def test_strangers_and_people_push_out_only_their_like(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(pages(most=2, most_pages=1))
        known = await stack.enter_async_context(raw(url))
        await said(known, "/in")
        strangers = [await stack.enter_async_context(raw(url)) for _ in range(4)]
        outside = [await said(one, "/out") for one in strangers]
        await everything(strangers[0][0])
        again = await said(known, "/in")
        other = await said(await stack.enter_async_context(raw(url)), "/in?who=bob")
        ended = await everything(known[0])

    assert outside[-1] == b"out"
    assert (again, other, ended) == (b"in", b"in", b"")
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
