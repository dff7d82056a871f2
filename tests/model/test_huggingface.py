"""What an operator reads at the start about models at Hugging Face."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack

import pytest

from bot.access.quotas import Price, Prices
from bot.app.assistant import open_assistant
from bot.concurrency import running
from bot.model import huggingface
from bot.model.server import ModelServer
from bot.model.transport import connect
from tests.emulators.model import ModelEmulator
from tests.support.settings import settings_of
from tests.support.waiting import until

TOKEN = "hf_thisMustNotBeTold"  # made up
NAMES = ("org/chosen", "org/second")


async def line(
    emulator: ModelEmulator, caplog: pytest.LogCaptureFixture, *names: str, seconds: float = 10.0
) -> tuple[int, str]:
    """Return what is logged, and how serious it is."""
    caplog.set_level(logging.INFO, "bot.model.huggingface")
    await report(emulator, *names, seconds=seconds)
    records = [record for record in caplog.records if record.name == "bot.model.huggingface"]
    said = [record.getMessage() for record in records]
    assert not any(TOKEN in each or "\n" in each for each in said)
    return max(record.levelno for record in records), "; ".join(said)


async def report(emulator: ModelEmulator, *names: str, seconds: float = 10.0) -> None:
    async with connect(_server(emulator)) as router:
        await huggingface.log_availability(
            router, names or NAMES, hub=emulator.root, seconds=seconds
        )


def _server(emulator: ModelEmulator) -> ModelServer:
    return ModelServer(url=emulator.url, key=TOKEN, model=NAMES[0], own=False)


def make_router(*models: str) -> ModelEmulator:
    emulator = ModelEmulator(flavour="router")
    emulator.models = models or NAMES
    return emulator


async def test_a_model_that_is_served_is_reported_with_its_providers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router() as emulator:
        emulator.providers = {"novita": "live", "together": "live", "groq": "error"}
        told = await line(emulator, caplog)

    assert told == (
        logging.INFO,
        "novita serves org/chosen; together serves org/chosen;"
        " org/chosen failed the last check at groq",
    )
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/chosen:novita", "novita serves org/chosen:novita"),
        ("org/chosen:fastest", "novita serves org/chosen:fastest; together serves"),
        ("org/chosen:groq", "Nobody serves org/chosen:groq at Hugging Face: set MODEL_ID"),
    ],
)
async def test_a_provider_or_a_policy_may_be_named(
    name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_router() as emulator:
        emulator.providers = {"novita": "live", "together": "live"}
        _, told = await line(emulator, caplog, name)

    assert told.startswith(said)


async def test_a_model_that_nobody_serves_is_reported_with_the_one_that_will_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router("org/second") as emulator:
        told = await line(emulator, caplog)

    why = "Nobody serves org/chosen at Hugging Face"
    assert told[0] == logging.WARNING
    assert told[1].startswith(f"{why}: set MODEL_ID")
    assert told[1].endswith("; emulated serves org/second")


async def test_where_no_model_is_served_the_settings_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router("org/other") as emulator:
        level, said = await line(emulator, caplog)

    assert level == logging.WARNING
    assert "Nobody serves org/second" in said
    assert "set MODEL_FALLBACKS" in said


async def test_a_token_that_is_none_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with make_router() as emulator:
        emulator.api_key = "hf_another"
        level, said = await line(emulator, caplog)

    assert level == logging.WARNING
    assert said.startswith("Hugging Face does not accept the token: set HF_TOKEN")


@pytest.mark.parametrize("granted", [(), ("repo.content.read",)])
async def test_a_token_without_the_permission_is_reported(
    granted: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with make_router() as emulator:
        emulator.permissions = granted
        level, said = await line(emulator, caplog)

    assert level == logging.WARNING
    assert 'allow it "Make calls to Inference Providers"' in said


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '{"providers": 5}',
        '{"data": {"providers": [1, {}]}}',
        "<html>",
        "[" * 65_000,
    ],
)
async def test_no_answer_is_too_strange(body: str, caplog: pytest.LogCaptureFixture) -> None:
    async with make_router() as emulator:
        emulator.fail("GET ", status=200, body=body, times=3)
        level, _ = await line(emulator, caplog)

    assert level == logging.WARNING


async def test_a_providers_name_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    evil = ("novita\nCRITICAL: all is lost", "\x1b[31mred", "x" * 1000, 5, None)
    providers = [{"provider": name, "status": "live"} for name in (*evil, "groq")]
    async with make_router() as emulator:
        emulator.fail("GET /v1/models", status=200, body={"providers": providers})
        _, said = await line(emulator, caplog)

    assert said == "groq serves org/chosen"


async def test_no_more_of_an_answer_is_kept_than_it_can_need(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router() as emulator:
        body = '{"providers": [{"provider": "novita", "status": "live"}]}'.rjust(5_000_000)
        emulator.fail("GET /v1/models", status=200, body=body)
        level, _ = await line(emulator, caplog, "org/chosen")

    assert level == logging.WARNING


@pytest.mark.parametrize("status", [302, 401, 429, 500, 503])
async def test_a_router_that_fails_says_nothing_of_the_model(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_router() as emulator:
        emulator.fail("GET /v1/models", status=status, times=2)
        _, said = await line(emulator, caplog)

    assert f"who serves org/chosen: it answers HTTP {status}" in said


async def test_a_hub_that_fails_hides_nothing_of_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router() as emulator:
        emulator.fail("whoami", "reset", times=2)
        _, said = await line(emulator, caplog)

    assert said == "emulated serves org/chosen"


async def test_a_router_that_is_silent_is_reported_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router() as emulator:
        emulator.fail("GET /v1/models", "hang", times=2)
        _, said = await line(emulator, caplog, seconds=0.2)

    assert "cannot be reached: is this machine online" in said


async def test_a_router_that_cannot_be_reached_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_router() as emulator:
        await emulator.refuse_connections()
        _, said = await line(emulator, caplog)

    assert said.endswith("is this machine online, or does it need a proxy (HTTPS_PROXY)?")


@pytest.fixture
def silent_proxy(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """A proxy before all the world that takes connections and says nothing."""
    proxy = socket.create_server(("127.0.0.1", 0))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return proxy


async def test_the_start_does_not_wait_for_the_router(silent_proxy: socket.socket) -> None:
    settings = settings_of(hf_token=TOKEN)
    with silent_proxy:
        # Nobody answers before the end: whoever waited would wait for ever.
        async with asyncio.timeout(60), open_assistant(settings, asyncio.Event()) as assistant:
            silent_proxy.settimeout(30)
            asked, _ = await asyncio.to_thread(silent_proxy.accept)
            with asked:
                assert assistant.model.name == settings.model_id


async def test_a_server_of_ones_own_is_asked_nothing(silent_proxy: socket.socket) -> None:
    async with ModelEmulator() as emulator, AsyncExitStack() as stack:
        stack.enter_context(silent_proxy)
        settings = settings_of(hf_token=TOKEN, model_url=emulator.url)
        async with open_assistant(settings, asyncio.Event()):
            silent_proxy.settimeout(0.3)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(silent_proxy.accept)

    assert emulator.requests == []
    assert emulator.unknown == []


async def test_the_price_of_the_dearest_provider_is_kept_until_another_is_told() -> None:
    prices = Prices({"fixed": Price(1, 1)})
    labels = {"org/chosen": "Clever", "org/chosen:novita": "Novita", "org/chosen:cheapest": "Cheap"}
    async with make_router() as emulator, connect(_server(emulator)) as router:
        emulator.providers = {"novita": "live", "together": "live", "groq": "error"}
        emulator.pricing = {"novita": (0.1, 0.3), "together": (0.2, 0.6), "groq": (9, 9)}
        keeping = huggingface.keep_prices(router, labels, prices, pause_seconds=0.01)
        async with running(keeping):
            await until(lambda: len(prices.known) == 3)
            first = dict(prices.known)
            emulator.pricing = {"together": (0.4, 0.6)}
            await until(lambda: prices.of("Clever") == Price(0.4, 0.6))

    assert first == {"Clever": Price(0.2, 0.6), "Novita": Price(0.1, 0.3), "Cheap": Price(0.1, 0.3)}
    # What is not told any more stays.
    assert prices.of("Novita") == Price(0.1, 0.3)
    assert (prices.of("fixed"), prices.of("other")) == (Price(1, 1), None)
