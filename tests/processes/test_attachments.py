"""Processes that are killed around the write that gives an answer its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulators import discord as in_discord
from tests.emulators import slack as in_slack
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    BotProcess,
    DiscordDm,
    SlackMention,
    bot,
    discord_variables,
    slack_variables,
)
from tests.support.waiting import until

LINES = "".join(f"print({number}, 'a line of code')\n" for number in range(400))
ANSWER = f"Here:\n\n```python\n{LINES}```\n\nThat is all."
LONG = {"MAX_TOKENS": "8000", "CONTEXT_TOKENS": "32000"}
FILE = ("answer.py", LINES.encode())


def said(*texts: str) -> str:
    """Return the code in these messages, without the lines that divide it."""
    lines = "\n".join(texts).split("\n")
    return "".join(f"{line}\n" for line in lines if line.startswith("print("))


async def test_a_file_in_discord_is_there_once_after_a_kill(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.0
    async with DiscordEmulator(latency=0.2) as discord:
        variables, ben = discord_variables(discord, model) | LONG, DiscordDm(discord)
        running: list[BotProcess] = []

        def kill(call: in_discord.Call) -> None:
            if call.body.get("attachments") and len(running) == 1:
                running[0].kill()

        discord.watch(kill)
        async with bot(data_dir=data_dir, variables=variables) as first:
            running.append(first)
            await until(discord.connected.is_set, why=first.text)
            await ben.ask("Write it.")
            await first.process.wait()
        async with bot(data_dir=data_dir, variables=variables) as second:
            running.append(second)
            await until(lambda: " ended: " in second.text(), why=second.text)

        files = [each for one in ben.shown() for each in zip(one.files, one.contents, strict=True)]
        assert files == [FILE]
        assert said(*ben.finals()) == LINES
        assert len(model.requests) == 1


@pytest.mark.parametrize(
    "method", ["files.getUploadURLExternal", "files.completeUploadExternal", "chat.update"]
)
async def test_a_file_in_slack_is_there_once_after_a_kill(
    method: str, data_dir: Path, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.0
    async with SlackEmulator(latency=0.2) as slack:
        variables, ann = slack_variables(slack, model) | LONG, SlackMention(slack)
        running: list[BotProcess] = []

        def kill(call: in_slack.Call) -> None:
            is_it = call.method == method and (method != "chat.update" or "file_ids" in call.body)
            if is_it and len(running) == 1:
                running[0].kill()

        slack.watch(kill)
        async with bot(data_dir=data_dir, variables=variables) as first:
            running.append(first)
            await until(slack.connected.is_set, why=first.text)
            await ann.ask("Write it.")
            await first.process.wait()
        left = ann.shown()
        async with bot(data_dir=data_dir, variables=variables) as second:
            running.append(second)
            await until(lambda: " ended: " in second.text(), why=second.text)

        assert [each for one in ann.shown() for each in one.files] == [FILE]
        assert len(ann.shown()) == len(left)
        assert said(*ann.finals()) == LINES
        assert len(model.requests) == 1
