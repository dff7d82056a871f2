"""Requests to a real homeserver, and to one that answers nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from adapters.matrix.client import MatrixClient, TokenRefused, connected, path_of
from bot.errors import (
    CannotStart,
    MessageGone,
    PlaceGone,
    SurfaceError,
    Unreachable,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.support.synapse import Member, Synapse

Answer = Callable[[web.Request], Awaitable[web.Response]]
TEXT = {"msgtype": "m.text", "body": "hello"}


@asynccontextmanager
async def client_of(
    person: Member, *, budgets: EditBudgets | None = None
) -> AsyncIterator[MatrixClient]:
    async with connected(person.synapse.url, person.token, budgets=budgets) as client:
        yield client


async def test_the_same_transaction_is_the_same_event(synapse: Synapse) -> None:
    ann = await synapse.person("ann")
    room = await ann.create_room()
    async with client_of(ann) as client:
        assert client.user_id == ann.user_id

        first, second = [await client.send(room, "txn/1 ?", TEXT) for _ in range(2)]
        at_once = await asyncio.gather(*(client.send(room, "txn 2", TEXT) for _ in range(5)))

        assert first == second
        assert len({*at_once}) == 1
        assert len(await ann.screen(room)) == 2


async def test_a_429_is_told_to_all_processes(synapse: Synapse, store: Store) -> None:
    bot = await synapse.person("parley", limited=True)
    room = await bot.create_room()
    budgets, of_another = (EditBudgets(store=store) for _ in range(2))
    async with client_of(bot, budgets=budgets) as client:
        txns = map(str, range(40))
        with pytest.raises(WriteDelayed) as caught:
            await asyncio.gather(*(client.send(room, it, TEXT) for it in txns))

        error, now = caught.value, asyncio.get_running_loop().time()
        assert 0 < error.retry_after <= 6
        assert error.bucket == client.account.bucket
        with pytest.raises(WriteDelayed):
            await of_another.final(client.account, deadline=now + 0.05)


async def test_what_went_wrong_is_told_in_the_words_of_the_core(synapse: Synapse) -> None:
    ann, ben = await synapse.person("ann"), await synapse.person("ben")
    room = await ann.create_room()
    said = await ann.say(room, "x")
    async with client_of(ben) as client:
        with pytest.raises(PlaceGone):
            await client.send(room, "1", TEXT)
        assert await client.event(room, said) == {}
    async with client_of(ann) as client:
        assert await client.event(room, "$nothing") == {}
        assert await client.event(room, "$a/../b?c=d#e") == {}
        with pytest.raises(MessageGone):
            await client.call("GET", path_of("rooms", room, "state", "m.room.name", ""))
        with pytest.raises(WriteRefused):
            await client.send(room, "2", {**TEXT, "body": "x" * 70_000})
        await ann.call("POST", "logout", {})
        with pytest.raises(TokenRefused, match="MATRIX_TOKEN"):
            await client.send(room, "3", TEXT)


async def test_a_file_comes_back_whole(synapse: Synapse) -> None:
    ann = await synapse.person("ann")
    async with client_of(ann) as client:
        address = await client.upload("a b.bin", bytes(range(256)) * 1000, "application/x-what")

        found = b"".join([chunk async for chunk in client.download(address)])

        assert found == bytes(range(256)) * 1000
        for bad in ("https://example.org/a", "mxc://a/b/c", "mxc://a/../x", "mxc://../config", ""):
            with pytest.raises(WriteRefused):
                async for _ in client.download(bad):
                    pass
        with pytest.raises(MessageGone):
            async for _ in client.download(f"mxc://{client.server}/nothing"):
                pass


async def test_relations_are_read_to_the_end(synapse: Synapse) -> None:
    ann = await synapse.person("ann")
    room = await ann.create_room()
    said = await ann.say(room, "0")
    edits = [await ann.say(room, f"{number}", edit_of=said) for number in range(105)]
    async with client_of(ann) as client:
        found = [one["event_id"] async for one in client.relations(room, said, "m.replace")]

        assert found == edits[::-1]


async def test_a_wrong_token_and_an_absent_server_are_told_apart(synapse: Synapse) -> None:
    with pytest.raises(CannotStart, match="MATRIX_TOKEN") as caught:
        async with connected(synapse.url, "wrong"):
            pass
    assert not isinstance(caught.value, Unreachable)
    with pytest.raises(Unreachable, match="MATRIX_HOMESERVER"):
        async with connected("http://127.0.0.1:1", "wrong"):
            pass


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        (200, "[]", {}, WriteFailed),
        (200, "<html>", {}, WriteFailed),
        (200, "{}", {}, WriteFailed),
        (200, '{"event_id": 7}', {}, WriteFailed),
        (302, "", {"Location": "/elsewhere"}, WriteFailed),
        (404, "not here", {}, WriteFailed),
        (403, '{"errcode": ["M_FORBIDDEN"]}', {}, WriteRefused),
        (502, "<html>", {}, WriteFailed),
        (429, "slow", {}, WriteDelayed),
        (429, '{"retry_after_ms": 1e999}', {}, WriteDelayed),
        (429, '{"retry_after_ms": NaN}', {}, WriteDelayed),
        (429, f'{{"retry_after_ms": 1{"0" * 400}}}', {}, WriteDelayed),
        (429, '{"retry_after_ms": -5}', {"Retry-After": "7"}, WriteDelayed),
        (429, "{}", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, WriteDelayed),
    ],
)
async def test_an_answer_of_any_shape_is_an_error_of_the_core(
    status: int, body: str, headers: dict[str, str], kind: type[SurfaceError]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("whoami"):
            return web.json_response({"user_id": "@a:b"})
        if request.path == "/elsewhere":
            return web.json_response({"event_id": "$it"})
        return web.Response(status=status, text=body, headers=headers)

    async with client_before(answer) as client:
        with pytest.raises(SurfaceError) as caught:
            await client.send("!r", "1", TEXT)

        assert type(caught.value) is kind
        assert 0 <= caught.value.retry_after <= 600


@asynccontextmanager
async def client_before(answer: Answer) -> AsyncIterator[MatrixClient]:
    """Open a client of a server that answers so."""
    async with server(answer) as address, connected(address, "token") as client:
        yield client


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Run a server that answers so; yield its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_file_that_is_kept_elsewhere_is_fetched_without_the_token() -> None:
    asked = list[web.Request]()

    async def keep(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(body=b"a file")

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("whoami"):
            return web.json_response({"user_id": "@a:b"})
        assert request.headers["Authorization"] == "Bearer token"
        raise web.HTTPTemporaryRedirect(f"{elsewhere}/it")

    async with server(keep) as elsewhere, client_before(answer) as client:
        found = [chunk async for chunk in client.download("mxc://b/it")]

        assert found == [b"a file"]
        assert ["Authorization" in one.headers for one in asked] == [False]


async def test_a_page_without_events_is_not_the_last() -> None:
    pages = {
        "": {"chunk": [{"event_id": "$1"}], "end": "a"},
        "a": {"chunk": [], "end": "b"},
        "b": {"chunk": [{"event_id": "$2"}], "end": "c"},
        "c": {"chunk": [], "end": "c"},
    }

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("whoami"):
            return web.json_response({"user_id": "@a:b"})
        return web.json_response(pages[request.query.get("from", "")])

    async with client_before(answer) as client:
        found = [one["event_id"] async for one in client.messages("!r", "")]

        assert found == ["$1", "$2"]


def test_ids_of_strangers_stay_in_their_part_of_a_path() -> None:
    assert path_of("rooms", "!a/../b?c#d\ud800", "x") == (
        "/_matrix/client/v3/rooms/%21a%2F..%2Fb%3Fc%23d%3F/x"
    )
