"""The HTTP door answers in time, and never holds up the end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import pytest
from aiohttp import web

from bot import http
from bot.errors import CannotStart
from bot.store import Store


async def swallow(request: web.Request) -> web.Response:
    return web.Response(text=await request.text())


serve = partial(http.serve, host="127.0.0.1")


@asynccontextmanager
async def door(
    store: Store, posts: Mapping[str, http.Handler], stopping: asyncio.Event | None = None
) -> AsyncIterator[str]:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    async with serve(store=store, posts=posts, port=port, stopping=stopping or asyncio.Event()):
        yield f"http://127.0.0.1:{port}"


async def test_a_post_reaches_its_handler(store: Store) -> None:
    async with (
        door(store, {"/in": swallow}) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/in", data="hello") as answer,
    ):
        text = await answer.text()

    assert text == "hello"


async def test_a_post_that_never_ends_does_not_hold_up_the_end(store: Store) -> None:
    async with door(store, {"/in": swallow}) as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /in HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
        began = time.perf_counter()
    took = time.perf_counter() - began
    writer.close()

    assert took < 5


async def test_a_taken_port_is_fatal_only_for_what_depends_on_it(store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async with serve(store=store, posts={}, port=port, stopping=asyncio.Event()):
            pass
        with pytest.raises(CannotStart, match=f"PORT={port}"):
            async with serve(
                store=store, posts={"/a": swallow}, port=port, stopping=asyncio.Event()
            ):
                pass


async def test_who_is_about_to_end_is_not_ready_and_takes_what_comes_all_the_same(
    store: Store,
) -> None:
    stopping, statuses = asyncio.Event(), []
    async with door(store, {"/in": swallow}, stopping) as url, aiohttp.ClientSession() as session:
        for _ in range(2):
            for method, path in (("GET", "livez"), ("GET", "readyz"), ("POST", "in")):
                async with session.request(method, f"{url}/{path}") as answer:
                    statuses.append(answer.status)
            stopping.set()

    assert statuses == [200, 200, 200, 200, 503, 200]
