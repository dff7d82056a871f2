"""The context size that a server reports, before each prompt and after a restart."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from bot.app.assistant import Assistant, open_assistant
from bot.domain import Delta, LeftOut, Message, Reading, Retrying
from bot.model.server import ModelServer
from bot.model.server_info import ServerWatch
from bot.model.transport import connect
from tests.emulators.model import Flavour, ModelEmulator
from tests.model.test_server_info import serve_with
from tests.support.settings import settings_of
from tests.support.waiting import until

LONG = "start " + "word, " * 1000 + "end"


@asynccontextmanager
async def assisting(emulator: ModelEmulator, data_dir: Path) -> AsyncIterator[Assistant]:
    emulator.answer = "Well."
    settings = settings_of(
        model_id="emulated",
        model_url=emulator.url,
        data_dir=data_dir,
        context_tokens=8000,
        max_tokens=100,
    )
    async with open_assistant(settings, asyncio.Event()) as mind:
        yield mind


async def answer(mind: Assistant) -> list[Delta]:
    deltas = mind.model.stream([Message("user", LONG)])
    return [delta async for delta in deltas if not isinstance(delta, Retrying | Reading)]


@pytest.mark.parametrize("flavour", ["ollama", "llama.cpp", "vllm", "tgi"])
async def test_a_server_that_was_away_at_the_start_is_asked_before_its_first_prompt(
    flavour: Flavour, tmp_path: Path
) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        emulator.context = 600
        await emulator.refuse_connections()
        async with assisting(emulator, tmp_path) as mind:
            await emulator.accept_connections()
            said = await answer(mind)
        emulator.unknown.clear()  # other servers' ways to count

    assert isinstance(said[0], LeftOut)
    assert [(asked.status, asked.unread) for asked in emulator.requests] == [(200, 0)]


@pytest.mark.parametrize("flavour", ["ollama", "llama.cpp"])
async def test_a_server_that_comes_back_to_who_waits_is_asked_before_the_prompt(
    flavour: Flavour, tmp_path: Path
) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        async with assisting(emulator, tmp_path) as mind:
            whole = await answer(mind)
            await emulator.refuse_connections()
            asking = asyncio.create_task(answer(mind))
            await asyncio.sleep(0.3)
            emulator.context = 600
            await emulator.accept_connections()
            said = await asking
        emulator.unknown.clear()

    assert (isinstance(whole[0], LeftOut), isinstance(said[0], LeftOut)) == (False, True)
    assert [(asked.status, asked.unread) for asked in emulator.requests] == [(200, 0)] * 2


@dataclass
class FakeServer:
    """Reports `context`, and counts how often it was asked; it answers while `open` is set."""

    context: int = 900
    asked: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    details: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            self.asked += 1
            await self.open.wait()
            return web.json_response({"data": [{"id": "fake"}]})
        if request.path == "/props":
            await self.details.wait()
            return web.json_response({"default_generation_settings": {"n_ctx": self.context}})
        return web.Response(status=404)


def make_server(*, silent: bool = False) -> FakeServer:
    server = FakeServer()
    server.details.set()
    if not silent:
        server.open.set()
    return server


@asynccontextmanager
async def watched(
    server: FakeServer, *, probe: float = 60.0, valid: float = 60.0
) -> AsyncIterator[ServerWatch]:
    async with serve_with(server.answer) as url:
        address = ModelServer(url=url, key="-", model="fake", own=True)
        try:
            async with connect(address) as connection:
                watch = ServerWatch(connection, probe_seconds=probe, valid_seconds=valid)
                async with aclosing(watch):
                    yield watch
        finally:
            server.open.set()
            server.details.set()


async def refresh(watch: ServerWatch) -> int | None:
    """Refresh, and return the context."""
    async with asyncio.timeout(60):
        await watch.refresh(deadline=math.inf)
    return watch.context


async def test_all_who_wait_share_a_probe_and_its_report_stays_valid() -> None:
    server = make_server()
    async with watched(server) as watch:
        assert await asyncio.gather(*(refresh(watch) for _ in range(20))) == [900] * 20
        server.context = 600
        assert await refresh(watch) == 900

    assert server.asked == 1


async def test_a_server_that_reports_nothing_is_probed_and_limits_nothing() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async with serve_with(answer) as url:
        address = ModelServer(url=url, key="-", model="fake", own=True)
        async with connect(address) as connection, aclosing(ServerWatch(connection)) as watch:
            assert await refresh(watch) is None


async def test_who_gives_up_leaves_the_probe_to_the_others() -> None:
    server = make_server(silent=True)
    async with watched(server) as watch:
        impatient = asyncio.create_task(refresh(watch))
        await until(lambda: server.asked == 1)
        patient = asyncio.create_task(refresh(watch))
        await asyncio.sleep(0)
        impatient.cancel()
        server.open.set()
        assert await patient == 900

    assert server.asked == 1
