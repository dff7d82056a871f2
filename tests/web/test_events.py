"""A slow page holds up nobody, is kept nothing for, and ends with what the others show."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import aiohttp
import pytest
from aiohttp import web

from adapters import live
from adapters.live import Change, LiveSurface, common
from adapters.web.follower import MOST_PAGES, OpenPage, TalkView, TurnView, send_events
from bot.domain import Page, Person, Standing, ThreadKey, Turn
from bot.errors import WriteFailed
from bot.reply.draft import WAITING
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.fakes import RefusingStore
from tests.support.ports import free_port
from tests.support.service import serving
from tests.support.waiting import until
from tests.support.web_page import (
    Browser,
    Screen,
    address_of,
    browser,
    new_talk,
    page_of,
    web_variables,
)

KEY = ThreadKey("web", "", "ann", "talk")
LARGE = 500_000  # characters of a text, more than the buffers of a connection take


def grown(number: int) -> TurnView:
    text = chr(97 + number % 26) * LARGE
    return TurnView(Standing("web:ann:one", "why?", 1.0, "running", f"{number} {text}"))


@asynccontextmanager
async def open_pages(
    talk: TalkView,
    *,
    heartbeat_seconds: float = 60.0,
    write_seconds: float = 60.0,
    signed_in: asyncio.Event | None = None,
) -> AsyncIterator[int]:
    """A server of which each connection is a page of this conversation; yields its port."""

    async def may_stay() -> bool:
        return signed_in is None or signed_in.is_set()

    async def handle(request: web.Request) -> web.StreamResponse:
        page = OpenPage(talk)
        talk.pages.add(page)
        try:
            return await send_events(
                request,
                page,
                may_stay=may_stay,
                heartbeat_seconds=heartbeat_seconds,
                write_seconds=write_seconds,
            )
        finally:
            talk.pages.discard(page)

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(port: int) -> AsyncIterator[asyncio.StreamReader]:
    """Open a page whose computer takes little at once."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=4096)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    try:
        yield reader
    finally:
        writer.transport.abort()


async def read_into(reader: asyncio.StreamReader, screen: Screen) -> None:
    name, rest = "", b""
    while chunk := await reader.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            word, _, value = line.decode().partition(": ")
            if word == "event":
                name = value
            elif word == "data":
                screen.take(name, json.loads(value))


async def test_a_slow_page_misses_what_is_outdated_and_holds_up_nobody() -> None:
    talk = TalkView(KEY)
    quick, slow = Screen(), Screen()
    async with open_pages(talk) as port, opened(port) as waiting, opened(port) as taken:
        reading = asyncio.create_task(read_into(taken, quick))
        await until(lambda: len(talk.pages) == 2 and quick.states)
        for number in range(16):
            talk.turns = {"web:ann:one": grown(number)}
            talk.wake_pages()
            newest = f"{number} "
            await until(partial(starts, quick, newest))
        catching_up = asyncio.create_task(read_into(waiting, slow))
        await until(partial(starts, slow, newest))
        talk.is_gone = True
        talk.wake_pages()
        await asyncio.gather(reading, catching_up)

    assert len(quick.events) == 18
    assert len(slow.events) < 11
    assert slow.turns == quick.turns
    assert slow.gone


def starts(screen: Screen, text: str) -> bool:
    return screen.answer("one").startswith(text)


async def test_a_page_that_takes_nothing_is_let_go() -> None:
    large = Standing("web:ann:one", "why?", 2.0, "done", "a" * 9_000_000)
    talk = TalkView(KEY, turns={"web:ann:one": TurnView(large)})
    async with open_pages(talk, write_seconds=0.05) as port, opened(port):
        await until(lambda: talk.pages)
        await until(lambda: not talk.pages)


async def test_a_silent_page_gets_heartbeats() -> None:
    async with open_pages(TalkView(KEY), heartbeat_seconds=0.01) as port, opened(port) as reader:
        while (await reader.readline()) != b": alive\n":
            pass


async def test_a_person_keeps_so_many_pages_and_the_oldest_says_why(own_store: Store) -> None:
    talk = new_talk()
    async with (
        serving(own_store, "web", variables=web_variables()) as service,
        browser(address_of(service)) as ann,
        browser(address_of(service)) as bob,
        AsyncExitStack() as stack,
    ):

        async def events(person: Browser) -> aiohttp.StreamReader:
            url = f"{person.address}/api/conversations/{talk}/events"
            response = await stack.enter_async_context(person.session.get(url))
            assert (await response.content.readline()) == b"event: state\n"
            return response.content

        other = await events(bob)
        pages = [await events(ann) for _ in range(MOST_PAGES + 1)]
        told = await pages[0].read()
        service.stop.set()
        with pytest.raises(aiohttp.ClientError):
            await asyncio.gather(pages[1].read(), other.read())
        await service.task

    assert b"event: end" in told
    assert b"many other windows" in told


def test_differences_are_counted_in_utf16_units() -> None:
    talk, screen = TalkView(KEY), Screen()
    texts = ["", "a😀", "a😀b", "a😁c", "é", ""]
    page = OpenPage(talk)
    page.state()
    for text in texts:
        talk.turns = {"web:ann:one": TurnView(Standing("web:ann:one", "q", 1.0, "running", text))}
        for line in page.differences().splitlines():
            if line.startswith("data: "):
                screen.take("turn", json.loads(line.removeprefix("data: ")))
        assert screen.answer("one") == text


def test_a_change_applies_only_to_the_text_that_it_was_made_to() -> None:
    assert Change("t", keep=2, add="c", size=3).applied("ab") == "abc"
    assert Change("t", keep=2, add="c", size=3).applied("abx") == "abc"
    assert Change("t", keep=2, add="c", size=3).applied("a") is None
    assert Change("t", keep=2, add="c", size=9).applied("ab") is None
    assert (common("ab", "abc"), common("abc", "abd"), common("", "a")) == (2, 2, 0)


async def test_a_person_may_ask_one_process_of_the_page_and_read_at_another(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with (
        page_of(own_store, model) as (person, _),
        serving(own_store, "web", variables=web_variables()) as another,
    ):
        here, person.address = person.address, address_of(another)
        async with person.page(talk) as screen:
            person.address = here
            name = await person.ask(talk, "What is it?")
            await until(lambda: screen.is_done(name), why=screen.__str__)

    assert screen.answer(name) == "You said: What is it?"


async def test_a_page_whose_person_has_logged_out_elsewhere_ends() -> None:
    signed_in = asyncio.Event()
    signed_in.set()
    talk = TalkView(KEY)
    async with (
        open_pages(talk, heartbeat_seconds=0.01, signed_in=signed_in) as port,
        opened(port) as reader,
    ):
        await reader.readuntil(b": alive")
        signed_in.clear()

        # It ends though the conversation goes on.
        await until(lambda: not talk.pages)


ASKED = Turn("web:ann:one", KEY, Person("ann", "Ann"), "why?", {}, 1.0)


def growing(said: str, sign: str = "") -> Page:
    return Page(0, f"{said}\n\n{sign}" if sign else said, final=False, said=said, sign=sign)


async def test_an_answer_is_not_written_whole_with_each_delta(store: Store) -> None:
    surface, texts = LiveSurface(store=store, turn=ASKED), ["One", "One two", "One two three"]
    for text in texts[:-1]:
        await surface.post(growing(text))
    await surface.edit("", growing(texts[-1], WAITING))
    await surface.edit("", Page(0, f"{texts[-1]}.", final=True, last=True, end="cut"))

    stream = live.stream_of(store, KEY)
    found = [one for _, _, one in await live.read(store, {stream: "0-0"}, block_seconds=0.1)]

    assert [one.add for one in found] == ["One", " two", " three", "."]
    assert [one.note for one in found] == ["", "", WAITING, ""]
    assert (found[-1].last, found[-1].end) == (True, "cut")
    shown: str | None = ""
    for one in found:
        shown = one.applied(shown or "")
    assert shown == "One two three."
    # Who has missed the second one knows it.
    assert found[2].applied("One") is None
    assert await store.command("TTL", stream) > 3600


async def test_what_may_not_have_arrived_is_written_whole(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    surface, stream = LiveSurface(store=store, turn=ASKED), live.stream_of(store, KEY)
    await surface.post(growing("One"))
    store.refused.add(stream)
    with pytest.raises(WriteFailed):
        await surface.edit("", growing("One two"))
    store.refused.remove(stream)
    await surface.edit("", growing("One two three"))

    found = await live.read(store, {stream: "0-0"}, block_seconds=0.1)

    assert [one.add for _, _, one in found] == ["One", "One two three"]


async def test_entries_of_another_version_are_looked_up(store: Store) -> None:
    stream = live.stream_of(store, KEY)
    for fields in (("turn", "a", "keep", "x"), ("words", "Hi"), ("turn", "b", "end", "new")):
        await store.command("XADD", stream, "*", *fields)

    found = [one for _, _, one in await live.read(store, {stream: "0-0"}, block_seconds=0.1)]

    assert [(one.turn_id, one.look) for one in found] == [("a", True), ("", True), ("b", True)]
