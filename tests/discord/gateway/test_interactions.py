"""The command /ask and the buttons are answered in time, through the real discord.py."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from adapters.discord.tuning import Tuning
from bot.commands.handlers import AWAY, excuse
from bot.domain import Person, ThreadKey
from bot.errors import HasEnded, NotTheLast, Refused, StoreUnavailable, ThreadBusy
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import channel_turn, dm_turn, heard, listening, logged_in, page
from tests.support.fakes import FakeQueue
from tests.support.waiting import until


async def test_ask_is_admitted_before_it_is_acknowledged() -> None:
    intake = FakeQueue()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")

        asked = await emulator.slash(emulator.channel_id, ada, "ask", question=" why? ")
        await until(lambda: intake.turns)
        early = emulator.original(asked)
        intake.open.set()
        await until(lambda: emulator.original(asked))

        turn = intake.turns[0]
        assert early is None
        assert turn.id == f"discord:{asked}"
        assert turn.key == ThreadKey(
            "discord", emulator.guild_id, emulator.channel_id, f"ask-{ada}"
        )
        assert (turn.person, turn.text) == (Person(ada, "Ada"), "why?")


async def test_ask_in_a_dm_belongs_to_what_is_said_there() -> None:
    async with heard() as (emulator, intake, ada):
        dm = emulator.dm(ada)

        asked = await emulator.slash(dm, ada, "ask", question="why?")
        await until(lambda: emulator.original(asked))
        await emulator.say(dm, ada, "hello")
        await until(lambda: len(intake.turns) == 2)

        assert intake.turns[0].key == ThreadKey("discord", "dm", dm, dm) == intake.turns[1].key


@pytest.mark.parametrize("is_known", [True, False])
async def test_ask_in_a_thread_belongs_to_what_is_said_there(is_known: bool) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        said = await emulator.say(emulator.channel_id, ada, "We deploy.")
        thread = await emulator.open_thread(said, ada, "Deploy")
        if not is_known:
            # As in a session that was resumed, in which the gateway shows no servers.
            await emulator.tell("GUILD_DELETE", {"id": emulator.guild_id})

        await emulator.say(thread, bob, "On Friday?")
        await emulator.slash(thread, ada, "ask", question="why?")
        await until(lambda: intake.turns)
        asked = intake.last
        await emulator.say(thread, bob, f"{emulator.bot_mention} when?")
        await until(lambda: len(intake.turns) == 2)
        found = await platform.read_context(asked, since="", most=50)

        key = ThreadKey("discord", emulator.guild_id, emulator.channel_id, thread)
        assert asked.key == key == intake.last.key
        assert [one.text for one in found] == ["We deploy.", "On Friday?"]


@pytest.mark.parametrize("refusal", [ThreadBusy(), StoreUnavailable("away")])
async def test_ask_that_is_not_admitted_gets_an_apology_for_the_asker_alone(
    refusal: Refused | StoreUnavailable,
) -> None:
    async with heard(refuses=refusal) as (emulator, _, ada):
        asked = await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
        await until(lambda: emulator.original(asked))

        shown = emulator.original(asked)
        assert shown is not None
        assert (shown.text, shown.ephemeral) == (excuse(refusal), True)
        assert not emulator.unguarded


async def test_ask_does_not_wait_longer_for_the_store_than_discord_waits_for_us() -> None:
    intake = FakeQueue()
    intake.open.clear()
    tuning = Tuning(answer_within=0.05)
    async with DiscordEmulator() as emulator, listening(emulator, intake, tuning=tuning):
        asked = await emulator.slash(
            emulator.channel_id, emulator.user("Ada"), "ask", question="why?"
        )
        await until(lambda: emulator.original(asked))

        shown = emulator.original(asked)
        assert shown is not None
        assert shown.text == AWAY


async def test_the_stop_button_works_after_a_restart() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} count")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with logged_in(emulator) as platform, platform.surface(turn) as surface:
            shown = await surface.post(page("1, 2, 3"))

        async with listening(emulator, intake):
            clicked = await emulator.click(shown, ada, f"stop:discord:{said}")
            await until(lambda: emulator.original(clicked))

        assert intake.stopped == [f"discord:{said}"]
        assert [one.text for one in emulator.screen(emulator.channel_id)][1:] == ["1, 2, 3"]


async def test_the_regenerate_button_tells_who_pressed_it_and_when() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} count")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with logged_in(emulator) as platform, platform.surface(turn) as surface:
            shown = await surface.post(page("1, 2, 3", last=True))

        intake.turns.append(replace(turn, person=Person(ada, "Ada")))
        async with listening(emulator, intake):
            clicked = await emulator.click(shown, ada, f"regenerate:discord:{said}")
            await until(lambda: emulator.original(clicked))

        assert intake.pressed == [(f"discord:{said}", ada, f"discord:{clicked}")]
        assert [one.text for one in emulator.screen(emulator.channel_id)][1:] == ["1, 2, 3"]


async def test_a_stop_that_comes_after_the_end_is_told_so_and_gives_way_to_regenerate() -> None:
    intake = FakeQueue()
    intake.has_ended = True
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("https://example.org"))

        await emulator.click(shown, emulator.user("Bob"), f"stop:{turn.id}")
        await until(lambda: len(emulator.screen(str(turn.place["channel"]))) > 1)

        ended, told = emulator.screen(str(turn.place["channel"]))
        assert (ended.text, ended.buttons) == ("https://example.org", (f"regenerate:{turn.id}",))
        assert ended.suppressed
        assert (told.text, told.ephemeral) == (HasEnded.apology, True)


async def test_a_stop_on_a_message_that_takes_no_edit_is_answered_all_the_same() -> None:
    intake = FakeQueue()
    intake.has_ended = True
    archived = {"code": 50083, "message": "Thread is archived"}
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("1, 2, 3"))
        emulator.fail("POST /interactions", status=400, body=archived)

        clicked = await emulator.click(shown, emulator.user("Bob"), f"stop:{turn.id}")
        await until(lambda: emulator.original(clicked))

        told = emulator.original(clicked)
        assert told is not None
        assert (told.text, told.ephemeral) == (HasEnded.apology, True)


@pytest.mark.parametrize("refusal", [NotTheLast(), StoreUnavailable("away")])
async def test_a_press_that_leads_to_nothing_is_answered_to_the_person_alone(
    refusal: Refused | StoreUnavailable,
) -> None:
    intake = FakeQueue()
    intake.refuses = refusal
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        bob = emulator.user("Bob")
        intake.turns.append(replace(dm_turn(emulator), person=Person(bob, "Bob")))
        async with platform.surface(intake.last) as surface:
            shown = await surface.post(page("1, 2, 3", last=True))

        clicked = await emulator.click(shown, bob, "regenerate:discord:1")
        await until(lambda: emulator.original(clicked))

        told = emulator.original(clicked)
        assert told is not None
        assert (told.text, told.ephemeral) == (excuse(refusal), True)


COMMAND, PRESS, AUTOCOMPLETION, MODAL, UNKNOWN = 2, 3, 4, 5, 99
TEXT_OPTION = {"type": 3, "name": "prompt", "value": "why"}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (COMMAND, {"id": "1", "name": "imagine", "type": 1}),
        (COMMAND, {"id": "1", "name": "ask", "type": 1}),
        (COMMAND, {"id": "1", "name": "ask", "type": 1, "options": [TEXT_OPTION] * 2}),
        (COMMAND, {"id": "1", "name": "parley", "type": 1, "options": [{"type": 1, "name": "x"}]}),
        (COMMAND, {"id": "1", "name": "Summarise", "type": 3, "target_id": "5"}),
        (COMMAND, None),
        (PRESS, {"custom_id": "like:discord:1", "component_type": 2}),
        (PRESS, {"custom_id": "model", "component_type": 3, "values": ["small"]}),
        (PRESS, None),
        (MODAL, {"custom_id": "settings", "components": []}),
        (MODAL, {"custom_id": "settings"}),
        (UNKNOWN, {"name": "new"}),
    ],
)
async def test_what_is_none_of_ours_is_declined_to_the_person_alone(
    kind: int, data: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="adapters")
    async with heard() as (emulator, intake, ada):
        asked = await emulator.interact(emulator.channel_id, ada, kind, data)
        await until(lambda: emulator.original(asked))

        told = emulator.original(asked)
        assert told is not None
        assert told.ephemeral
        assert "/ask" in told.text
        assert not emulator.unguarded
        assert not intake.turns
    assert f"Interaction {asked}" in caplog.text
    assert not [one for one in caplog.records if one.exc_info or one.levelno > logging.INFO]


async def test_an_autocompletion_gets_no_choices(caplog: pytest.LogCaptureFixture) -> None:
    async with heard() as (emulator, intake, ada):
        data = {"id": "1", "name": "ask", "type": 1, "options": [TEXT_OPTION | {"focused": True}]}

        asked = await emulator.interact(emulator.channel_id, ada, AUTOCOMPLETION, data)
        await until(lambda: emulator.choices(asked) is not None)

        assert emulator.choices(asked) == []
        assert not intake.turns
    assert not [one for one in caplog.records if one.exc_info or one.levelno > logging.INFO]


async def test_a_press_of_somebody_of_whom_only_the_id_is_told_is_answered() -> None:
    async with heard() as (emulator, intake, ada):
        data = {"custom_id": "stop:discord:1", "component_type": 2}

        for one in ("?", ada):
            member = {"user": {"id": one}}
            await emulator.interact(emulator.channel_id, ada, PRESS, data, member=member)
        await until(lambda: intake.stopped)

        assert intake.stopped == ["discord:1"]


async def test_a_command_in_a_place_that_the_library_does_not_know_is_declined() -> None:
    async with heard() as (emulator, _, ada):
        data = {"id": "1", "name": "ask", "type": 1, "options": [TEXT_OPTION]}
        place = {"id": "98", "type": 99}

        asked = await emulator.interact(
            emulator.channel_id, ada, COMMAND, data, channel=place, channel_id="98"
        )
        await until(lambda: emulator.original(asked))

        told = emulator.original(asked)
        assert told is not None
        assert told.ephemeral


def test_an_interaction_is_answered_before_discord_gives_it_up() -> None:
    assert Tuning().answer_within < 3
