"""The real llama.cpp with the demo model and a tiny mmproj: pictures are bounded, and harm none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bot.domain import Message
from bot.errors import AnswerCut, CannotStart
from bot.files.pictures import read_picture
from bot.files.problem import Problem
from bot.local.child_process import LocalServer
from bot.local.llama_cpp import serve
from bot.local.llama_cpp_process import _CPU_PICTURE
from bot.model.client import ModelClient
from bot.model.context_window import ContextWindowModel
from bot.model.server import ModelServer
from bot.model.transport import connect
from bot.tokens.counters import TokenEstimator
from config.settings import Settings
from tests.local.test_llama_cpp import demo_file
from tests.support.pictures import png
from tests.support.tiny_mmproj import write_mmproj

ANSWER = 8  # tokens


def settings(mmproj: Path, *, vision: bool | None = None) -> Settings:
    return Settings(
        gpu_layers=0,
        context_tokens=2048,
        max_tokens=ANSWER,
        local_mmproj_path=mmproj,
        vision=vision,
    )


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalServer]:
    mmproj = write_mmproj(tmp_path_factory.mktemp("mmproj") / "mmproj-F32.gguf")
    async with serve(settings(mmproj), path=demo_file(), parallel=1) as serving:
        yield serving


@asynccontextmanager
async def opened(server: LocalServer) -> AsyncIterator[ContextWindowModel]:
    address = ModelServer(url=server.url, key=server.api_key, model="demo", own=True)
    async with connect(address) as connection:
        chosen = Settings(max_tokens=ANSWER, temperature=0.0)
        yield ContextWindowModel(
            model=ModelClient(connection, chosen, idle_timeout=60.0),
            counter=TokenEstimator(),
            watch=None,
            prompt_tokens=50_000,
            answer_tokens=ANSWER,
        )


def question(width: int = 40, height: int = 30) -> list[Message]:
    picture = read_picture("cat.png", png(width, height))
    assert picture
    return [Message("user", "What is it?", files=(picture,))]


async def ask(model: ContextWindowModel, prompt: list[Message]) -> tuple[int, list[str]]:
    """Return the tokens that were read, and the problems that are told."""
    async with model.stream(prompt, deadline=float("inf")) as answer:
        problems = [file.problem for file in answer.files if not file.picture]
        with suppress(AnswerCut):
            async for _ in answer.deltas:
                pass
    return answer.prompt_tokens or 0, problems


async def test_the_model_sees_if_it_has_an_mmproj_file(server: LocalServer) -> None:
    async with opened(server) as model:
        assert await model.sees()
        read, problems = await ask(model, question())
        plain, _ = await ask(model, [Message("user", "What is it?")])

    assert problems == []
    assert read > plain


@pytest.mark.parametrize(("width", "height"), [(3000, 3000), (40, 9000)])
async def test_a_large_picture_takes_a_bounded_number_of_tokens(
    server: LocalServer, width: int, height: int
) -> None:
    async with opened(server) as model:
        read, problems = await ask(model, question(width, height))

    assert problems == []
    # Each row of patches has a mark of its own.
    assert 100 < read < 1.25 * _CPU_PICTURE


async def test_a_picture_that_cannot_be_decoded_is_told_and_the_server_lives(
    server: LocalServer,
) -> None:
    (asked,) = question()
    (picture,), (file,) = asked.pictures, asked.files
    broken = replace(file, picture=replace(picture, data=picture.data[:40]))
    async with opened(server) as model:
        _, problems = await ask(model, [replace(asked, files=(broken,))])
        _, after = await ask(model, question())

    assert problems == [Problem.NOT_TAKEN]
    assert after == []


async def test_a_model_without_an_mmproj_file_or_with_vision_off_is_blind(tmp_path: Path) -> None:
    blind = settings(write_mmproj(tmp_path / "mmproj.gguf"), vision=False)
    async with serve(blind, path=demo_file(), parallel=1) as serving, opened(serving) as model:
        assert not await model.sees()
        _, problems = await ask(model, question())

    assert problems == [Problem.PICTURE]


@pytest.mark.parametrize(
    "damage", ["of another model", "cut", "a model", "no GGUF file", "missing"]
)
async def test_an_mmproj_file_that_does_not_load_names_the_variable(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "mmproj.gguf"
    match damage:
        case "of another model":
            write_mmproj(path, embedding=512)
        case "cut":
            path.write_bytes(write_mmproj(path).read_bytes()[:200_000])
        case "a model":
            path = demo_file()
        case "no GGUF file":
            path.write_bytes(b"no")

    with pytest.raises(CannotStart) as caught:
        async with serve(settings(path), path=demo_file(), parallel=1):
            pass

    assert "LOCAL_MMPROJ_PATH" in str(caught.value)
