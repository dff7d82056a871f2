"""Hostile files end in one sentence each, and other answers are whole meanwhile."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("pypdf", reason="reading needs requirements-files.txt")
pytest.importorskip("openpyxl", reason="reading needs requirements-files.txt")

from bot.store import Store
from tests.app.test_slack_files import Talk as SlackTalk
from tests.emulators.discord import Shown
from tests.emulators.model import ModelEmulator
from tests.files.test_reading import FAR, HOSTILE, POLYGLOT
from tests.support.pictures import gif, jpeg, png
from tests.support.process import ANSWER
from tests.support.service import serving_both, serving_discord
from tests.support.talk import Talk

ODD, PLAIN = "a\x1b[2J\u202eb\r\n\u2066c\x85.bin", "a[2Jb c .bin"
FILES = {name: data for name, (data, _) in HOSTILE.items()} | {
    "a wall.gif": gif(60_000, 60_000),
    "a tower.jpg": jpeg(60_000, 60_000),
    "a half.png": png(9, 9)[:20],
    "a nothing.gif": gif(0, 9),
    "a load.gif": gif(9, 9) + bytes(4_000_000),
    "@everyone <@&1> [a](http:b) *c*.bin": b"\0",
    ODD: b"\0",
    "too much.txt": b"x" * 10_000_001,
}
READ = {"far.xlsx": FAR, "both.docx": POLYGLOT}
OTHERS = 50


async def test_each_hostile_file_ends_in_one_sentence_and_others_are_answered(
    own_store: Store, model: ModelEmulator
) -> None:
    model.seeing = model.models
    model.answer = lambda messages: ANSWER if "Well?" in messages[-1]["content"] else "Hm."
    async with serving_discord(own_store, model) as (discord, service):

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

        files = (FILES | READ).items()
        hostile = [answer("Read it.", (name, data)) for name, data in files]
        others = [answer("Well?") for _ in range(OTHERS)]
        answers = await asyncio.gather(*hostile, *others)

        for name, text in zip(FILES, answers, strict=False):
            said, _, sentence = text.partition("\n\n")
            assert said == "Hm."
            assert sentence.startswith("(I ")
            assert sentence.endswith(")")
            assert f"`{name.replace(ODD, PLAIN)}`" in sentence
            assert "\n" not in sentence
            assert "any more" not in sentence
        assert answers[len(FILES) :] == ["Hm."] * len(READ) + [ANSWER] * OTHERS
        prompts = [one["content"] for asked in model.requests for one in asked.messages]
        assert not [one for one in prompts if "root:" in one]
        assert not discord.pings
        assert not service.errors()
        assert not [name for name in (*FILES, PLAIN) if name in service.text()]


async def test_an_answer_that_repeats_a_file_calls_nobody_and_is_in_no_log(
    own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        text = (
            f"Canary @everyone @here <@{discord.user('Bob')}>\n"
            f"<!channel> <!here|here> <@{bob}> <@U123>\n"
            '[Canary](https://canary.example/) <a href="https://canary.example/">Canary</a>\n'
            '<img src="https://canary.example/a.png"> ![Canary](https://canary.example/a.png)'
        )
        file = ("calls.md", text.encode())

        _, in_discord = await Talk(discord, model, service).ask("Repeat it.", files=(file,))
        _, in_slack = await SlackTalk(slack, model, service, ann).ask("Repeat it.", file)

        for answer in (in_discord, in_slack):
            assert answer.startswith("You said: [File")
            assert answer.count("Canary") == 4
        assert not discord.pings
        assert not discord.unguarded
        assert not slack.pings
        assert not service.errors()
        assert "anary" not in service.text()
