"""Servers that come back with less room, and never see a prompt that they would have to cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from bot.app.assistant import Assistant, open_assistant
from bot.domain import Delta, LeftOut, Message
from bot.errors import AnswerCut, ModelError, ModelUnavailable
from bot.model import heedful, server_info
from bot.model.heedful import HeedfulModel, heeding
from bot.model.server import ModelServer
from config.settings import Settings
from tests.emulators.model import Flavour, ModelEmulator
from tests.model.test_server_info import a_door
from tests.support.waiting import until

LONG = "start " + "word, " * 1000 + "end"


@asynccontextmanager
async def minding(emulator: ModelEmulator, data_dir: Path) -> AsyncIterator[Assistant]:
    emulator.answer = "Well."
    settings = Settings(
        model_id="emulated",
        model_url=emulator.url,
        data_dir=data_dir,
        context_tokens=8000,
        max_tokens=100,
    )
    async with open_assistant(settings, frozenset({"console"}), asyncio.Event()) as mind:
        yield mind


async def answer(mind: Assistant) -> list[Delta]:
    return [delta async for delta in mind.model.stream([Message("user", LONG)])]


@pytest.mark.parametrize("flavour", ["ollama", "llama.cpp", "vllm", "tgi"])
async def test_a_server_that_was_away_at_the_start_is_asked_before_its_first_prompt(
    flavour: Flavour, tmp_path: Path
) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        emulator.context = 600
        await emulator.refuse_connections()
        async with minding(emulator, tmp_path) as mind:
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
        async with minding(emulator, tmp_path) as mind:
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


async def test_a_server_that_was_another_for_a_while_is_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heedful, "_HOLDS_SECONDS", 0.2)
    async with ModelEmulator(flavour="ollama") as emulator:
        async with minding(emulator, tmp_path) as mind:
            await answer(mind)
            emulator.context = 600
            await asyncio.sleep(0.25)
            said = await answer(mind)
        emulator.unknown.clear()

    assert isinstance(said[0], LeftOut)
    assert [asked.unread for asked in emulator.requests] == [0, 0]


async def test_a_server_that_comes_back_with_more_room_is_given_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heedful, "_HOLDS_SECONDS", 0.0)
    async with ModelEmulator(flavour="ollama") as emulator:
        emulator.context = 600
        async with minding(emulator, tmp_path) as mind:
            short = await answer(mind)
            emulator.context = 16_000
            long = await answer(mind)
        emulator.unknown.clear()

    assert (isinstance(short[0], LeftOut), isinstance(long[0], LeftOut)) == (True, False)
    assert [asked.unread for asked in emulator.requests] == [0, 0]


@dataclass
class FakeLimited:
    """Says a word, or raises `error`; `limits` are those it was told, `asked_with` at each ask."""

    error: ModelError | None = None
    limits: list[int] = field(default_factory=list)
    asked_with: list[list[int]] = field(default_factory=list)
    name: str = "fake"

    def limit(self, context: int) -> None:
        self.limits.append(context)

    async def stream(
        self, prompt: Sequence[Message], *, deadline: float
    ) -> AsyncGenerator[Delta, None]:
        self.asked_with.append(list(self.limits))
        yield "word"
        if self.error:
            raise self.error


class Teller:
    """A server that says what it has, and counts how often; closed it does not answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def tell(self, request: web.Request) -> web.Response:
        if request.path != "/v1/models":
            return web.Response(status=404)
        self.asked += 1
        await self.open.wait()
        return web.json_response({"data": [{"id": "fake", "max_model_len": 900}]})


@asynccontextmanager
async def telling(teller: Teller, model: FakeLimited) -> AsyncIterator[HeedfulModel]:
    async with a_door(teller.tell) as url:
        server = ModelServer(url=url, key="-", model=model.name, own=True)
        async with heeding(model, server) as heedful:
            yield heedful


async def words(model: HeedfulModel, *, seconds: float = 30.0) -> list[Delta]:
    deadline = asyncio.get_running_loop().time() + seconds
    return [delta async for delta in model.stream([Message("user", "?")], deadline=deadline)]


async def test_all_who_wait_share_a_look_and_its_word_holds() -> None:
    teller, model = Teller(), FakeLimited()
    async with telling(teller, model) as heedful:
        said = await asyncio.gather(*(words(heedful) for _ in range(20)))
        await words(heedful)

    assert said == [["word"]] * 20
    assert (teller.asked, model.limits) == (1, [900])


@pytest.mark.parametrize(
    ("error", "looks"), [(ModelUnavailable("away"), 2), (AnswerCut("long"), 1)]
)
async def test_a_failure_ends_what_a_server_has_said(error: ModelError, looks: int) -> None:
    teller, model = Teller(), FakeLimited(error=error)
    async with telling(teller, model) as heedful:
        for _ in range(2):
            with pytest.raises(type(error)):
                await words(heedful)

    assert teller.asked == looks


async def test_a_server_that_does_not_tell_is_waited_for_a_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_info, "_SECONDS", 0.1)
    teller, model = Teller(), FakeLimited()
    teller.open.clear()
    async with telling(teller, model) as heedful:
        async with asyncio.timeout(5):
            # Who comes during a look that hangs waits for no other.
            said = await asyncio.gather(*(words(heedful) for _ in range(20)))
        assert teller.asked == 1
        teller.open.set()

    assert said == [["word"]] * 20
    assert model.limits == []


async def test_who_comes_during_a_look_that_hangs_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_info, "_SECONDS", 0.5)
    teller, model = Teller(), FakeLimited()
    teller.open.clear()
    async with telling(teller, model) as heedful:
        first = asyncio.create_task(words(heedful))
        await until(lambda: teller.asked == 1)
        monkeypatch.setattr(server_info, "_SECONDS", 60.0)
        async with asyncio.timeout(10):
            assert await words(heedful) == await first == ["word"]
        teller.open.set()


async def test_a_look_that_hangs_is_waited_for_once_and_then_made_beside_the_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_info, "_SECONDS", 0.1)
    teller, model = Teller(), FakeLimited()
    teller.open.clear()
    async with telling(teller, model) as heedful:
        await words(heedful)
        monkeypatch.setattr(server_info, "_SECONDS", 60.0)
        async with asyncio.timeout(10):
            said = [await words(heedful) for _ in range(3)]
        await until(lambda: teller.asked == 2)
        before = list(model.limits)
        teller.open.set()
        await until(lambda: model.limits)
        await words(heedful)

    assert (said, before) == ([["word"]] * 3, [])
    assert (teller.asked, model.limits) == (2, [900])


async def test_after_a_failure_a_look_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_info, "_SECONDS", 0.1)
    teller, model = Teller(), FakeLimited(error=ModelUnavailable("away"))
    teller.open.clear()
    async with telling(teller, model) as heedful:
        with pytest.raises(ModelUnavailable):
            await words(heedful)
        monkeypatch.setattr(server_info, "_SECONDS", 60.0)
        model.error = None
        asking = asyncio.create_task(words(heedful))
        await until(lambda: teller.asked == 2)
        teller.open.set()
        said = await asking

    assert said == ["word"]
    assert (model.asked_with, model.limits) == ([[], [900]], [900])


async def test_a_look_beside_the_prompts_ends_with_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_info, "_SECONDS", 0.1)
    teller, model = Teller(), FakeLimited()
    teller.open.clear()
    before = asyncio.all_tasks()
    async with asyncio.timeout(10):
        async with telling(teller, model) as heedful:
            await words(heedful)
            monkeypatch.setattr(server_info, "_SECONDS", 60.0)
            await words(heedful)
            await until(lambda: teller.asked == 2)
            teller.open.set()

    assert asyncio.all_tasks() == before


async def test_nobody_looks_for_longer_than_a_reply_may_take() -> None:
    teller, model = Teller(), FakeLimited()
    teller.open.clear()
    async with telling(teller, model) as heedful:
        async with asyncio.timeout(3):
            assert await words(heedful, seconds=0.1) == ["word"]
        teller.open.set()


async def test_a_look_that_is_given_up_is_left_to_the_next() -> None:
    teller, model = Teller(), FakeLimited()
    teller.open.clear()
    async with telling(teller, model) as heedful:
        impatient = asyncio.create_task(words(heedful))
        await until(lambda: teller.asked == 1)
        patient = asyncio.create_task(words(heedful))
        await asyncio.sleep(0)
        impatient.cancel()
        teller.open.set()
        assert await patient == ["word"]

    assert (teller.asked, model.limits) == (2, [900])


async def test_half_a_word_of_a_server_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_info, "_SECONDS", 0.1)
    slow = asyncio.Event()

    async def tell(request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "fake"}]})
        await slow.wait()
        return web.json_response({"default_generation_settings": {"n_ctx": 700}})

    model = FakeLimited()
    async with a_door(tell) as url, AsyncExitStack() as stack:
        server = ModelServer(url=url, key="-", model="fake", own=True)
        heedful = await stack.enter_async_context(heeding(model, server))
        await words(heedful)
        slow.set()
        await words(heedful)
        await until(lambda: model.limits)

    assert model.limits == [700]
