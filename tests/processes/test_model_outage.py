"""The model away, with the bot as a process: waited for, told calmly, and found again."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bot import errors
from bot.reply.draft import ANSWERED_BY, STOPPED
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    Bot,
    DiscordDm,
    DiscordMention,
    SlackMention,
    Way,
    bot,
    discord_bot,
    discord_variables,
    offers_another,
    remembered,
    slack_variables,
)
from tests.support.waiting import until

pytestmark = pytest.mark.process

ANSWER = "The quick brown fox jumps over the lazy dog again and again. " * 5 + "The end."
AWAY = errors.ModelUnavailable.apology


@asynccontextmanager
async def running_on(
    platform: str, data_dir: Path, model: ModelEmulator
) -> AsyncIterator[tuple[Way, Bot]]:
    async with AsyncExitStack() as stack:
        way: Way
        if platform == "discord":
            discord = await stack.enter_async_context(DiscordEmulator())
            variables, up = discord_variables(discord, model), discord.connected
            way = DiscordMention(discord)
        else:
            slack = await stack.enter_async_context(SlackEmulator())
            variables, up = slack_variables(slack, model), slack.connected
            way = SlackMention(slack)
        running = await stack.enter_async_context(bot(data_dir=data_dir, variables=variables))
        await asyncio.wait_for(up.wait(), 60)
        yield way, running


@pytest.mark.parametrize("platform", ["discord", "slack"])
async def test_a_model_that_dies_in_mid_answer_and_comes_back_gives_one_whole_answer(
    platform: str, data_dir: Path, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.05
    model.fail("completions", "drop", at_delta=25)
    async with running_on(platform, data_dir, model) as (way, running):
        await way.ask("What is it?")
        await until(lambda: model.requests and len(model.requests[0].deltas) == 25)
        await model.refuse_connections()
        await asyncio.sleep(1)
        await model.accept_connections()
        await until(lambda: way.finals() == [ANSWER] and offers_another(way), why=running.text)

        states = [state for state in way.answers()[0][1] if state]
        assert sorted(states, key=len) == states
        assert all(ANSWER.startswith(state.rstrip()) for state in states)
    assert [exchange.answer for exchange in await remembered(data_dir)] == [ANSWER]
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("platform", ["discord", "slack"])
async def test_an_answer_that_is_another_when_asked_anew_takes_the_place_of_the_broken_one(
    platform: str, data_dir: Path, model: ModelEmulator
) -> None:
    answers = iter(["One thing " * 20, "Another " * 30 + "end."])
    model.answer, model.delay = lambda _: next(answers), 0.05
    model.fail("completions", "reset", at_delta=20)
    async with running_on(platform, data_dir, model) as (way, running):
        await way.ask("What is it?")
        await until(lambda: way.finals() == ["Another " * 30 + "end."], why=running.text)

    assert [exchange.answer for exchange in await remembered(data_dir)] == [
        "Another " * 30 + "end."
    ]


@pytest.mark.parametrize("platform", ["discord", "slack"])
async def test_an_answer_that_breaks_off_twice_ends_with_a_notice_and_a_way_to_ask_again(
    platform: str, data_dir: Path, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.02
    model.fail("completions", "drop", at_delta=20)
    model.fail("completions", "reset", at_delta=12)
    async with running_on(platform, data_dir, model) as (way, running):
        await way.ask("What is it?")
        # The longer of the two stays.
        broken = f"{ANSWER[: 20 * 8].rstrip()}\n\n{AWAY}"
        await until(lambda: way.finals() == [broken], why=running.text)
        await until(
            lambda: offers_another(way),
            within=10,
            why=lambda: f"no Regenerate below {way.answers()}",
        )
        asked = len(model.requests)

    assert asked == 2
    assert "Traceback" not in running.text()


async def test_a_wrong_address_is_told_at_once_and_counted(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.fail("completions", status=308, headers={"Location": "/login"}, times=9)
    async with discord_bot(data_dir, model) as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(
            lambda: way.finals() == [errors.ModelElsewhere.apology], within=5, why=running.text
        )
        door = re.search(r"http://127\.0\.0\.1:\d+", running.text())
        assert door
        async with aiohttp.ClientSession() as session, session.get(f"{door[0]}/metrics") as answer:
            metrics = await answer.text()

    (told,) = [line for line in running.text().splitlines() if "The model failed" in line]
    assert "set MODEL_URL to the address of an OpenAI-compatible server" in told
    failed = next(it for it in metrics.splitlines() if "parley_model_failures_total{" in it)
    assert 'kind="ModelElsewhere"' in failed
    assert failed.endswith(" 1.0")


async def test_white_space_alone_is_told_as_no_answer(data_dir: Path, model: ModelEmulator) -> None:
    model.answer, model.chunk = " \n\u200b\n", 1
    async with discord_bot(data_dir, model) as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals() == [errors.EmptyAnswer.apology], why=running.text)

    assert await remembered(data_dir) == []


async def test_a_model_that_is_away_for_good_is_told_calmly_and_asked_again_by_a_button(
    data_dir: Path, model: ModelEmulator
) -> None:
    await model.refuse_connections()
    async with discord_bot(data_dir, model, REPLY_TIMEOUT="2") as (discord, running):
        way, other = DiscordDm(discord), DiscordMention(discord)
        await way.ask("one")
        await way.ask("two")
        await other.ask("three")
        await until(lambda: way.finals() == [AWAY, AWAY] and other.finals() == [AWAY])
        await until(lambda: offers_another(way), why=way.buttons)
        assert await remembered(data_dir) == []

        await model.accept_connections()
        # The breaker's second rest; until then the apology would come again, at once.
        await asyncio.sleep(2.5)
        await way.press()
        await until(lambda: way.finals() == [AWAY, "You said: two"], why=running.text)
        await other.ask("four")
        await until(lambda: other.finals() == [AWAY, "You said: four"], why=running.text)

    text = running.text()
    assert (text.count("gets no requests until"), text.count("is back")) == (1, 1)
    assert "Traceback" not in text


async def test_the_next_model_answers_for_one_that_nobody_serves(data_dir: Path) -> None:
    async with ModelEmulator(flavour="router") as model:
        model.models = ("org/second",)
        async with discord_bot(
            data_dir, model, MODEL_ID="org/first", MODEL_FALLBACKS="org/second"
        ) as (discord, running):
            way = DiscordDm(discord)
            await way.ask("What is it?")
            said = "You said: What is it?"
            by = ANSWERED_BY.format(model="org/second")
            await until(lambda: way.finals() == [f"{said}\n\n{by}"], why=running.text)

    assert [exchange.answer for exchange in await remembered(data_dir)] == [said]


async def test_sigterm_in_a_pause_hands_the_turn_over_at_once(
    data_dir: Path, model: ModelEmulator
) -> None:
    await model.refuse_connections()
    async with DiscordEmulator() as discord:
        variables, way = discord_variables(discord, model), DiscordDm(discord)
        async with bot(data_dir=data_dir, variables=variables) as first:
            await asyncio.wait_for(discord.connected.wait(), 60)
            await way.ask("What is it?")
            # The fourth pause has begun by now, and the drain alone would take 20 s.
            await asyncio.sleep(3)
            began = time.monotonic()
            first.process.terminate()
            status = await asyncio.wait_for(first.process.wait(), 25)
        assert (status, way.finals()) == (0, [])
        assert time.monotonic() - began < 8
        await model.accept_connections()
        async with bot(data_dir=data_dir, variables=variables) as second:
            await until(lambda: way.finals() == ["You said: What is it?"], why=second.text)

    assert "Traceback" not in first.text()


async def test_the_stop_button_ends_a_pause(data_dir: Path, model: ModelEmulator) -> None:
    model.fail("completions", "drop", at_delta=2)
    model.fail("completions", status=503, retry_after=40)
    async with discord_bot(data_dir, model) as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.buttons() and len(model.requests) == 2, why=running.text)
        await way.press()
        await until(
            lambda: way.finals() == [f"You said: What i\n\n{STOPPED}"], within=5, why=running.text
        )
