"""The real `transformers serve` with a tiny random model, by MODEL_URL."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from bot.domain import Message
from bot.errors import AnswerCut
from tests.support.ports import free_port
from tests.support.process import DiscordDm, discord_bot
from tests.support.waiting import until

if any(importlib.util.find_spec(each) is None for each in ("torch", "transformers", "fastapi")):
    pytest.skip(
        "for these tests install requirements-transformers.txt and transformers[serving]",
        allow_module_level=True,
    )
from tests.model.test_server_info import connected
from tests.support.tiny_models import tiny_llama

PROMPT = [Message("system", "Be brief."), Message("user", "Hello")]


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, str]]:
    """The address of a server that runs one model, and the model's name."""
    root = tmp_path_factory.mktemp("serve")
    folder = tiny_llama(root / "model")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port)),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(partial(_is_open, port), within=60)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.kill()
        await process.wait()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_it_streams_an_answer(served: tuple[str, str]) -> None:
    deltas = []
    async with connected(*served) as model:
        with suppress(AnswerCut):
            async for delta in model.stream(PROMPT):
                deltas.append(delta)

    assert len("".join(deltas)) == 20


async def test_it_answers_in_discord(served: tuple[str, str], tmp_path: Path) -> None:
    url, name = served
    variables = {"MODEL_URL": url, "MODEL_ID": name, "MAX_TOKENS": "30"}
    async with discord_bot(tmp_path, None, **variables) as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(way.finals, within=60, why=running.text)
