"""The embedded model under faults, as people on a platform see it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from bot.app import assistant as mind_module
from bot.domain import Exchange, Message
from bot.errors import AnswerCut
from bot.store import connect
from bot.turns.history import decode
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.local.test_llama_cpp import demo_file
from tests.support.process import BotProcess, DiscordDm, SlackDm, Way, bot
from tests.support.waiting import until

QUESTION = "What is the capital of France?"
STORY = "Tell me a very long story about a king, with many details."


@asynccontextmanager
async def discord_with_the_demo(
    data_dir: Path, *, max_tokens: int
) -> AsyncIterator[tuple[DiscordEmulator, BotProcess]]:
    async with DiscordEmulator() as discord:
        variables = {
            "DISCORD_TOKEN": discord.token,
            "DISCORD_API_URL": discord.api_url,
            "DISCORD_GATEWAY_URL": discord.gateway_url,
            "MODEL_ID": "demo",
            "MAX_TOKENS": str(max_tokens),
            "TEMPERATURE": "0",
        }
        async with bot(data_dir=data_dir, variables=variables) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            yield discord, running


async def read_history(data_dir: Path, *, at_least: int) -> list[Exchange]:
    """Return the exchanges in the histories, when there are at least so many."""
    async with asyncio.timeout(60):
        while len(found := await exchanges_in(data_dir)) < at_least:
            await asyncio.sleep(0.1)
    return found


async def exchanges_in(data_dir: Path) -> list[Exchange]:
    async with connect(url="", data_dir=data_dir) as store:
        found: list[Exchange] = []
        for name in await store.command("KEYS", store.key("history", "*")):
            found += [decode(line) for line in await store.command("LRANGE", name, 0, -1)]
    return found


def llama(running: BotProcess) -> int:
    """Return the process id of the embedded server of a bot."""
    (pid,) = [
        int(pid)
        for pid, parent, command in rows("pid=,ppid=,args=")
        if int(parent) == running.process.pid and "bot.local.llama_cpp_process" in command
    ]
    return pid


def alive(pid: int) -> bool:
    return any(int(other) == pid and state[0] != "Z" for other, state in rows("pid=,stat="))


def rows(columns: str) -> list[list[str]]:
    table = subprocess.run(
        ["ps", "-A", "-o", columns], capture_output=True, text=True, check=True
    ).stdout
    return [line.split(None, columns.count(",")) for line in table.splitlines()]


async def cpu_seconds_when_idle(pid: int) -> float:
    """Return the CPU time of a process when it does not grow any more."""
    last, now = -1.0, cpu_seconds(pid)
    while now - last > 0.02:
        await asyncio.sleep(0.3)
        last, now = now, cpu_seconds(pid)
    return now


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        pytest.skip("this system does not tell how long a process has computed: needs /proc")
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def grows(way: Way) -> bool:
    return bool(way.answers()) and len(way.answers()[-1][1]) >= 2


def is_whole(way: Way, number: int, exchanges: Sequence[Exchange]) -> bool:
    """Say whether an answer stands complete, as it is remembered."""
    finals = way.finals()
    return len(finals) >= number and finals[number - 1].strip() in {
        each.answer.strip() for each in exchanges
    }


async def test_eight_conversations_take_turns_at_four_slots(data_dir: Path) -> None:
    async with discord_with_the_demo(data_dir, max_tokens=60) as (discord, running):
        ways = [DiscordDm(discord) for _ in range(8)]
        ended: list[int] = []

        async def talk(way: DiscordDm) -> None:
            for times in (1, 2):
                await way.ask(QUESTION)
                await until(partial(is_over, way, times), why=running.text)
                ended.append(times)

        await asyncio.gather(*(talk(way) for way in ways))
        exchanges = await read_history(data_dir, at_least=16)

    assert len(exchanges) == 16
    for way in ways:
        assert is_whole(way, 1, exchanges)
        assert is_whole(way, 2, exchanges)
        assert "Paris" in way.finals()[0]
    # Nobody has a second answer while somebody waits for a first one.
    assert ended[:8] == [1] * 8


def is_over(way: DiscordDm, times: int) -> bool:
    """Say whether the last of so many answers is complete, which its button says."""
    shown = way.shown()
    return len(shown) == times and any(it.startswith("regenerate") for it in shown[-1].buttons)


async def test_stop_ends_the_work_in_llama_cpp_at_once(data_dir: Path) -> None:
    async with discord_with_the_demo(data_dir, max_tokens=512) as (discord, running):
        ways = [DiscordDm(discord) for _ in range(mind_module.LOCAL_SLOTS)]
        for way in ways:
            await way.ask(STORY)
        await until(lambda: all(way.finals() for way in ways), why=running.text)
        for way in ways:
            await way.press()
        await until(lambda: all(way.finals()[0].endswith("(Stopped.)") for way in ways))

        before = cpu_seconds(llama(running))
        spent = await cpu_seconds_when_idle(llama(running)) - before
        fifth = DiscordDm(discord)
        await fifth.ask(QUESTION)
        await until(lambda: "Paris" in "".join(fifth.finals()), why=running.text)

    # The rest of the four stories would take some 20 seconds.
    assert spent < 5


async def test_an_answer_that_llama_cpp_dies_in_is_asked_for_again(data_dir: Path) -> None:
    async with discord_with_the_demo(data_dir, max_tokens=120) as (discord, running):
        way = DiscordDm(discord)
        await way.ask(STORY)
        await until(lambda: grows(way), why=running.text)
        os.kill(llama(running), signal.SIGKILL)
        await until(lambda: is_over(way, 1), why=running.text)
        (exchange,) = await read_history(data_dir, at_least=1)

    (final,) = way.finals()
    # It went on for as long as it may, and stands there once.
    assert final.endswith(AnswerCut.apology)
    assert final.count(exchange.answer.strip()[:60]) == 1
    assert len(exchange.answer) > 250


async def test_a_killed_bot_leaves_no_llama_cpp(data_dir: Path) -> None:
    async with discord_with_the_demo(data_dir, max_tokens=512) as (discord, running):
        way = DiscordDm(discord)
        await way.ask(STORY)
        await until(lambda: grows(way), why=running.text)
        child = llama(running)
        running.kill()
        await running.process.wait()

        await until(lambda: not alive(child), within=10)


@pytest.mark.parametrize(
    ("chosen", "tokens"),
    [
        ({"MODEL_ID": "demo"}, 2048),
        ({"LOCAL_MODEL_PATH": str(demo_file()), "SYSTEM_PROMPT": mind_module.DEMO_PROMPT}, 8192),
    ],
)
async def test_slack_is_answered_too_and_the_log_says_by_what(
    chosen: dict[str, str], tokens: int, data_dir: Path
) -> None:
    async with SlackEmulator() as slack:
        variables = {
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_API_URL": slack.api_url,
            "MAX_TOKENS": "60",
            "TEMPERATURE": "0",
        }
        variables |= chosen
        async with bot(data_dir=data_dir, variables=variables) as running:
            await asyncio.wait_for(slack.connected.wait(), 60)
            way = SlackDm(slack)
            await way.ask(QUESTION)
            await until(lambda: "Paris" in "".join(way.finals()), why=running.text)

    assert "The embedded model runs on" in running.text()
    assert f"4 conversations at once with {tokens} tokens each" in running.text()


async def test_who_waits_for_a_slot_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # As good as no silence: llama.cpp says nothing while it reads a prompt or has no slot.
    monkeypatch.setattr(mind_module, "IDLE_SECONDS", 0.001)
    settings = Settings(model_id="demo", max_tokens=30, temperature=0.0)
    async with mind_module.open_assistant(settings, frozenset({"worker"}), asyncio.Event()) as mind:
        said = ""
        with suppress(AnswerCut):
            async for delta in mind.model.stream([Message("user", QUESTION)]):
                said += str(delta)

    assert said
