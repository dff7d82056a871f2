"""Edits of messages reach the intake in order, and only those that a person made."""

from __future__ import annotations

import pytest

from bot.errors import StoreUnavailable
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.objects import Payload
from tests.support.discord_platform import heard
from tests.support.fakes import FakeQueue
from tests.support.waiting import until


def edits(intake: FakeQueue) -> list[str]:
    return [turn.text for turn, _ in intake.edits]


async def test_an_edit_is_the_turn_that_it_was_with_another_text() -> None:
    async with heard(message_content=False) as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, mention(emulator, "a"))
        await until(lambda: intake.turns)

        await emulator.edit(said, mention(emulator, "b"))
        await until(lambda: intake.edits)

        ((turn, edited_at),) = intake.edits
        assert (turn.id, turn.key, turn.place) == (
            intake.turns[0].id,
            intake.turns[0].key,
            intake.turns[0].place,
        )
        assert turn.text == "b"
        assert edited_at == pytest.approx(turn.asked_at, abs=60)


def mention(emulator: DiscordEmulator, text: str) -> str:
    return f"{emulator.bot_mention} {text}"


async def test_a_message_that_mentions_the_bot_only_now_is_an_edit() -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, "why?")

        await emulator.edit(said, mention(emulator, "why?"))
        await until(lambda: intake.edits)

        assert (edits(intake), intake.texts) == (["why?"], ["why?"])


async def test_a_question_whose_mention_is_edited_away_is_still_one() -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, mention(emulator, "why?"))
        await until(lambda: intake.turns)

        await emulator.edit(said, "why not?")
        await until(lambda: intake.edits)

        assert edits(intake) == ["why not?"]


async def test_an_empty_mention_that_becomes_a_question_is_one() -> None:
    async with heard() as (emulator, intake, ada):
        place, ada = emulator.channel_id, ada
        said = await emulator.say(place, ada, emulator.bot_mention)
        await until(lambda: len(emulator.screen(place)) == 2)

        await emulator.edit(said, mention(emulator, "why?"))
        await until(lambda: intake.edits)

        assert (edits(intake), intake.texts) == (["why?"], ["why?"])


async def test_updates_that_are_no_edits_are_not_for_us() -> None:
    async with heard() as (emulator, intake, ada):
        other = emulator.user("other", bot=True)
        dm = emulator.dm(ada)
        said = await emulator.say(dm, ada, "why?")
        of_another = await emulator.say(emulator.channel_id, other, mention(emulator, "beep"))
        unfurled: Payload = emulator.event_of(said) | {"embeds": [{"type": "link", "title": "x"}]}

        await emulator.tell("MESSAGE_UPDATE", unfurled)
        await emulator.tell("MESSAGE_UPDATE", {"id": said, "channel_id": dm, "pinned": True})
        await emulator.edit(of_another, mention(emulator, "boop"))
        await emulator.edit(said, "and how?")
        await until(lambda: intake.edits)

        assert edits(intake) == ["and how?"]


async def test_an_edit_that_cannot_be_parsed_whole_is_still_one() -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.dm(ada), ada, "why?")
        await emulator.edit(said, "and how?")
        await until(lambda: intake.edits)

        odd = emulator.event_of(said) | {"content": "and when?", "poll": {"question": None}}
        await emulator.tell("MESSAGE_UPDATE", odd)
        await until(lambda: len(intake.edits) > 1)

        assert edits(intake) == ["and how?", "and when?\n[poll]"]


async def test_edits_wait_for_the_store_behind_their_question() -> None:
    async with heard() as (emulator, intake, ada):
        intake.refuses = StoreUnavailable("away")
        said = await emulator.say(emulator.dm(ada), ada, "one")
        await emulator.edit(said, "two")
        await emulator.edit(said, "three")
        await until(lambda: intake.refusals)

        intake.refuses = None
        await until(lambda: len(intake.edits) == 2)

        assert (intake.texts, edits(intake)) == (["one"], ["two", "three"])


async def test_an_edit_of_a_message_that_is_deleted_meanwhile_is_dropped() -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.dm(ada), ada, "one")
        await until(lambda: intake.turns)
        intake.refuses = StoreUnavailable("away")
        await emulator.edit(said, "two")
        await until(lambda: intake.refusals)
        await emulator.delete(said)
        await emulator.say(emulator.dm(ada), ada, "three")

        intake.refuses = None
        await until(lambda: len(intake.turns) == 2 and intake.forgotten)

        assert (intake.texts, edits(intake)) == (["one", "three"], [])
