"""Hostile files end in one sentence each, and other answers are whole meanwhile."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("pypdf", reason="reading needs requirements-files.txt")
pytest.importorskip("openpyxl", reason="reading needs requirements-files.txt")

from bot.store import Store
from tests.emulators.discord import Shown
from tests.emulators.model import ModelEmulator
from tests.files.test_reading import HOSTILE
from tests.support.pictures import gif, jpeg, png
from tests.support.process import ANSWER
from tests.support.service import serving_discord

FILES = {name: data for name, (data, _) in HOSTILE.items()} | {
    "a wall.gif": gif(60_000, 60_000),
    "a tower.jpg": jpeg(60_000, 60_000),
    "a half.png": png(9, 9)[:20],
    "a nothing.gif": gif(0, 9),
    "a load.gif": gif(9, 9) + bytes(4_000_000),
    "@everyone <@&1> [a](http:b) *c*.bin": b"\0",
    "too much.txt": b"x" * 10_000_001,
}
OTHERS = 50


async def test_each_hostile_file_ends_in_one_sentence_and_others_are_answered(
    store: Store, model: ModelEmulator
) -> None:
    model.seeing = model.models
    model.answer = lambda messages: ANSWER if "Well?" in messages[-1]["content"] else "Hm."
    async with serving_discord(store, model) as (discord, service):

        async def answer(text: str, *files: tuple[str, bytes]) -> str:
            ben = discord.user("Ben")
            place = discord.dm(ben)
            await discord.say(place, ben, text, files=files)
            shown = list[Shown]()
            async with asyncio.timeout(120):
                while not any("Regenerate" in it for one in shown[-1:] for it in one.labels):
                    await asyncio.sleep(0.05)
                    shown = discord.screen(place)
            return shown[-1].text

        hostile = [answer("Read it.", (name, data)) for name, data in FILES.items()]
        others = [answer("Well?") for _ in range(OTHERS)]
        answers = await asyncio.gather(*hostile, *others)

        for name, text in zip(FILES, answers, strict=False):
            said, _, sentence = text.partition("\n\n")
            assert said == "Hm."
            assert sentence.startswith("(I ")
            assert sentence.endswith(")")
            assert f"`{name}`" in sentence
            assert "\n" not in sentence
        assert answers[len(FILES) :] == [ANSWER] * OTHERS
        prompts = [one["content"] for asked in model.requests for one in asked.messages]
        assert not [one for one in prompts if "root:" in one]
        assert not discord.pings
        assert not service.errors()
        assert not [name for name in FILES if name in service.text()]
