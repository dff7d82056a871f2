"""The end of a process: at any moment, whatever hangs, and with 0."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bot.__main__ import DRAIN_SECONDS
from bot.store import connect
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.process import ROOT, Bot, DiscordDm, bot, catches, discord_bot, discord_variables
from tests.support.waiting import until

pytestmark = pytest.mark.process

LIMIT = 25.0  # seconds after the first signal, as README.md promises
# asyncio's own loop asks the resolver in a thread, for which Python waits at its end.
HANGING_RESOLVER = """
import socket, sys, time
sys.modules["uvloop"] = None
socket.getaddrinfo = lambda *_, **__: time.sleep(600)
"""
HANGING_IMPORT = """
import sys
sys.addaudithook(lambda event, words: event == "import" and words[0] == "aiohttp" and open("gate"))
"""


@asynccontextmanager
async def a_bot(data_dir: Path, *, made_first: str = "") -> AsyncIterator[Bot]:
    """A worker whose interpreter runs this text before anything else."""
    (data_dir / "sitecustomize.py").write_text(made_first)
    async with ModelEmulator() as model, DiscordEmulator() as discord:
        variables = discord_variables(discord, model)
        # The resolver is not asked for an address in figures.
        variables["DISCORD_API_URL"] = discord.api_url.replace("127.0.0.1", "localhost")
        variables["PYTHONPATH"] = f"{data_dir}:{ROOT}"
        async with bot("worker", data_dir=data_dir, variables=variables) as running:
            yield running


async def ended(running: Bot) -> float:
    """Wait for the end, which is to be in order; return when it came, in monotonic seconds."""
    assert await asyncio.wait_for(running.process.wait(), LIMIT) == 0, running.text()
    assert "Traceback" not in running.text()
    return time.monotonic()


async def test_a_resolver_that_hangs_holds_up_nothing(data_dir: Path) -> None:
    async with a_bot(data_dir, made_first=HANGING_RESOLVER) as running:
        await until(lambda: "Answers come from" in running.text(), why=running.text)
        # Nothing tells that the thread is in the resolver by now; before, the end is easy.
        await asyncio.sleep(1)
        began = time.monotonic()
        running.process.terminate()

        assert await ended(running) - began < 10


@pytest.mark.parametrize("gate", ["gate", ".env"])
async def test_a_signal_before_the_loop_runs_is_heeded(gate: str, data_dir: Path) -> None:
    os.mkfifo(data_dir / gate)
    async with a_bot(data_dir, made_first=HANGING_IMPORT if gate == "gate" else "") as running:
        await until(lambda: _is_waited_for(data_dir / gate), why=running.text)
        running.process.terminate()

        await ended(running)


def _is_waited_for(fifo: Path) -> bool:
    """Tell whether somebody hangs in opening it to read, and let it be so."""
    try:
        # Left open: the other side goes on to wait for what is written.
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells which signals are caught")
@pytest.mark.parametrize("seed", range(4))
async def test_no_signal_is_one_too_many_at_any_moment(seed: int, data_dir: Path) -> None:
    rng = random.Random(seed)
    async with a_bot(data_dir) as running:
        # From the first moment at which it catches signals until it runs.
        await until(lambda: catches(running.process, signal.SIGTERM))
        await asyncio.sleep(rng.uniform(0, 1.5))
        # `send_signal` may wait for the process itself, and then nobody learns its exit code.
        with suppress(ProcessLookupError):
            while running.process.returncode is None:
                os.kill(running.process.pid, rng.choice((signal.SIGTERM, signal.SIGINT)))
                await asyncio.sleep(rng.uniform(0, 0.05))

        await ended(running)
    # Whatever it has begun has ended with it, or ends by itself.
    async with connect(url="", data_dir=data_dir) as store:
        await store.ping()


async def test_a_process_is_gone_in_time_though_its_reply_and_its_own_store_hang(
    data_dir: Path,
) -> None:
    async with ModelEmulator() as model:
        model.delay = 3
        async with discord_bot(data_dir, model, LEASE_SECONDS="1") as (discord, running):
            way = DiscordDm(discord)
            await way.ask("What is it?")
            await until(lambda: way.finals())
            async with connect(url="", data_dir=data_dir) as store:
                pid = (await store.redis.info("server"))["process_id"]
            os.kill(pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                running.process.terminate()
                await asyncio.sleep(5)
                running.process.terminate()  # the time counts from the first one

                assert await ended(running) - began < LIMIT
            finally:
                os.kill(pid, signal.SIGCONT)


async def test_a_reply_that_takes_too_long_is_handed_over_and_ended_by_the_next(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.answer = "The quick brown fox jumps over the lazy dog. " * 20 + "The end."
    model.delay = 60 * model.chunk / len(model.answer)
    async with DiscordEmulator() as discord:
        way = DiscordDm(discord)
        # A lease so long that only what was handed over can be answered in time.
        variables = discord_variables(discord, model) | {"LEASE_SECONDS": "60"}
        async with bot(data_dir=data_dir, variables=variables) as old:
            await asyncio.wait_for(discord.connected.wait(), 60)
            await way.ask("What is it?")
            await until(lambda: way.finals())
            began = time.monotonic()
            old.process.terminate()
            lasted = await ended(old) - began
        half_written = way.finals()
        model.delay = 0
        async with bot(data_dir=data_dir, variables=variables):
            await until(lambda: way.finals() == [model.answer], within=30)

    assert DRAIN_SECONDS <= lasted < LIMIT
    assert half_written != [model.answer]
