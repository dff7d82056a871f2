"""The bot as a process: killed, paused, split over machines, and configured by its environment."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bot.store import connect
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    ANSWER,
    ROOT,
    BotProcess,
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    Way,
    bot,
    discord_bot,
    discord_variables,
    have_counted,
    offers_another,
    remembered,
    remembered_in,
    shows,
    slack_variables,
    speak_slowly,
)
from tests.support.waiting import until

FOREVER = 60.0  # seconds: an answer outlasts what the test does meanwhile


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

    assert ended.returncode == 1
    assert "there is no model" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert re.search(r"WARNING .*CAPACITY=256 .*300", ended.stderr)


async def test_tokens_in_the_env_file_are_enough_and_reach_no_log(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.fail("completions", status=401, body={"error": "bad key tell-nobody-1"}, times=2)
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables |= {"MODEL_API_KEY": "tell-nobody-1", "HF_TOKEN": "hf_tell-nobody-2"}
        variables["LOG_LEVEL"] = "debug"
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

    log = running.text()
    assert "Running as discord, slack, worker" in log
    for secret in ("tell-nobody", discord.token, slack.bot_token, slack.app_token):
        assert secret not in log
    assert "tell-nobody-2" not in json.dumps([dict(each.headers) for each in model.requests])


async def test_a_paused_worker_that_wakes_up_spoils_nothing(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=FOREVER)
    async with DiscordEmulator() as discord, AsyncExitStack() as stack:
        variables = discord_variables(discord, model)
        way = DiscordMention(discord)
        start = partial(bot, data_dir=data_dir, variables=variables)
        first = await stack.enter_async_context(start("discord", "worker"))
        await until(discord.connected.is_set, why=first.text)
        await way.ask("What is it?")
        await until(lambda: is_under_way(way), why=first.text)
        first.pause()
        model.delay = 0
        second = await stack.enter_async_context(start("worker"))
        await until(partial(shows, way, ANSWER), why=second.text)
        first.wake()
        await until(lambda: "taken by another worker" in first.text(), why=first.text)

        # The write that was under way may be shown for a moment: a repair restores the text.
        await until(lambda: way.finals() == [ANSWER], why=first.text)
    assert len(await remembered_in(data_dir)) == 1


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
    assert running.text() == ""


async def test_a_file_of_a_piped_question_is_read_and_known_later(
    data_dir: Path, model: ModelEmulator
) -> None:
    path, model.answer = data_dir / "notes.txt", "Well."
    path.write_text("in it")
    async with bot(
        data_dir=data_dir, variables={"MODEL_URL": model.url}, stdin=asyncio.subprocess.PIPE
    ) as running:
        process = running.process
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"/file {path}\none\ntwo\n".encode())
        process.stdin.close()
        async with asyncio.timeout(60):
            said = await process.stdout.read()

    first, second = (str(it.messages) for it in model.requests)
    assert said == b"Well.\nWell.\n"
    assert first.count("| in it") == second.count("| in it") == 1
    assert running.text() == ""


async def test_a_start_with_wrong_settings_says_why(data_dir: Path) -> None:
    variables = {"MAX_TOKENS": "many", "PORT": "-1"}
    async with bot(data_dir=data_dir, variables=variables) as running:
        status = await asyncio.wait_for(running.process.wait(), 60)

    assert status == 1
    assert "MAX_TOKENS='many' is not a whole number" in running.text()
    assert "Traceback" not in running.text()


async def test_a_killed_process_is_followed_by_one_that_finishes_its_messages(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        ways: list[Way] = [DiscordMention(discord), SlackMention(slack)]
        anew = DiscordDm(discord)
        async with bot(data_dir=data_dir, variables=variables) as first:
            await until(discord.connected.is_set, why=first.text)
            await until(slack.connected.is_set, why=first.text)
            await anew.ask("What was it?")
            await until(partial(offers_another, anew), why=first.text)
            speak_slowly(model, seconds=FOREVER)
            # An answer that is written anew has the former one to lose.
            await anew.press()
            for way in ways:
                await way.ask("What is it?")
            await until(lambda: all(is_under_way(way) for way in (*ways, anew)), why=first.text)
            first.kill()
            await first.process.wait()
        model.delay = 0
        async with bot(data_dir=data_dir, variables=variables) as second:
            for way in (*ways, anew):
                await until(partial(shows, way, ANSWER), why=second.text)
            await until(partial(offers_another, anew), why=second.text)

    exchanges = await remembered_in(data_dir)
    assert sorted(each.question for each in exchanges) == [*["What is it?"] * 2, "What was it?"]
    assert {each.answer for each in exchanges} == {ANSWER}


def is_under_way(way: Way) -> bool:
    return bool(way.answers()) and way.finals()[0][:4] == ANSWER[:4]


async def test_gateways_and_workers_share_nothing_but_redis_and_replace_a_killed_one(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with AsyncExitStack() as stack:
        discord = await stack.enter_async_context(DiscordEmulator())
        slack = await stack.enter_async_context(SlackEmulator())
        store = await stack.enter_async_context(connect(url="", data_dir=data_dir))
        variables = discord_variables(discord, model) | slack_variables(slack, model)

        async def elsewhere(*roles: str) -> BotProcess:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-"))
            there = variables | {"REDIS_URL": store.url}
            return await stack.enter_async_context(
                bot(*roles, data_dir=Path(folder), variables=there)
            )

        gateway, first = await elsewhere("discord", "slack"), await elsewhere("worker")
        await until(discord.connected.is_set, why=gateway.text)
        await until(slack.connected.is_set, why=gateway.text)
        early: list[Way] = [DiscordMention(discord), SlackDm(slack)]
        late: list[Way] = [DiscordDm(discord), DiscordSlash(discord), SlackMention(slack)]
        await are_answered(early, first)
        await have_counted(first, "parley_turns_total", len(early))
        echo = model.answer
        speak_slowly(model, seconds=FOREVER)
        broken = DiscordMention(discord)
        await broken.ask("What is it?")
        await until(lambda: is_under_way(broken), why=first.text)
        second = await elsewhere("worker")
        await until(lambda: "Running as" in second.text(), why=second.text)
        model.delay = 0
        first.kill()
        await until(partial(shows, broken, ANSWER), why=second.text)
        model.answer = echo
        await are_answered(late, second)

        await have_counted(second, "parley_turns_total", 1 + len(late))
        await have_counted(gateway, "parley_turns_total", 0)
        exchanges = await remembered(store)
    assert len(model.requests) == len(early) + 2 + len(late)
    assert len(exchanges) == len(early) + 1 + len(late)
    assert [each.answer for each in exchanges].count(ANSWER) == 1


async def are_answered(ways: Sequence[Way], running: BotProcess) -> None:
    for way in ways:
        await way.ask("What is it?")
    for way in ways:
        await until(partial(shows, way, "You said: What is it?"), why=running.text)
