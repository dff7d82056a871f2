"""The bots that a bench compares, each as a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from bench.stage import DiscordStage, SlackStage, Stage
from tests.support.process import ROOT, BotProcess, bot

CHAT_SDK = Path(__file__).parent / "chat_sdk"
INSTALLING = 180.0  # seconds
ENDING = 5.0  # seconds


@asynccontextmanager
async def parley(stage: Stage, platform: str, folder: Path) -> AsyncIterator[BotProcess]:
    """Run our bot as an operator does, with its own store."""
    del platform
    variables = stage.variables() | {"LEASE_SECONDS": "3"}
    async with bot(data_dir=folder, variables=variables) as running:
        yield running


@asynccontextmanager
async def naive(stage: Stage, platform: str, folder: Path) -> AsyncIterator[BotProcess]:
    """Run the bot of bench/naive.py."""
    del folder
    command = (sys.executable, "-m", "bench.naive", platform)
    async with _child(*command, variables={"PYTHONPATH": str(ROOT), **stage.variables()}) as one:
        yield one


@asynccontextmanager
async def chat_sdk(
    stage: Stage, platform: str, folder: Path, *, update_ms: str = ""
) -> AsyncIterator[BotProcess]:
    """Run Vercel's Chat SDK, as in bench/chat_sdk/index.mjs."""
    del folder
    variables = stage.variables() | {"UPDATE_MS": update_ms}
    if isinstance(stage, SlackStage) and stage.in_streams:
        variables["SLACK_STREAMS"] = "on"
    if isinstance(stage, DiscordStage):
        # Where it is mentioned outside of a thread, it always opens one.
        stage.ask_inside = True
        variables["DISCORD_APPLICATION_ID"] = stage.discord.application_id
    async with _child("node", str(CHAT_SDK / "index.mjs"), platform, variables=variables) as one:
        yield one


Peer = Callable[[Stage, str, Path], AbstractAsyncContextManager[BotProcess]]
PEERS: dict[str, Peer] = {
    "parley": parley,
    "naive": naive,
    "chat-sdk": chat_sdk,
    # Tuned to what a channel of Discord allows.
    "chat-sdk-1200": partial(chat_sdk, update_ms="1200"),
}


def missing(peer: str) -> str:
    """Return what would have to be there for this bot to run; nothing when it can."""
    if not peer.startswith("chat-sdk") or (CHAT_SDK / "node_modules" / "chat").exists():
        return ""
    if not (shutil.which("node") and shutil.which("npm")):
        return "Node 20 or newer, with npm"
    command = ("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    try:
        subprocess.run(command, cwd=CHAT_SDK, check=True, capture_output=True, timeout=INSTALLING)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return f"a network in which `npm ci` works in {CHAT_SDK}"
    return ""


@asynccontextmanager
async def _child(*command: str, variables: dict[str, str]) -> AsyncIterator[BotProcess]:
    """Run a command with these variables and no others; it is gone at the end."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": home, **variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        running = BotProcess(process)
        try:
            yield running
        finally:
            await _end(process)
            log.seek(0)
            running.log += log.read()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), ENDING)
    except TimeoutError:
        process.kill()
        await process.wait()
