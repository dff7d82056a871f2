"""The main job, with the bot as a process: asked, answered in one growing message, remembered."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from bot import errors
from bot.__main__ import LIMITS
from bot.domain import Person, ThreadKey, Turn
from bot.store import Store, connect
from bot.turns.queue import GROUP, TurnQueue
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import How, ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    LEASE,
    ROOT,
    Bot,
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    InDiscord,
    InSlack,
    SlackDm,
    SlackMention,
    SlackSlash,
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

# Long enough for several edits, with what an adapter could spoil.
ANSWER = (
    "Well, **one** thing first: 1 < 2 & 3 > 2, and `a && b` stays code. "
    + "The quick brown fox jumps over the lazy dog again and again. " * 5
    + "Ask @everyone, @here or <!channel>; nobody is called. The end."
)
SECONDS = 4.0  # that the model takes for it


def speak_slowly(model: ModelEmulator, *, seconds: float = SECONDS) -> None:
    model.answer = ANSWER
    model.delay = seconds * model.chunk / len(ANSWER)


def contents(model: ModelEmulator, number: int) -> list[tuple[str, str]]:
    return [
        (message["role"], message["content"])
        for message in model.requests[number].messages
        if message["role"] != "system"
    ]


def answered(way: Way, times: int) -> bool:
    return way.finals() == [ANSWER] * times


async def holds_a_conversation(way: Way, model: ModelEmulator) -> None:
    """Two questions: the answer grows and ends whole, and the second prompt holds the first."""
    speak_slowly(model)
    await way.ask("What is it?")
    await until(partial(answered, way, 1), why=way.answers)
    growing = [state for state in way.answers()[-1][1] if state]
    assert len(growing) >= 4, growing
    assert sorted(growing, key=len) == growing

    model.delay = 0
    await way.ask("And then?")
    await until(partial(answered, way, 2), why=way.answers)
    assert [
        ("user", "What is it?"),
        ("assistant", ANSWER),
        ("user", "And then?"),
    ] in [contents(model, number) for number in range(len(model.requests))]


@pytest.mark.parametrize("kind", [DiscordMention, DiscordDm, DiscordSlash])
async def test_discord_answers_in_one_growing_message(
    kind: Callable[[DiscordEmulator], Way], data_dir: Path, model: ModelEmulator
) -> None:
    async with discord_bot(data_dir, model) as (discord, _):
        await holds_a_conversation(kind(discord), model)

        assert discord.pings == []
    assert len(await remembered(data_dir)) == 2


@pytest.mark.parametrize("capacity", [3, 100])
async def test_a_process_answers_as_many_questions_at_once_as_it_is_told(
    capacity: int, data_dir: Path, model: ModelEmulator
) -> None:
    model.first_delay = 2.0
    variables = {"MODEL_URL": model.url, "CAPACITY": str(capacity)}
    async with (
        connect(url="", data_dir=data_dir) as store,
        bot("worker", data_dir=data_dir, variables=variables) as running,
    ):
        await until(lambda: "Running as" in running.text(), why=running.text)
        queue = TurnQueue(
            store=store, worker="test", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60
        )
        for number in range(capacity + 5):
            key = ThreadKey("console", "", "", str(number))
            person = Person(str(number), "Ann")
            await queue.admit(Turn(f"console:{number}", key, person, "Hi", {}, 0.0))
        async with asyncio.timeout(60):
            while await queue.depth():
                await asyncio.sleep(0.05)

    assert model.most_running == capacity


async def test_a_process_may_open_as_many_files_as_its_answers_need(
    data_dir: Path, model: ModelEmulator
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    variables = {"MODEL_URL": model.url, "CAPACITY": "200"}
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with bot("worker", data_dir=data_dir, variables=variables) as running:
            await until(lambda: "Running as" in running.text(), why=running.text)
            (allowed, _) = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert allowed == 900
    assert "CAPACITY" not in running.text()


def test_a_capacity_beyond_the_open_files_is_warned_of(data_dir: Path) -> None:
    # A limit that was lowered stays so.
    start = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300));"
        " sys.argv[1:] = ['run', 'discord', 'worker']; runpy.run_module('bot', run_name='__main__')"
    )
    environment = {"PYTHONPATH": str(ROOT), "DATA_DIR": str(data_dir), "DISCORD_TOKEN": "wrong"}
    ended = subprocess.run(
        [sys.executable, "-c", start],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"PATH": os.environ["PATH"]},
        cwd=data_dir,
    )

    assert "there is no model" in ended.stderr
    assert re.search(r"WARNING .*CAPACITY=256 .*300", ended.stderr)


async def test_tokens_in_the_env_file_are_enough(data_dir: Path, model: ModelEmulator) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        (data_dir / ".env").write_text("".join(lines))
        async with bot(data_dir=data_dir, variables={}) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            await asyncio.wait_for(slack.connected.wait(), 60)
            ways: list[Way] = [DiscordMention(discord), SlackDm(slack)]
            for way in ways:
                await way.ask("What is it?")
            for way in ways:
                await until(way.finals, why=running.text)

    assert "Running as discord, slack, worker" in running.text()


async def test_half_a_character_in_a_name_or_a_question_costs_no_answer(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        async with bot(data_dir=data_dir, variables=variables) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            await asyncio.wait_for(slack.connected.wait(), 60)
            ways: list[InDiscord | InSlack] = [
                DiscordMention(discord),
                DiscordSlash(discord),
                SlackMention(slack),
                SlackSlash(slack),
            ]
            for way in ways:
                platform = slack if isinstance(way, InSlack) else discord
                way.person = platform.user("A\ud83d")
                await way.ask("What is \ud83d it?")
            for way in ways:
                await until(way.finals, why=running.text)


def over_http(slack: SlackEmulator) -> dict[str, str]:
    return {"SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": slack.signing_secret}


async def http_door(running: Bot) -> str:
    """Return the address of a running process's HTTP door."""
    await until(lambda: "Running as" in running.text(), why=running.text)
    found = re.search(r"http://127\.0\.0\.1:\d+", running.text())
    assert found
    return found[0]


@pytest.mark.parametrize("transport", ["socket", "http"])
async def test_slack_answers_in_one_growing_message(
    transport: str, data_dir: Path, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack:
        variables = slack_variables(slack, model)
        if transport == "http":
            variables |= over_http(slack)
        async with bot(data_dir=data_dir, variables=variables) as running:
            if transport == "http":
                await slack.verify(f"{await http_door(running)}/slack/events")
            else:
                await asyncio.wait_for(slack.connected.wait(), 60)
            for kind in (SlackMention, SlackDm, SlackSlash):
                await holds_a_conversation(kind(slack), model)

        assert (slack.pings, slack.unfurls) == ([], [])
    assert len(await remembered(data_dir)) == 6


async def test_a_real_model_answers_in_both_platforms(data_dir: Path, model: ModelEmulator) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables |= {"MODEL_URL": "", "MODEL_ID": "demo", "MAX_TOKENS": "60"}
        async with bot(data_dir=data_dir, variables=variables) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            await asyncio.wait_for(slack.connected.wait(), 60)
            ways: list[Way] = [DiscordDm(discord), SlackMention(slack), SlackSlash(slack)]
            for way in ways:
                await way.ask("What is the capital of France?")
            async with asyncio.timeout(60):
                while len(exchanges := await remembered(data_dir)) < 3:
                    await asyncio.sleep(0.2)

    assert "demo model" in running.text()
    assert {each.answer.strip() for each in exchanges} == {way.finals()[0].strip() for way in ways}
    assert model.requests == []


async def killed_in_mid_reply(way: Way, victim: Callable[[], None]) -> None:
    await way.ask("What is it?")
    await until(lambda: way.answers() and len(way.answers()[0][1]) >= 2, why=way.answers)
    victim()


@pytest.mark.parametrize("platform", ["discord", "slack"])
async def test_a_killed_process_is_followed_by_one_that_finishes_the_message(
    platform: str, data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model)
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
        async with bot(data_dir=data_dir, variables=variables) as first:
            await asyncio.wait_for(up.wait(), 60)
            await killed_in_mid_reply(way, first.kill)
            await first.process.wait()
        model.delay = 0
        async with bot(data_dir=data_dir, variables=variables):
            await until(lambda: way.finals() == [ANSWER], why=way.answers)

    (exchange,) = await remembered(data_dir)
    assert (exchange.question, exchange.answer) == ("What is it?", ANSWER)


async def test_a_killed_worker_is_replaced_by_another_within_two_leases(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model)
    async with DiscordEmulator() as discord, AsyncExitStack() as stack:
        variables = discord_variables(discord, model)
        way = DiscordMention(discord)
        await stack.enter_async_context(bot("discord", data_dir=data_dir, variables=variables))
        await asyncio.wait_for(discord.connected.wait(), 60)
        first = await stack.enter_async_context(
            bot("worker", data_dir=data_dir, variables=variables)
        )
        await until(lambda: "Running as" in first.text(), why=first.text)
        await way.ask("What is it?")
        second = await stack.enter_async_context(
            bot("worker", data_dir=data_dir, variables=variables)
        )
        await until(lambda: "Running as" in second.text(), why=second.text)
        await until(lambda: way.answers() and len(way.answers()[0][1]) >= 2)

        first.kill()
        await until(lambda: len(model.requests) == 2, within=2 * LEASE, why=second.text)
        await until(lambda: way.finals() == [ANSWER], why=way.answers)

    (exchange,) = await remembered(data_dir)
    assert exchange.answer == ANSWER


async def test_gateways_and_workers_share_nothing_but_redis(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=1)
    async with AsyncExitStack() as stack:
        discord = await stack.enter_async_context(DiscordEmulator())
        slack = await stack.enter_async_context(SlackEmulator())
        store = await stack.enter_async_context(connect(url="", data_dir=data_dir))
        variables = discord_variables(discord, model) | slack_variables(slack, model)

        async def elsewhere(role: str) -> Bot:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-"))
            there = variables | {"REDIS_URL": store.url}
            return await stack.enter_async_context(
                bot(role, data_dir=Path(folder), variables=there)
            )

        gateways = [await elsewhere("discord"), await elsewhere("slack")]
        await asyncio.wait_for(discord.connected.wait(), 60)
        await asyncio.wait_for(slack.connected.wait(), 60)
        ways: list[Way] = [kind(discord) for kind in (DiscordMention, DiscordDm, DiscordSlash)]
        ways += [SlackMention(slack), SlackDm(slack)]
        for way in ways[::2]:
            await way.ask("What is it?")
        first = await elsewhere("worker")
        await until(lambda: all(answered(way, 1) for way in ways[::2]), why=first.text)
        more = [await elsewhere("worker") for _ in range(2)]
        for one in more:
            await until(partial(_runs, one), why=one.text)
        await have_worked([first], len(ways[::2]))
        first.process.terminate()
        await first.process.wait()
        for way in ways[1::2]:
            await way.ask("What is it?")
        await until(lambda: all(answered(way, 1) for way in ways), why=more[0].text)

        await have_worked(more, len(ways[1::2]))
        await have_worked(gateways, 0)
    assert len(model.requests) == len(ways)


def _runs(running: Bot) -> bool:
    return "Running as" in running.text()


async def have_worked(bots: Sequence[Bot], turns: int) -> None:
    async with asyncio.timeout(10):
        while sum([await worked(one) for one in bots]) != turns:
            await asyncio.sleep(0.05)


async def worked(running: Bot) -> float:
    """Return how many turns have ended in a process."""
    found = re.search(r"http://127\.0\.0\.1:\d+", running.text())
    assert found
    async with aiohttp.ClientSession() as session, session.get(f"{found[0]}/metrics") as answer:
        text = await answer.text()
    return sum(float(count) for count in re.findall(r"^parley_turns_total{.*} (.*)$", text, re.M))


async def test_workers_name_themselves(data_dir: Path, model: ModelEmulator) -> None:
    async with DiscordEmulator() as discord, connect(url="", data_dir=data_dir) as store:
        variables = discord_variables(discord, model)
        start = partial(bot, "worker", data_dir=data_dir, variables=variables)
        stream = store.key("ready", "discord")
        async with start(), start(), asyncio.timeout(30):
            # Two of one name would take each other's turns for their own.
            while await readers(store, stream) != 2:
                await asyncio.sleep(0.05)


async def readers(store: Store, stream: str) -> int:
    if not await store.command("EXISTS", stream):
        return 0
    return len(await store.command("XINFO", "CONSUMERS", stream, GROUP))


async def test_a_paused_worker_that_wakes_up_spoils_nothing(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=3)
    async with DiscordEmulator() as discord, AsyncExitStack() as stack:
        variables = discord_variables(discord, model)
        way = DiscordMention(discord)
        await stack.enter_async_context(bot("discord", data_dir=data_dir, variables=variables))
        await asyncio.wait_for(discord.connected.wait(), 60)
        first = await stack.enter_async_context(
            bot("worker", data_dir=data_dir, variables=variables)
        )
        await killed_in_mid_reply(way, first.pause)
        model.delay = 0
        second = await stack.enter_async_context(
            bot("worker", data_dir=data_dir, variables=variables)
        )
        await until(lambda: way.finals() == [ANSWER], why=second.text)
        first.wake()
        await until(lambda: "went to another worker" in first.text(), why=first.text)

        assert way.finals() == [ANSWER]
    assert len(await remembered(data_dir)) == 1


async def test_an_event_delivered_three_times_is_answered_once(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        async with bot(data_dir=data_dir, variables=variables):
            await asyncio.wait_for(discord.connected.wait(), 60)
            await asyncio.wait_for(slack.connected.wait(), 60)
            in_discord, in_slack = DiscordMention(discord), SlackMention(slack)
            await in_discord.ask("What is it?")
            await in_slack.ask("What is it?")
            for _ in range(2):
                await discord.redeliver(in_discord.question)
                await slack.redeliver(str(in_slack.question))
            await until(lambda: in_discord.finals() and in_slack.finals())
            # A turn asked after the doubles is answered after whatever they caused.
            await in_discord.ask("Last")
            await in_slack.ask("Last")
            await until(lambda: len(in_discord.finals()) > 1 and len(in_slack.finals()) > 1)

        expected = ["You said: What is it?", "You said: Last"]
        assert (in_discord.finals(), in_slack.finals()) == (expected, expected)
    assert len(model.requests) == 4


async def test_two_quick_messages_are_answered_in_order(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.delay = 0.1
    async with discord_bot(data_dir, model) as (discord, _):
        way = DiscordDm(discord)
        await way.ask("one")
        await way.ask("two")
        await until(lambda: way.finals() == ["You said: one", "You said: two"])

    assert contents(model, 1) == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, errors.ModelDenied),
        (404, errors.ModelUnknown),
        (429, errors.ModelBusy),
        (503, errors.ModelLoading),
    ],
)
async def test_a_model_that_refuses_is_told_calmly(
    status: int, error: type[errors.ModelError], data_dir: Path, model: ModelEmulator
) -> None:
    model.fail("completions", status=status, body={"error": "no"}, times=99)
    async with discord_bot(data_dir, model, REPLY_TIMEOUT="2") as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals() == [error.apology], why=way.answers)

    assert "Traceback" not in running.text()
    assert await remembered(data_dir) == []


@pytest.mark.parametrize(
    ("how", "error"),
    [("hang", errors.ModelSilent), ("drop", errors.ModelUnavailable)],
)
async def test_a_model_that_breaks_off_leaves_what_it_said(
    how: How, error: type[errors.ModelError], data_dir: Path, model: ModelEmulator
) -> None:
    model.fail("completions", how, at_delta=2, times=2)
    async with discord_bot(data_dir, model, REPLY_TIMEOUT="2") as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(
            lambda: way.finals() == [f"You said: What i\n\n{error.apology}"],
            why=way.answers,
        )

    assert "Traceback" not in running.text()
    assert [exchange.answer for exchange in await remembered(data_dir)] == ["You said: What i"]


async def test_an_answer_that_may_not_go_on_says_so(data_dir: Path, model: ModelEmulator) -> None:
    model.answer = "The quick brown fox jumps over the lazy dog again. " * 60
    model.chunk, model.delay = 100, 0.1
    async with discord_bot(data_dir, model) as (discord, running):
        way = DiscordMention(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals())
        discord.forbid_writing(discord.channel_id, in_threads=True)
        await until(lambda: offers_another(way), why=way.answers)

    (shown,) = way.finals()
    words, _, apology = shown.rpartition("\n\n")
    assert model.answer.startswith(words)
    assert len(words) > 1500
    assert apology == errors.PlaceGone.apology
    assert [button for _, button in way.buttons() if button.startswith("stop")] == []
    assert "Send Messages in Threads" in running.text()
    assert [exchange.answer for exchange in await remembered(data_dir)] == [words]


async def test_the_stop_button_ends_a_reply(data_dir: Path, model: ModelEmulator) -> None:
    speak_slowly(model, seconds=30)
    async with discord_bot(data_dir, model) as (discord, _):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals())
        await way.press()
        await until(lambda: way.finals()[0].endswith("(Stopped.)"), within=5)

        assert not [button for _, button in way.buttons() if button.startswith("stop")]
    await until(lambda: model.requests[0].hung_up_at)


async def has_an_answer_written_anew(way: Way, model: ModelEmulator) -> None:
    """The button changes the text in the same message, and what the next prompt holds."""
    model.answer = "The first answer, which is somewhat longer."
    await way.ask("What is it?")
    await until(lambda: offers_another(way), why=way.answers)
    (former,) = way.buttons()

    model.answer = "Another answer."
    await way.press()
    await until(lambda: way.finals() == [model.answer] and offers_another(way), why=way.answers)
    assert way.buttons() == [former]
    model.answer = "More."
    await way.ask("And then?")
    await until(lambda: way.finals() == ["Another answer.", "More."], why=way.answers)

    assert contents(model, 1) == contents(model, 0) == [("user", "What is it?")]
    assert contents(model, 2) == [
        ("user", "What is it?"),
        ("assistant", "Another answer."),
        ("user", "And then?"),
    ]


@pytest.mark.parametrize("kind", [DiscordMention, DiscordSlash])
async def test_discord_has_an_answer_written_anew(
    kind: Callable[[DiscordEmulator], Way], data_dir: Path, model: ModelEmulator
) -> None:
    async with discord_bot(data_dir, model) as (discord, _):
        await has_an_answer_written_anew(kind(discord), model)
    assert len(await remembered(data_dir)) == 2


async def test_slack_has_an_answer_written_anew(data_dir: Path, model: ModelEmulator) -> None:
    async with (
        SlackEmulator() as slack,
        bot(data_dir=data_dir, variables=slack_variables(slack, model)),
    ):
        await asyncio.wait_for(slack.connected.wait(), 60)
        await has_an_answer_written_anew(SlackDm(slack), model)
    assert len(await remembered(data_dir)) == 2


async def test_a_process_killed_over_a_new_answer_is_followed_by_one_that_finishes_it(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord:
        variables, way = discord_variables(discord, model), DiscordDm(discord)
        async with bot(data_dir=data_dir, variables=variables) as first:
            await asyncio.wait_for(discord.connected.wait(), 60)
            await way.ask("What is it?")
            await until(lambda: offers_another(way), why=way.answers)
            speak_slowly(model)
            await way.press()
            await until(lambda: way.finals()[0].startswith("Well"), why=way.answers)
            first.kill()
            await first.process.wait()
        assert [exchange.answer for exchange in await remembered(data_dir)] == [
            "You said: What is it?"
        ]
        model.delay = 0
        async with bot(data_dir=data_dir, variables=variables):
            await until(lambda: way.finals() == [ANSWER] and offers_another(way), why=way.answers)

    assert [exchange.answer for exchange in await remembered(data_dir)] == [ANSWER]


async def test_an_answer_that_is_cut_says_so(data_dir: Path, model: ModelEmulator) -> None:
    model.finish_reason = "length"
    async with discord_bot(data_dir, model) as (discord, _):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        said = "You said: What is it?"
        await until(lambda: way.finals() == [f"{said}\n\n{errors.AnswerCut.apology}"])

    assert [exchange.answer for exchange in await remembered(data_dir)] == [said]


async def test_sigterm_is_heeded_while_the_gateway_is_lost(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with discord_bot(data_dir, model) as (discord, running):
        discord.refuse_connections()
        await discord.cut()

        running.process.terminate()

        async with asyncio.timeout(10):
            assert await running.process.wait() == 0


async def test_sigterm_lets_a_reply_end_and_leaves_with_0(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=2)
    async with discord_bot(data_dir, model) as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals())
        running.process.terminate()
        running.process.terminate()
        status = await asyncio.wait_for(running.process.wait(), 25)

        assert way.finals() == [ANSWER]
    assert status == 0


async def test_an_intake_over_http_alone_leaves_with_0(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack:
        variables = slack_variables(slack, model) | over_http(slack)
        async with bot("slack", data_dir=data_dir, variables=variables) as running:
            await until(lambda: "Running as slack" in running.text(), why=running.text)
            running.process.terminate()
            status = await asyncio.wait_for(running.process.wait(), 25)

    assert status == 0
    assert "Traceback" not in running.text()


async def told(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


async def test_what_slack_tells_a_process_on_its_way_out_is_answered(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=6)
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        variables = slack_variables(slack, model) | over_http(slack)
        first, second = SlackDm(slack), SlackMention(slack)
        async with bot(data_dir=data_dir, variables=variables) as running:
            door = await http_door(running)
            await slack.verify(f"{door}/slack/events")
            await first.ask("What is it?")
            await until(lambda: first.finals())
            running.process.terminate()
            async with asyncio.timeout(10):
                while await told(session, f"{door}/readyz") == 200:
                    await asyncio.sleep(0.01)
            ready = await told(session, f"{door}/readyz")
            await second.ask("And what now?")
            status = await asyncio.wait_for(running.process.wait(), 25)
        model.delay = 0
        async with bot("worker", data_dir=data_dir, variables=variables):
            await until(lambda: second.finals() == [ANSWER], within=30)

        assert (ready, status) == (503, 0)
        assert first.finals() == [ANSWER]


async def test_sigterm_during_the_start_is_heeded(data_dir: Path, model: ModelEmulator) -> None:
    async with DiscordEmulator() as discord:
        discord.fail("GET /users/@me", "hang")
        variables = discord_variables(discord, model)
        async with bot("worker", data_dir=data_dir, variables=variables) as running:
            await until(lambda: discord.requests, why=running.text)
            began = time.monotonic()
            running.process.terminate()
            status = await asyncio.wait_for(running.process.wait(), 25)

    assert status == 0
    assert time.monotonic() - began < 10
    assert "Traceback" not in running.text()


async def test_a_piped_question_is_answered_on_stdout(data_dir: Path, model: ModelEmulator) -> None:
    variables = {"MODEL_URL": model.url}
    async with bot(
        data_dir=data_dir, variables=variables, stdin=asyncio.subprocess.PIPE
    ) as running:
        process = running.process
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"one\ntwo\n")
        process.stdin.close()
        async with asyncio.timeout(60):
            said = await process.stdout.read()
            status = await process.wait()

    assert said.decode().split("\n") == ["You said: one", "You said: two", ""]
    assert status == 0


async def test_the_http_door_tells_that_it_is_ready(data_dir: Path, model: ModelEmulator) -> None:
    statuses = {}
    async with discord_bot(data_dir, model) as (_, running), aiohttp.ClientSession() as session:
        door = await http_door(running)
        async with asyncio.timeout(60):
            while await told(session, f"{door}/readyz") != 200:
                await asyncio.sleep(0.01)
        for path in ("livez", "readyz", "metrics", "else"):
            statuses[path] = await told(session, f"{door}/{path}")

    assert statuses == {"livez": 200, "readyz": 200, "metrics": 200, "else": 404}


async def test_a_process_that_discord_refuses_is_not_ready_and_says_so_without_an_address(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord, aiohttp.ClientSession() as session:
        discord.refuse_connections()
        variables = discord_variables(discord, model)
        async with bot(data_dir=data_dir, variables=variables) as running:
            door = await http_door(running)
            await until(lambda: "cannot be reached" in running.text(), why=running.text)
            async with session.get(f"{door}/readyz") as answer:
                refused = answer.status, await answer.text()
            discord.accept_connections()
            async with asyncio.timeout(60):
                while await told(session, f"{door}/readyz") != 200:
                    await asyncio.sleep(0.05)

    assert refused == (503, "Discord is not connected\n")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"MAX_TOKENS": "many", "PORT": "-1"}, "MAX_TOKENS='many' is not a whole number"),
        ({"DISCORD_TOKEN": "secret-1"}, "there is no model"),
        ({}, "there is nothing to do"),
        ({"SLACK_BOT_TOKEN": "xoxb-1", "MODEL_ID": "demo"}, "SLACK_APP_TOKEN"),
    ],
)
async def test_a_start_that_cannot_work_says_why(
    variables: dict[str, str], sentence: str, data_dir: Path
) -> None:
    async with bot(data_dir=data_dir, variables=variables) as running:
        status = await asyncio.wait_for(running.process.wait(), 60)

    assert status == 1
    assert sentence in running.text()
    assert "Traceback" not in running.text()
    assert "secret-1" not in running.text()


async def test_a_wrong_token_of_one_platform_leaves_the_other_answering(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables["DISCORD_TOKEN"] = "secret-1"
        async with bot(data_dir=data_dir, variables=variables) as running:
            way = SlackDm(slack)
            await until(lambda: "Running as slack, worker" in running.text(), why=running.text)
            await way.ask("What is it?")
            await until(way.finals, why=running.text)

    (line,) = [each for each in running.text().splitlines() if " ERROR " in each]
    assert "DISCORD_TOKEN" in line
    assert "secret-1" not in running.text()


@pytest.mark.parametrize("roles", [(), ("discord", "slack", "worker")])
async def test_two_wrong_tokens_are_told_in_a_line_each(
    roles: tuple[str, ...], data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables |= {"DISCORD_TOKEN": "secret-1", "SLACK_BOT_TOKEN": "xoxb-secret-2"}
        async with bot(*roles, data_dir=data_dir, variables=variables) as running:
            status = await asyncio.wait_for(running.process.wait(), 60)

    told = [line for line in running.text().splitlines() if line.startswith("bot: ")]
    assert status == 1
    assert ["DISCORD_TOKEN" in told[0], "SLACK_BOT_TOKEN" in told[1]] == [True, True]
    assert "Traceback" not in running.text()
    assert "secret-" not in running.text()


async def test_no_secret_reaches_the_log(data_dir: Path, model: ModelEmulator) -> None:
    model.fail("completions", status=401, body={"error": "bad key tell-nobody-1"})
    secrets = {"MODEL_API_KEY": "tell-nobody-1", "HF_TOKEN": "hf_tell-nobody-2"}
    async with discord_bot(data_dir, model, LOG_LEVEL="debug", **secrets) as (discord, running):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals())

    assert "tell-nobody" not in running.text()
    assert discord.token not in running.text()
    assert "tell-nobody-2" not in json.dumps(dict(model.requests[0].headers))


async def test_the_thread_of_a_mention_is_one_conversation(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with discord_bot(data_dir, model) as (discord, _):
        way = DiscordMention(discord)
        await way.ask("one")
        await until(lambda: len(way.finals()) == 1)
        await way.ask("two")
        await until(lambda: len(way.finals()) == 2)

        key = ThreadKey("discord", discord.guild_id, discord.channel_id, way.question)
    async with connect(url="", data_dir=data_dir) as store:
        assert await store.command("LLEN", store.key("history", str(key))) == 2
