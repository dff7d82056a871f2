"""The model emulator is itself tested with another client than the bot's."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from bot.domain import Json
from tests.emulators.model import How, ModelEmulator
from tests.waiting import until

QUESTION = [{"role": "user", "content": "How are you?"}]


async def read(emulator: ModelEmulator, *, session: aiohttp.ClientSession | None = None) -> str:
    """Return the stream's text as it came over the wire."""
    async with aiohttp.ClientSession() as own:
        url = f"{emulator.url}/chat/completions"
        body = {"model": "m", "messages": QUESTION, "stream": True}
        async with (session or own).post(url, json=body) as response:
            response.raise_for_status()
            return await response.text()


def events(text: str) -> list[dict[str, Json]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def contents(text: str) -> list[str | None]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if '"delta"' in line]
    return [json.loads(line)["choices"][0]["delta"].get("content") for line in lines]


async def test_an_answer_comes_in_deltas_and_ends_with_done() -> None:
    async with ModelEmulator() as emulator:
        text = await read(emulator)

    assert contents(text) == [None, "You said", ": How ar", "e you?", None]
    assert text.endswith("data: [DONE]\n\n")
    assert emulator.requests[0].finished
    assert not emulator.requests[0].hung_up


async def test_the_answer_may_be_a_function_of_the_messages() -> None:
    async with ModelEmulator() as emulator:
        emulator.answer = lambda messages: f"{len(messages)} message"
        emulator.chunk = 100

        assert '"1 message"' in await read(emulator)


async def test_usage_comes_in_a_chunk_without_choices() -> None:
    async with ModelEmulator() as emulator:
        emulator.usage = True
        last = events(await read(emulator))[-1]

    assert last["choices"] == []
    assert "usage" in last


async def test_a_status_is_answered_as_often_as_asked() -> None:
    async with ModelEmulator() as emulator:
        emulator.fail(status=429, headers={"Retry-After": "7"}, times=2)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                await read(emulator)
            assert caught.value.status == 429
            assert caught.value.headers is not None
            assert caught.value.headers["Retry-After"] == "7"

        assert "You said" in await read(emulator)


@pytest.mark.parametrize("how", ["refuse", "cut"])
async def test_a_connection_is_dropped_before_headers(how: How) -> None:
    async with ModelEmulator() as emulator:
        emulator.fail(how=how)

        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await read(emulator)


async def test_a_cut_stream_is_an_error_and_an_early_end_is_none() -> None:
    async with ModelEmulator() as emulator:
        emulator.fail(how="cut", at_delta=1)
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await read(emulator)

        emulator.fail(how="eof", at_delta=1)
        text = await read(emulator)

    assert '"You said"' in text
    assert "[DONE]" not in text


async def test_a_failure_beyond_the_last_delta_still_happens() -> None:
    async with ModelEmulator() as emulator:
        emulator.fail(how="error_event", at_delta=99)
        text = await read(emulator)

    assert "emulated failure" in text
    assert "[DONE]" not in text


async def test_a_client_that_leaves_is_noticed() -> None:
    async with ModelEmulator() as emulator, aiohttp.ClientSession() as session:
        emulator.fail(how="hang", at_delta=1)
        reading = asyncio.create_task(read(emulator, session=session))
        await until(lambda: emulator.running == 1)
        reading.cancel()
        await until(lambda: emulator.running == 0)

    assert emulator.requests[0].hung_up
    assert not emulator.requests[0].finished
    assert emulator.most_running == 1


async def test_connections_are_counted_by_socket() -> None:
    async with ModelEmulator() as emulator:
        async with aiohttp.ClientSession() as session:
            await read(emulator, session=session)
            await read(emulator, session=session)
        await read(emulator)

    assert emulator.connections == 2
