"""The embedded model under faults, as people on a platform see it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path

import pytest

from bot.app import assistant as mind_module
from bot.domain import Exchange, Message
from bot.errors import AnswerCut
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.local.test_llama_cpp import demo_file
from tests.support.process import (
    BotProcess,
    DiscordDm,
    SlackDm,
    Way,
    alive,
    bot,
    children,
    discord_bot,
    remembered_in,
    slack_variables,
)
from tests.support.waiting import until

QUESTION = "What is the capital of France?"
STORY = "Tell me a very long story about a king, with many details."


def discord_with_the_demo(
    data_dir: Path, *, max_tokens: int
) -> AbstractAsyncContextManager[tuple[DiscordEmulator, BotProcess]]:
    variables = {"MODEL_ID": "demo", "MAX_TOKENS": str(max_tokens), "TEMPERATURE": "0"}
    return discord_bot(data_dir, None, **variables)


async def read_history(data_dir: Path, *, at_least: int) -> list[Exchange]:
    """Return the exchanges in the histories, when there are at least so many."""
    async with asyncio.timeout(60):
        while len(found := await remembered_in(data_dir)) < at_least:
            await asyncio.sleep(0.1)
    return found


def llama(running: BotProcess) -> int:
    """Return the process id of the embedded server of a bot."""
    (pid,) = children("bot.local.llama_cpp_process", parent=running.process.pid)
    return pid


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
        variables = slack_variables(slack) | {"MAX_TOKENS": "60", "TEMPERATURE": "0"} | chosen
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
    async with mind_module.open_assistant(settings, asyncio.Event()) as mind:
        said = ""
        with suppress(AnswerCut):
            async for delta in mind.model.stream([Message("user", QUESTION)]):
                said += str(delta)

    assert said
