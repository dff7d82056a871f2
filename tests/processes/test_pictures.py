"""Processes that are killed while a picture is fetched, asked about or described."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator, Script
from tests.support.pictures import png
from tests.support.process import DiscordDm, bot, discord_variables, offers_another
from tests.support.talk import describes
from tests.support.waiting import until


@pytest.mark.parametrize("when", ["fetched", "asked about", "described"])
async def test_a_picture_is_answered_and_described_once_after_a_kill(
    when: str, data_dir: Path, model: ModelEmulator
) -> None:
    held = asyncio.Event()

    def say(messages: Sequence[Mapping[str, str]]) -> str | Script:
        text = "A grey cat." if describes(messages) else "Well."
        is_held = when == ("described" if describes(messages) else "asked about")
        return [(held, text)] if is_held else text

    model.seeing, model.answer = model.models, say
    async with DiscordEmulator() as discord:
        discord.cdn.gate = held if when == "fetched" else None
        variables, ann = discord_variables(discord, model), DiscordDm(discord)
        async with bot(data_dir=data_dir, variables=variables) as first:
            await until(discord.connected.is_set, why=first.text)
            await discord.say(ann.channel, ann.person, "Well?", files=(("cat.png", png(9, 9)),))
            requests = {"fetched": 0, "asked about": 1, "described": 2}[when]
            await until(discord.cdn.fetched.copy, why=first.text)
            await until(lambda: len(model.requests) == requests, why=first.text)
            first.kill()
            await first.process.wait()
        held.set()
        async with bot(data_dir=data_dir, variables=variables) as second:
            await until(lambda: len(model.requests) >= max(requests + 1, 2), why=second.text)
            await until(lambda: offers_another(ann), why=second.text)
            await ann.ask("And again?")
            await until(lambda: ann.finals()[1:] == ["Well."], why=second.text)

    finished = [one for one in model.requests if one.finished]
    assert [describes(one.messages) for one in finished] == [False, True, False]
    assert "A picture, which shows: A grey cat." in finished[-1].messages[1]["content"]
    assert ann.finals() == ["Well.", "Well."]
