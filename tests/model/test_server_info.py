"""What several kinds of server say of themselves, and the ways in which they want to be asked.

The shapes are those of the servers' own words: llama.cpp's and `transformers serve`'s from running
them; vLLM's from entrypoints/openai/models/protocol.py and its issue 2964; text-generation-
inference's from docs/openapi.json; Ollama's from docs/openapi.yaml and docs/context-length.mdx;
text-generation-webui's from extensions/openai/models.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.domain import Json, Message
from bot.errors import AnswerCut, ModelUnknown, PromptRefused
from bot.local.llama_cpp import serve
from bot.model.server import ModelServer
from bot.model.server_info import ServerInfo, fetch_server_info
from bot.model.transport import connect
from config.settings import Settings
from tests.emulators.model import ModelEmulator
from tests.support.model import OneAttempt, open_model

MISTRAL = "mistralai/Mistral-7B-Instruct-v0.3"
PROMPT = [Message("system", "Be brief."), Message("user", "Hello")]

VLLM: dict[str, Json] = {
    "GET /v1/models": {"data": [{"id": "google/gemma-2-2b-it", "max_model_len": 4096}]}
}
TGI: dict[str, Json] = {
    "GET /v1/models": {"data": [{"id": "tgi-model", "owned_by": "tgi-model"}]},
    "GET /info": {"model_id": "tgi-model", "max_input_tokens": 32767, "max_total_tokens": 32768},
}
TEXTGEN: dict[str, Json] = {
    "GET /v1/models": {"data": [{"id": "a.gguf"}, {"id": "b.gguf"}]},
    "GET /v1/internal/model/info": {"model_name": "b.gguf", "lora_names": []},
}
OLLAMA: dict[str, Json] = {
    "GET /v1/models": {"data": [{"id": "gemma3:latest", "owned_by": "library"}]},
    "GET /api/ps": {"models": []},
    "POST /api/show": {
        "parameters": "temperature 0.7\nstop <end>",
        "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 131072},
    },
}
OLLAMA_CHOSEN: dict[str, Json] = OLLAMA | {
    "POST /api/show": {"parameters": "temperature 0.7\nnum_ctx 16384", "model_info": {}}
}
OLLAMA_RUNNING: dict[str, Json] = OLLAMA_CHOSEN | {
    "GET /api/ps": {"models": [{"name": "gemma3:latest", "context_length": 8192}]}
}


def ollama_with(parameters: str) -> dict[str, Json]:
    return OLLAMA | {"POST /api/show": {"parameters": parameters, "model_info": {}}}


@asynccontextmanager
async def serve_answers(answers: Mapping[str, Json]) -> AsyncIterator[str]:
    """Answer these calls, and everything else with a 404; yields the address."""

    async def answer(request: web.Request) -> web.Response:
        said = answers.get(f"{request.method} {request.path}")
        return web.json_response(said) if said is not None else web.Response(status=404)

    async with serve_with(answer) as url:
        yield url


@asynccontextmanager
async def serve_with(answer: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def fetched(url: str, model: str = MISTRAL, key: str = "-") -> ServerInfo:
    async with connect(ModelServer(url=url, key=key, model=model, own=True)) as connection:
        return await fetch_server_info(connection)


def connected(url: str, model: str = MISTRAL) -> AbstractAsyncContextManager[OneAttempt]:
    return open_model(
        model=model,
        base_url=url,
        api_key="",
        max_tokens=20,
        temperature=0.0,
        top_p=None,
        idle_timeout=30,
        total_timeout=60,
    )


async def answer(model: OneAttempt, prompt: list[Message] = PROMPT) -> str:
    said = ""
    try:
        async for delta in model.stream(prompt):
            said += delta
    except AnswerCut:
        pass
    return said


class TestFetching:
    @pytest.mark.parametrize(
        ("answers", "name", "context"),
        [
            (VLLM, "google/gemma-2-2b-it", 4096),
            (TGI, "tgi-model", 32768),
            (TEXTGEN, None, None),
            (OLLAMA, "gemma3:latest", 4096),
            (OLLAMA_CHOSEN, "gemma3:latest", 16384),
            (OLLAMA_RUNNING, "gemma3:latest", 8192),
            (ollama_with("num_ctx 0"), "gemma3:latest", None),
            (ollama_with(f"num_ctx {'9' * 12}"), "gemma3:latest", None),
            (ollama_with(f"num_ctx {'9' * 5000}"), "gemma3:latest", None),
            ({}, None, None),
            ({"GET /v1/models": ["nonsense"]}, None, None),
            ({"GET /v1/models": {"data": [7, {"id": None}]}}, None, None),
        ],
    )
    async def test_each_kind_of_server_is_understood(
        self, answers: Mapping[str, Json], name: str | None, context: int | None
    ) -> None:
        async with serve_answers(answers) as url:
            info = await fetched(url)

        assert (info.name_for(MISTRAL), info.context) == (name, context)

    async def test_ollamas_names_may_be_said_without_a_tag(self) -> None:
        models: list[Json] = [{"id": "gemma3:latest"}, {"id": "qwen3:0.6b"}]
        async with serve_answers(OLLAMA_RUNNING | {"GET /v1/models": {"data": models}}) as url:
            info = await fetched(url, "gemma3")

        assert info.name_for("gemma3") == "gemma3:latest"
        assert info.context == 8192

    async def test_a_long_list_of_models_is_read_to_its_end(self) -> None:
        models: list[Json] = [{"id": f"model-{n}", "about": "x" * 1000} for n in range(1000)]
        async with serve_answers({"GET /v1/models": {"data": models}}) as url:
            info = await fetched(url)

        assert len(info.models) == 1000

    async def test_an_answer_without_an_end_is_not_read_to_it(self) -> None:
        sent = 0

        async def flood(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" " * 1_000_000)
                sent += 1

        async with serve_with(flood) as url:
            assert await fetched(url) == ServerInfo((), None)

        assert sent < 30

    async def test_a_redirect_takes_no_key_elsewhere(self) -> None:
        seen: list[str] = []

        async def elsewhere(request: web.Request) -> web.Response:
            seen.append(request.path)
            return web.json_response(OLLAMA["GET /v1/models"])

        async with serve_with(elsewhere) as other:

            async def redirect(_: web.Request) -> web.Response:
                return web.Response(status=307, headers={"Location": other + "/models"})

            async with serve_with(redirect) as url:
                assert await fetched(url, key="secret") == ServerInfo((), None)

        assert not seen

    async def test_what_is_no_name_on_a_line_is_none(self) -> None:
        names = ["a\nERROR all is lost", "\x1b[31mred", "x" * 1000, "", "a model.gguf"]
        models: list[Json] = [{"id": name} for name in names]
        async with serve_answers({"GET /v1/models": {"data": models}}) as url:
            info = await fetched(url)

        assert info.models == ("a model.gguf",)

    async def test_a_server_that_is_away_offers_nothing(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = "http://{}:{}/v1".format(*closed.getsockname())

            info = await fetched(url)

        assert info == ServerInfo((), None)
        assert "cannot be reached: is it running, and is MODEL_URL right?" in info.trouble

    async def test_a_proxy_that_is_away_is_no_trouble_of_the_server(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("HTTP_PROXY", "http://{}:{}".format(*closed.getsockname()))
            info = await fetched("http://0.0.0.0:1/v1")

        assert "HTTP_PROXY" in info.trouble

    async def test_an_unknown_name_is_reported(self) -> None:
        info = await fetched("http://nowhere.invalid/v1")

        # Without a network the resolver itself may be away.
        assert info.trouble.startswith("nowhere.invalid ")

    async def test_the_real_llama_cpp_tells_its_context(self) -> None:
        settings = Settings(gpu_layers=0, context_tokens=512)
        async with serve(settings, path=None, parallel=2) as server:
            info = await fetched(server.url, key=server.api_key)

        assert len(info.models) == 1
        assert info.context == 512


# What the servers say where a template, Gemma's or an older Mistral's, takes no system prompt.
REFUSALS: dict[str, tuple[int, Json]] = {
    "vllm": (400, {"object": "error", "message": "System role not supported", "code": 400}),
    "vllm, newer": (400, {"error": {"message": "System role not supported None", "code": 400}}),
    "tgi": (
        422,
        {
            "error": "Template error: invalid operation: Conversation roles must alternate"
            " user/assistant/user/assistant/... (in <string>:1)",
            "error_type": "template_error",
        },
    ),
    "FastAPI": (400, {"detail": "System role not supported"}),
}


class TestCapabilities:
    @pytest.mark.parametrize("kind", REFUSALS)
    async def test_a_template_without_a_system_prompt_is_asked_in_its_own_way(
        self, kind: str
    ) -> None:
        status, body = REFUSALS[kind]
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.fail("chat/completions", status=status, body=json.dumps(body))

            first, second = await answer(model), await answer(model)

        asked = [[one["role"] for one in each.messages] for each in emulator.requests]
        assert asked == [["system", "user"], ["user"], ["user"]]
        assert emulator.requests[1].messages[0]["content"] == "Be brief.\n\nHello"
        assert first == second != ""

    async def test_a_server_that_has_taken_a_system_prompt_is_given_the_next(self) -> None:
        status, body = REFUSALS["tgi"]
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            assert await answer(model)
            emulator.fail("chat/completions", status=status, body=json.dumps(body))
            assert await answer(model)
            assert await answer(model)

        roles = [each.messages[0]["role"] for each in emulator.requests]
        assert roles == ["system", "system", "user", "system"]

    async def test_a_refusal_of_the_folded_prompt_is_the_end(self) -> None:
        status, body = REFUSALS["vllm"]
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.fail("chat/completions", status=status, body=json.dumps(body), times=2)

            with pytest.raises(PromptRefused):
                await answer(model)

        assert len(emulator.requests) == 2

    async def test_the_only_model_of_a_server_is_asked_whatever_its_name(self) -> None:
        async with ModelEmulator(flavour="vllm") as emulator, connected(emulator.url) as model:
            emulator.models = ("gemma",)

            assert await answer(model)
            assert await answer(model)

        assert [each.body["model"] for each in emulator.requests] == [MISTRAL, "gemma", "gemma"]
        assert model.name == MISTRAL

    @pytest.mark.parametrize("later", [(MISTRAL,), (MISTRAL, "qwen")])
    async def test_the_model_of_the_operator_is_asked_when_it_is_back(
        self, later: tuple[str, ...], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with ModelEmulator(flavour="vllm") as emulator, connected(emulator.url) as model:
            emulator.models = ("gemma",)
            assert await answer(model)
            emulator.models = later

            assert await answer(model)

        assert emulator.requests[-1].body["model"] == MISTRAL
        assert f"MODEL_ID={MISTRAL} again" in caplog.text

    async def test_eight_who_ask_at_once_find_the_only_model(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with ModelEmulator(flavour="vllm") as emulator, connected(emulator.url) as model:
            emulator.models = ("gemma",)

            answers = await asyncio.gather(*(answer(model) for _ in range(8)))

        assert all(answers)
        assert len([it for it in caplog.records if it.levelno == logging.WARNING]) == 1

    async def test_one_of_several_models_is_for_the_operator_to_choose(self) -> None:
        async with ModelEmulator(flavour="vllm") as emulator, connected(emulator.url) as model:
            emulator.models = ("gemma", "qwen")

            with pytest.raises(ModelUnknown, match="MODEL_ID"):
                await answer(model)

        assert len(emulator.requests) == 1
