"""Commands, menus and forms, through the real discord.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from adapters.discord.gateway.buttons import PRESSED_LABEL
from adapters.discord.reply.command import ButtonPress
from adapters.discord.tuning import Tuning
from bot.commands.handlers import FORGET_QUESTION, FORGETTING, FORGOTTEN, SUMMARY_QUESTION
from bot.domain import ContextMessage, Person, ThreadKey
from bot.errors import PlaceGone, StoreUnavailable
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.message import Shown
from tests.emulators.discord.objects import Payload
from tests.emulators.model import ModelEmulator
from tests.support.discord_platform import FAST, listening, our_thread, page
from tests.support.fakes import FakeQueue
from tests.support.replies import answer_of
from tests.support.service import serving_discord
from tests.support.waiting import until


@asynccontextmanager
async def talk(
    *, message_content: bool = True, tuning: Tuning | None = None
) -> AsyncIterator[tuple[DiscordEmulator, FakeQueue, str]]:
    """A Discord with the bot, what it hands to the core, and Ada, a person there."""
    intake = FakeQueue()
    async with (
        DiscordEmulator(message_content=message_content) as emulator,
        listening(emulator, intake, tuning=tuning),
    ):
        yield emulator, intake, emulator.user("Ada")


async def told(emulator: DiscordEmulator, interaction: str) -> Shown:
    """Return the answer to an interaction, once it has one."""
    await until(lambda: emulator.original(interaction))
    shown = emulator.original(interaction)
    assert shown
    return shown


async def test_a_private_question_belongs_to_a_conversation_of_its_own() -> None:
    async with talk() as (emulator, intake, ada):
        channel, guild = emulator.channel_id, emulator.guild_id

        asked = await emulator.slash(channel, ada, "ask", question="why?", private=True)
        shown = await told(emulator, asked)

        assert shown.ephemeral
        assert intake.last.key == ThreadKey("discord", guild, channel, f"private-{ada}")
        assert "channel" not in intake.last.place


async def test_no_page_of_a_private_answer_stands_where_others_see_it() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, channel = emulator.user("Ada"), emulator.channel_id
        await told(emulator, await emulator.slash(channel, ada, "ask", question="a", private=True))

        async with platform.surface(intake.last) as surface:
            first = await surface.post(page("one"))
            await surface.edit(first, page("one two", final=True))
            second = await surface.post(page("three", number=1))
            await surface.edit(second, page("three four", number=1, last=True))

        seen = [(one.text, one.ephemeral) for one in emulator.screen(channel)]
        assert seen == [("one two", True), ("three four", True)]
        assert not [one for one in emulator.requests if one.path.startswith("/channels")]


async def test_a_private_answer_is_regenerated_where_its_asker_sees_it() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, channel = emulator.user("Ada"), emulator.channel_id
        await told(emulator, await emulator.slash(channel, ada, "ask", question="a", private=True))
        turn = intake.last
        async with platform.surface(turn) as surface:
            written = await surface.post(page("one", last=True))
        message = written.removeprefix("@")
        emulator.clock.advance(1000)

        await emulator.click(message, ada, f"regenerate:{turn.id}")
        await until(lambda: intake.pressed_at)
        pressed = intake.pressed_at[-1]
        assert pressed
        again = type(turn)(turn.id, turn.key, turn.person, "a", {**turn.place, **pressed}, 0.0)
        async with platform.surface(again) as surface:
            await surface.edit(written, page("two", last=True))

        assert [(one.text, one.ephemeral) for one in emulator.screen(channel)] == [("two", True)]


async def test_a_press_where_only_its_webhook_writes_is_seen_to_be_heard(
    model: ModelEmulator, own_store: Store
) -> None:
    free = asyncio.Event()
    async with serving_discord(own_store, model, CAPACITY="1") as (emulator, service):
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        places = {emulator.channel_id: {"private": True}, emulator.elsewhere(3, ada, bob): {}}
        asked = [
            await emulator.slash(place, ada, "ask", question="why?", **options)
            for place, options in places.items()
        ]

        def answers() -> list[Shown]:
            return [one for one in map(emulator.original, asked) if one]

        def labels() -> list[tuple[str, ...]]:
            return [one.labels for one in answers()]

        await until(lambda: labels() == [("Regenerate",)] * 2, why=service.text)
        model.fail("completions", "late", gate=free)
        await emulator.say(emulator.dm(bob), bob, "slow")
        await until(lambda: len(model.requests) == 3, why=service.text)

        for answer in answers():
            await emulator.click(answer.id, ada, answer.buttons[0])
        await until(lambda: labels() == [(PRESSED_LABEL,)] * 2, why=service.text)

        assert [answer_of(one.text) for one in answers()] == ["You said: why?"] * 2
        model.answer = "Anew."
        free.set()
        await until(lambda: labels() == [("Regenerate",)] * 2, why=service.text)
        assert [answer_of(one.text) for one in answers()] == ["Anew."] * 2


async def test_below_a_press_nothing_but_the_answer_shows_work() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        await emulator.slash(emulator.channel_id, emulator.user("Ada"), "ask", question="a")
        await until(lambda: intake.turns)
        turn = intake.last
        press = ButtonPress(7, "token", 8).to_json()

        async with platform.surface(turn) as surface:
            assert surface.shows_work
        async with platform.surface(replace(turn, place={**turn.place, **press})) as surface:
            assert not surface.shows_work


async def test_what_continues_a_private_answer_is_private() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, channel = emulator.user("Ada"), emulator.channel_id
        await told(emulator, await emulator.slash(channel, ada, "ask", question="a", private=True))
        turn = intake.last
        async with platform.surface(turn) as surface:
            cut = page("one", last=True)
            written = await surface.post(type(cut)(0, "one", final=True, last=True, end="cut"))

        clicked = await emulator.click(written.removeprefix("@"), ada, f"continue:{turn.id}")
        shown = await told(emulator, clicked)

        assert shown.ephemeral
        assert intake.last.place == {
            "interaction": clicked,
            "token": emulator.token_of(clicked),
            "private": True,
        }


async def test_a_private_question_in_a_thread_reads_the_thread() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "We deploy.")
        thread = await emulator.open_thread(said, ada, "Deploy")
        await emulator.say(thread, emulator.user("Bob"), "On Friday?")

        await told(emulator, await emulator.slash(thread, ada, "ask", question="a", private=True))
        found = await platform.read_context(intake.last, since="", most=50)

        assert intake.last.key.thread == f"private-{thread}-{ada}"
        assert [one.text for one in found] == ["We deploy.", "On Friday?"]


async def test_private_in_a_dm_is_as_private_as_the_dm() -> None:
    async with talk() as (emulator, intake, ada):
        dm = emulator.dm(ada)

        shown = await told(
            emulator, await emulator.slash(dm, ada, "ask", question="a", private=True)
        )

        assert not shown.ephemeral
        assert intake.last.key == ThreadKey("discord", "dm", dm, dm)


async def test_a_file_of_a_question_reads_as_one_below_a_message() -> None:
    async with talk() as (emulator, intake, ada):
        channel = emulator.channel_id
        asked = await emulator.slash(channel, ada, "ask", question="Why?", file="plan.pdf")
        await told(emulator, asked)
        await emulator.say(emulator.dm(ada), ada, "Why?", files=("plan.pdf",))
        await until(lambda: len(intake.texts) == 2)

        assert intake.texts == ["Why?\n[file: plan.pdf]"] * 2


@pytest.mark.parametrize("files", [None, {}, {"7": None}])
async def test_a_file_that_discord_does_not_describe_costs_no_question(files: object) -> None:
    async with talk() as (emulator, intake, ada):
        options = [
            {"type": 3, "name": "question", "value": "why?"},
            {"type": 11, "name": "file", "value": "7"},
        ]
        resolved = {"attachments": files}
        data = {"id": "1", "name": "ask", "type": 1, "options": options, "resolved": resolved}

        await told(emulator, await emulator.interact(emulator.channel_id, ada, 2, data))

        assert intake.texts == ["why?"]


async def test_a_thread_is_reset_by_those_who_began_it_or_manage_the_channel() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        cleo = emulator.user("Cleo", manages="channel")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)
        thread = await our_thread(emulator, platform, intake)

        refused = await told(emulator, await emulator.slash(thread, bob, "parley reset"))
        by_bob = list(intake.resets)
        await told(emulator, await emulator.slash(thread, ada, "parley reset"))
        await told(emulator, await emulator.slash(thread, cleo, "parley reset"))

        assert by_bob == []
        assert "Only the person who started" in refused.text
        assert intake.resets == [intake.last.key] * 2


async def test_stop_ends_what_runs_of_the_person() -> None:
    async with talk() as (emulator, intake, ada):
        intake.runs = True

        shown = await told(emulator, await emulator.slash(emulator.channel_id, ada, "parley stop"))

        assert intake.stopped_own == [(ada, emulator.channel_id)]
        assert shown.text == "Stopped."


async def test_stop_of_a_moderator_ends_what_runs_in_a_thread() -> None:
    async with talk() as (emulator, intake, ada):
        mona = emulator.user("Mona", moderates=True)
        said = await emulator.say(emulator.channel_id, ada, "We deploy.")
        thread = await emulator.open_thread(said, ada, "Deploy")

        intake.first_there = "another"
        await told(emulator, await emulator.slash(thread, mona, "parley stop"))

        assert [key.thread for key in intake.stopped_threads] == [thread]


async def test_help_tells_what_is_missing_and_what_an_admin_can_do() -> None:
    async with talk(message_content=False) as (emulator, _, ada):
        shown = await told(emulator, await emulator.slash(emulator.channel_id, ada, "parley help"))

        parley = next(one for one in emulator.commands if one["name"] == "parley")
        assert shown.ephemeral
        assert emulator.bot_mention in shown.text
        assert f"</parley reset:{parley['id']}>" in shown.text
        assert "Message Content Intent" in shown.text
        assert len(shown.text) <= 2000


async def test_help_in_a_dm_misses_nothing() -> None:
    async with talk(message_content=False) as (emulator, _, ada):
        shown = await told(emulator, await emulator.slash(emulator.dm(ada), ada, "parley help"))

        assert "every message here" in shown.text
        assert "`/ask`" in shown.text
        assert "does not work" not in shown.text


async def test_a_message_can_be_asked_about_for_everybody_to_see() -> None:
    async with talk() as (emulator, intake, ada):
        bob = emulator.user("Bob")
        said = await emulator.say(emulator.channel_id, bob, "E = mc²")

        opened = await emulator.choose(said, ada, "Ask about this")
        await until(lambda: emulator.modal(opened))
        sent = await emulator.submit(opened, question=" what is c? ")
        shown = await told(emulator, sent)

        turn = intake.last
        assert not shown.ephemeral
        assert turn.text == "what is c?"
        assert turn.quote == ContextMessage(f"discord:{said}", Person(bob, "Bob"), "E = mc²")
        assert turn.key.thread == f"ask-{ada}"


@pytest.mark.parametrize("name", ["Ask about this", "Summarise from here"])
async def test_the_menu_brings_the_files_of_the_message(name: str) -> None:
    async with talk() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, "Look!", files=("notes.txt",))

        chosen = await emulator.choose(said, ada, name)
        if name == "Ask about this":
            await until(lambda: emulator.modal(chosen))
            chosen = await emulator.submit(chosen, question="Why?")
        await told(emulator, chosen)

        assert intake.last.quote
        assert [one.name for one in intake.last.quote.files] == ["notes.txt"]
        assert {*intake.last.quote.files[0].place} == {"channel", "url"}


async def test_a_message_can_be_asked_about_alone() -> None:
    async with talk() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, "E = mc²")

        opened = await emulator.choose(said, ada, "Ask about this")
        await until(lambda: emulator.modal(opened))
        shown = await told(emulator, await emulator.submit(opened, question="why?", who="me"))

        assert shown.ephemeral
        assert intake.last.key.thread == f"private-{ada}"


async def test_a_form_shows_nobody_what_another_person_asks_about() -> None:
    async with talk() as (emulator, intake, ada):
        said, eve = await emulator.say(emulator.channel_id, ada, "E = mc²"), emulator.user("Eve")
        opened = await emulator.choose(said, ada, "Ask about this")
        await until(lambda: emulator.modal(opened))
        question = {"type": 4, "custom_id": "question", "value": "What was that?"}
        parts = [{"type": 18, "component": question}]

        forged = {"custom_id": f"about:{opened}", "components": parts}
        shown = await told(emulator, await emulator.interact(emulator.channel_id, eve, 5, forged))

        assert "choose it again" in shown.text
        assert not intake.turns


async def test_a_question_about_a_message_that_was_not_kept_is_asked_for_again() -> None:
    async with talk() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, "E = mc²")
        opened = await emulator.choose(said, ada, "Ask about this")
        await until(lambda: emulator.modal(opened))
        intake.history.kept.clear()

        shown = await told(emulator, await emulator.submit(opened, question="why?"))

        assert shown.ephemeral
        assert "choose it again" in shown.text
        assert not intake.turns


async def test_a_summary_shows_what_was_said_from_the_message_on() -> None:
    async with talk() as (emulator, intake, ada):
        bob, channel = emulator.user("Bob"), emulator.channel_id
        await emulator.say(channel, bob, "before")
        first = await emulator.say(channel, bob, "We deploy on Friday.")
        await emulator.say(channel, ada, "Rather not.")
        await emulator.say(channel, bob, "Monday, then.")

        shown = await told(emulator, await emulator.choose(first, ada, "Summarise from here"))

        turn = intake.last
        assert shown.ephemeral
        assert turn.text == SUMMARY_QUESTION
        assert turn.quote
        assert turn.quote.text == "We deploy on Friday."
        assert turn.context
        assert [one.text for one in turn.context] == ["Rather not.", "Monday, then."]


async def test_what_another_bot_shows_is_asked_about_and_summarised() -> None:
    text: Payload = {"type": 10, "content": "Three tests are red"}
    async with talk() as (emulator, intake, ada):
        ci = emulator.user("CI", bot=True)
        said = [await emulator.say(emulator.channel_id, ci, "x") for _ in range(2)]
        for one in said:
            emulator.decorate(one, text="", embeds=[{"title": "Build failed"}], components=[text])

        opened = await emulator.choose(said[0], ada, "Ask about this")
        await until(lambda: emulator.modal(opened))
        await told(emulator, await emulator.submit(opened, question="why?"))
        about = intake.last
        await told(emulator, await emulator.choose(said[0], ada, "Summarise from here"))

        shown = "Build failed\nThree tests are red"
        assert [one.quote.text for one in (about, intake.last) if one.quote] == [shown] * 2
        assert [one.text for one in intake.last.context or ()] == [shown]


async def test_no_summary_is_made_of_what_the_bot_cannot_read() -> None:
    async with talk(message_content=False) as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, "We deploy.")

        shown = await told(emulator, await emulator.choose(said, ada, "Summarise from here"))

        assert shown.ephemeral
        assert "Message Content Intent" in shown.text
        assert not intake.turns


async def test_nobody_is_told_what_they_may_not_read() -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        emulator.hide_history(emulator.channel_id)
        async with listening(emulator, intake):
            ada = emulator.user("Ada")
            said = await emulator.say(emulator.channel_id, ada, "We deploy.")

            shown = await told(emulator, await emulator.choose(said, ada, "Summarise from here"))

            assert "You cannot see the earlier messages" in shown.text
            assert not intake.turns


@pytest.mark.parametrize("kind", [0, 1, 3])
async def test_where_the_bot_is_no_member_the_answer_streams_by_the_interaction(kind: int) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        people = () if kind == 0 else (ada, bob)
        place = emulator.elsewhere(kind, *people)  # type: ignore[arg-type]

        await told(emulator, await emulator.slash(place, ada, "ask", question="why?"))
        async with platform.surface(intake.last) as surface:
            first = await surface.post(page("one", final=True))
            await surface.post(page("two", number=1, last=True))
            await surface.edit(first, page("one!", final=True))
        found = await platform.read_context(intake.last, since="", most=50)

        seen = [(answer_of(one.text), one.ephemeral) for one in emulator.screen(place)]
        assert seen == [("one!", False), ("two", False)]
        assert found == ()
        assert not [one for one in emulator.requests if one.path.startswith("/channels")]


async def test_where_the_bot_is_no_member_an_answer_has_six_pages_at_most() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        place = emulator.elsewhere(3, ada, emulator.user("Bob"))
        asked = await emulator.slash(place, ada, "ask", question="why?", private=True)
        shown = await told(emulator, asked)

        async with platform.surface(intake.last) as surface:
            for number in range(6):
                emulator.clock.advance(5)
                await surface.post(page(f"page {number}", number=number, final=True))
            with pytest.raises(PlaceGone):
                await surface.post(page("page 6", number=6, final=True))

        assert shown.ephemeral
        assert intake.last.key == ThreadKey("discord", "dm", place, f"private-{ada}")
        assert [one.ephemeral for one in emulator.screen(place)] == [True] * 6


async def test_help_where_the_bot_is_no_member_tells_of_commands_alone() -> None:
    async with talk() as (emulator, _, ada):
        place = emulator.elsewhere(3, ada, emulator.user("Bob"))

        shown = await told(emulator, await emulator.slash(place, ada, "parley help"))

        assert "/ask" in shown.text
        assert "not a member" in shown.text


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_presses_forget_is_forgotten_and_told(at_once: bool) -> None:
    async with talk() as (emulator, intake, ada):
        intake.forgetting.is_quick = at_once
        asked = await emulator.slash(emulator.channel_id, ada, "parley forget-me")
        question = await told(emulator, asked)
        assert (question.text, question.ephemeral) == (FORGET_QUESTION, True)

        pressed = await emulator.click(question.id, ada, f"forget:{ada}")
        shown = await told(emulator, pressed)

        assert intake.forgetting.people == [ada]
        assert shown.text == (FORGOTTEN if at_once else FORGETTING)
        intake.forgetting.is_quick = True
        await until(lambda: (found := emulator.original(pressed)) and found.text == FORGOTTEN)


@pytest.mark.parametrize("name", ["reset", "stop"])
async def test_a_command_while_redis_is_away_says_so(name: str) -> None:
    async with talk() as (emulator, intake, ada):
        intake.refuses = StoreUnavailable("away")
        said = await emulator.say(emulator.channel_id, ada, "We deploy.")
        thread = await emulator.open_thread(said, ada, "Deploy")

        shown = await told(emulator, await emulator.slash(thread, ada, f"parley {name}"))

        assert shown.ephemeral
        assert "at the moment" in shown.text


async def test_a_command_does_not_wait_longer_for_redis_than_discord_waits_for_us() -> None:
    async with talk(tuning=Tuning(answer_within=0.05)) as (emulator, intake, ada):
        intake.open.clear()

        shown = await told(emulator, await emulator.slash(emulator.dm(ada), ada, "parley reset"))

        assert "at the moment" in shown.text
