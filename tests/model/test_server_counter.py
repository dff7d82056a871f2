"""The servers' own counts, over real sockets; llama.cpp's from the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from aiohttp import web

from bot.domain import Message
from bot.local.llama_cpp import serve
from bot.model.server import ModelServer
from bot.model.server_info import ServerCounter
from bot.model.transport import connect
from tests.emulators.model import Flavour, ModelEmulator
from tests.model.test_server_info import serve_with
from tests.support.model import open_model
from tests.support.waiting import until

PROMPT = [
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "And \ud83d half a pair?"),
]


@asynccontextmanager
async def counting(
    url: str, key: str = "-", *, count_seconds: float = 20.0, retry_seconds: float = 300.0
) -> AsyncIterator[ServerCounter]:
    server = ModelServer(url=url, key=key, model="emulated", own=True)
    async with connect(server) as connection:
        counter = ServerCounter(
            connection, count_seconds=count_seconds, retry_seconds=retry_seconds
        )
        async with aclosing(counter):
            yield counter


async def counted(counter: ServerCounter, *, seconds: float = 60.0) -> int | None:
    """Return a server's count once it is known to count."""
    async with asyncio.timeout(seconds):
        while (found := await counter.count(PROMPT)) is None:
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("flavour", ["llama.cpp", "vllm", "tgi"])
async def test_each_kind_of_server_counts(flavour: Flavour) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        async with counting(emulator.url) as counter:
            assert await counter.count(PROMPT) is None
            assert await counted(counter) == 27

        emulator.unknown.clear()  # what the others have and this one has not


async def test_a_server_that_does_not_count_is_not_asked_again() -> None:
    async with ModelEmulator(flavour="router") as emulator:
        async with counting(emulator.url) as counter:
            await counter.count(PROMPT)
            await until(lambda: len(emulator.unknown) == 3)

            assert await counter.count(PROMPT) is None

        assert len(emulator.unknown) == 3
        emulator.unknown.clear()


async def test_a_server_that_was_away_when_it_was_asked_first_counts_later() -> None:
    async with (
        ModelEmulator() as emulator,
        counting(emulator.url, retry_seconds=0.0) as counter,
    ):
        await emulator.refuse_connections()
        for _ in range(3):
            assert await counter.count(PROMPT) is None
        await emulator.accept_connections()

        assert await counted(counter) == 27
        emulator.unknown.clear()  # a probe that was under way may go on with other servers' ways


async def test_a_slow_count_is_not_waited_for() -> None:
    async with ModelEmulator() as emulator, counting(emulator.url, count_seconds=0.2) as counter:
        await counted(counter)
        emulator.fail("input_tokens", "hang")
        async with asyncio.timeout(60):
            assert await counter.count(PROMPT) is None


async def test_a_server_that_has_gone_counts_nothing() -> None:
    async with ModelEmulator() as emulator, counting(emulator.url) as counter:
        await counted(counter)
        await emulator.refuse_connections()

        assert await counter.count(PROMPT) is None


async def test_a_long_prompts_tokens_may_come_in_parts() -> None:
    said = json.dumps({"tokens": list(range(30_000)), "count": 30_000}).encode()

    async def say(request: web.Request) -> web.StreamResponse:
        if request.path != "/tokenize":
            return web.Response(status=404)
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(said), 65_536):
            await response.write(said[start : start + 65_536])
            await asyncio.sleep(0.01)
        return response

    async with serve_with(say) as url, counting(url) as counter:
        assert await counted(counter) == 30_000


@pytest.mark.parametrize(
    "said", ["[" * 65_000, '{"input_tokens": 9e999}', '{"input_tokens": true}']
)
async def test_no_count_is_too_strange(said: str) -> None:
    asked = 0

    async def say(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=said)

    async with serve_with(say) as url, counting(url) as counter:
        await counter.count(PROMPT)
        await until(lambda: asked == 4)  # what it has, and three ways to count

        assert await counter.count(PROMPT) is None


async def test_llama_cpp_counts_as_its_usage_does() -> None:
    prompt = [*PROMPT[:3], Message("user", "Name one colour. 🙂 " * 5)]
    async with serve(
        path=None, gpu_layers=0, threads=None, context_tokens=1024, parallel=1
    ) as server:
        async with counting(server.url, server.api_key) as counter:
            await counted(counter)
            found = await counter.count(prompt)
        async with open_model(
            model="demo",
            base_url=server.url,
            api_key=server.api_key,
            max_tokens=3,
            temperature=0.0,
            top_p=None,
            idle_timeout=20,
            total_timeout=40,
        ) as model:
            with pytest.raises(Exception, match="MAX_TOKENS"):
                async for _ in model.stream(prompt):
                    pass

    assert found == model.prompt_tokens


async def test_a_server_is_asked_for_the_model_that_it_has_now() -> None:
    async with (
        ModelEmulator(flavour="vllm") as emulator,
        counting(emulator.url, retry_seconds=0.0) as counter,
    ):
        emulator.models = ["another"]
        assert await counted(counter) == 27
        emulator.models = ["a third"]
        assert await counted(counter) == 27
        emulator.unknown.clear()
