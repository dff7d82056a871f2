"""Long code and wide tables of an answer come as files, too, once, in each place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bot.store import Store
from tests.emulators.discord import Shown
from tests.emulators.model import ModelEmulator
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    InDiscord,
    SlackDm,
    SlackMention,
    SlackSlash,
    Way,
    offers_another,
)
from tests.support.replies import answer_of
from tests.support.service import serving_both
from tests.support.waiting import until

LONG = {"MAX_TOKENS": "8000", "CONTEXT_TOKENS": "32000"}
LINES = "".join(f"print({number}, '@everyone <!channel>')\n" for number in range(300))
WIDE = "|".join(f" column {number} " for number in range(30))
ANSWER = (
    f"Here:\n\n```../../evil.exe @everyone\n{LINES}```\n\n"
    f"|{WIDE}|\n|{'---|' * 30}\n|{WIDE.replace('column', '=SUM')}|\n\nThat is all."
)
CSV = (
    "\ufeff"
    + ",".join(f"column {number}" for number in range(30))
    + "\r\n"
    + ",".join(f"'=SUM {number}" for number in range(30))
    + "\r\n"
)
FILES = [("answer.txt", LINES), ("table.csv", CSV)]


class DiscordCommand(DiscordSlash):
    """With all messages of an answer."""

    def shown(self) -> list[Shown]:
        found = self.discord.screen(self.discord.channel_id)
        ours = (one for one in found if one.author_id == self.discord.bot_id)
        return [replace(one, text=answer_of(one.text)) for one in ours]


def files_of(way: Way) -> Sequence[tuple[str, str]]:
    """Return the names and the texts of all files in a conversation, in their order."""
    if isinstance(way, InDiscord):
        pairs = (zip(one.files, one.contents, strict=True) for one in way.shown())
        return [(name, data.decode()) for pair in pairs for name, data in pair]
    return [(name, data.decode()) for one in way.shown() for name, data in one.files]


@pytest.mark.parametrize(
    "place", [DiscordMention, DiscordDm, DiscordCommand, SlackMention, SlackDm, SlackSlash]
)
async def test_files_come_with_the_answer_and_change_with_it(
    place: Callable[[Any], Way], own_store: Store, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.0
    async with serving_both(own_store, model, **LONG) as (discord, slack, service):
        way = place(slack if "Slack" in repr(place) else discord)
        await way.ask("Write it.")
        await until(lambda: offers_another(way) and len(files_of(way)) == 2, why=service.text)
        first, shown = files_of(way), way.shown()

        model.answer = "No."
        await way.press()
        await until(lambda: way.finals() == ["No."] and offers_another(way), why=service.text)
        anew = files_of(way)

        assert first == FILES
        assert [bool(one.files) for one in shown] == [False] * (len(shown) - 1) + [True]
        assert anew == []
        assert discord.pings == slack.pings == []
        assert not service.errors()


@pytest.mark.parametrize("place", [DiscordMention, SlackMention])
async def test_an_older_answer_keeps_its_files_when_it_loses_its_buttons(
    place: Callable[[Any], Way], own_store: Store, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.0
    async with serving_both(own_store, model, **LONG) as (discord, slack, service):
        way = place(slack if "Slack" in repr(place) else discord)
        await way.ask("Write it.")
        await until(lambda: offers_another(way) and files_of(way), why=service.text)
        last = len(way.shown())

        model.answer = "Well."
        await way.ask("And now?")
        await until(lambda: len(way.shown()) > last and offers_another(way), why=service.text)
        await until(lambda: not way.shown()[last - 1].buttons, why=service.text)

        assert files_of(way) == FILES
        prompt = [str(one["content"]) for one in model.requests[-1].messages]
        assert sum("print(7," in one for one in prompt) == 1
