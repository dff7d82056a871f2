"""The end of a process: at any moment, whatever hangs, and with 0."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bot.app.service import DRAIN_SECONDS
from bot.app.shutdown import EXIT_SECONDS
from bot.store import connect
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.process import ROOT, BotProcess, DiscordDm, bot, catches, discord_variables
from tests.support.waiting import until

LIMIT = 25.0  # seconds after the first signal, as docs/deploying.md promises
# asyncio's own loop asks the resolver in a thread, for which Python waits at its end.
HANGING_RESOLVER = """
import pathlib, socket, sys, time
sys.modules["uvloop"] = None
socket.getaddrinfo = lambda *_, **__: (pathlib.Path("asked").touch(), time.sleep(600))
"""
HANGING_IMPORT = """
import sys
sys.addaudithook(lambda event, words: event == "import" and words[0] == "aiohttp" and open("gate"))
"""


@asynccontextmanager
async def running_bot(data_dir: Path, *, runs_first: str = "") -> AsyncIterator[BotProcess]:
    """A worker whose interpreter runs this text before anything else."""
    (data_dir / "sitecustomize.py").write_text(runs_first)
    async with ModelEmulator() as model, DiscordEmulator() as discord:
        variables = discord_variables(discord, model)
        # The resolver is not asked for an address in figures.
        variables["DISCORD_API_URL"] = discord.api_url.replace("127.0.0.1", "localhost")
        variables["PYTHONPATH"] = f"{data_dir}:{ROOT}"
        async with bot("worker", data_dir=data_dir, variables=variables) as running:
            yield running


async def ended(running: BotProcess) -> None:
    """Wait for the end of the process, which is to be in order."""
    assert await asyncio.wait_for(running.process.wait(), LIMIT) == 0, running.text()
    assert "Traceback" not in running.text()


def test_the_limits_keep_the_promise() -> None:
    assert DRAIN_SECONDS < EXIT_SECONDS < LIMIT


async def test_a_resolver_that_hangs_holds_up_nothing(data_dir: Path) -> None:
    async with running_bot(data_dir, runs_first=HANGING_RESOLVER) as running:
        await until((data_dir / "asked").exists, why=running.text)
        running.process.terminate()

        # Without a way around the resolver, only the limit of 24 seconds ends the process.
        async with asyncio.timeout(LIMIT / 2):
            await ended(running)


@pytest.mark.parametrize("gate", ["gate", ".env"])
async def test_a_signal_before_the_loop_runs_is_heeded(gate: str, data_dir: Path) -> None:
    os.mkfifo(data_dir / gate)
    async with running_bot(
        data_dir, runs_first=HANGING_IMPORT if gate == "gate" else ""
    ) as running:
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
@pytest.mark.parametrize("seed", range(2))
async def test_no_signal_is_one_too_many_at_any_moment(seed: int, data_dir: Path) -> None:
    rng = random.Random(seed)
    async with running_bot(data_dir) as running:
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


async def test_a_process_ends_in_time_even_if_its_reply_and_its_own_store_hang(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.delay = 3
    start = (
        "from bot.app.shutdown import ShutdownSignals, exit_process;"
        " signals = ShutdownSignals(serves=True, exit_seconds=1); signals.install();"
        " from bot.__main__ import main; exit_process(main(signals))"
    )
    async with DiscordEmulator() as discord:
        variables = discord_variables(discord, model) | {"LEASE_SECONDS": "1"}
        async with bot(data_dir=data_dir, variables=variables, start=("-c", start)) as running:
            await until(discord.connected.is_set, why=running.text)
            way = DiscordDm(discord)
            await way.ask("What is it?")
            await until(way.finals, why=running.text)
            async with connect(url="", data_dir=data_dir) as store:
                pid = (await store.redis.info("server"))["process_id"]
            os.kill(pid, signal.SIGSTOP)
            try:
                running.process.terminate()
                await asyncio.sleep(0.5)
                running.process.terminate()  # the time counts from the first signal

                # Without the limit, only the drain of 20 seconds would end the process.
                async with asyncio.timeout(DRAIN_SECONDS / 2):
                    await ended(running)
            finally:
                os.kill(pid, signal.SIGCONT)
