"""Discord: what people do becomes turns, and replies are shown, through the real discord.py."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.discord import DiscordPlatform, connect
from adapters.discord.backlog import Backlog, Errand
from adapters.discord.place import ChannelPlace, CommandPlace
from bot.domain import EditBudget, Page, Person, Place, ThreadKey, Turn
from bot.errors import (
    CannotStart,
    HasEnded,
    MessageGone,
    NotTheLast,
    PlaceGone,
    Refused,
    StoreUnavailable,
    SurfaceError,
    ThreadBusy,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.ports import Platform
from tests.emulators.discord import DiscordEmulator
from tests.emulators.faults import How
from tests.fakes import FakeIntake
from tests.waiting import until


class NoLimits:
    """Counts nothing and waits for nothing."""

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Forget it."""

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        """Let it go out."""

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Go on."""


@asynccontextmanager
async def logged_in(
    emulator: DiscordEmulator, *, threads: bool = True
) -> AsyncIterator[DiscordPlatform]:
    async with connect(
        token=emulator.token,
        api_url=emulator.api_url,
        gateway_url=emulator.gateway_url,
        threads=threads,
        budgets=NoLimits(),
    ) as platform:
        yield platform


@asynccontextmanager
async def listening(
    emulator: DiscordEmulator, intake: FakeIntake, *, threads: bool = True
) -> AsyncIterator[DiscordPlatform]:
    async with logged_in(emulator, threads=threads) as platform:
        task = asyncio.create_task(platform.listen(intake))
        try:
            async with asyncio.timeout(5):
                await emulator.connected.wait()
            yield platform
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def turn_at(place: Place, *, turn_id: str = "discord:1", text: str = "why?") -> Turn:
    key = ThreadKey("discord", "1", "2", "3")
    return Turn(turn_id, key, Person("9", "Ada"), text, place, time.time())


def channel_turn(emulator: DiscordEmulator, question: str, *, opens_thread: bool = True) -> Turn:
    place = ChannelPlace(int(emulator.channel_id), int(question), opens_thread=opens_thread)
    return turn_at(place.written(), turn_id=f"discord:{question}")


def dm_turn(emulator: DiscordEmulator) -> Turn:
    channel = emulator.dm(emulator.user("Ada"))
    return turn_at(ChannelPlace(int(channel), None, opens_thread=False).written())


def page(text: str, *, number: int = 0, final: bool = False, last: bool = False) -> Page:
    return Page(number, text, final or last, last=last)


def snowflake_of(moment: float) -> int:
    return int((moment - 1_420_070_400) * 1000) << 22


# What people do


async def test_a_mention_in_a_channel_becomes_a_turn_whose_thread_is_still_to_be_opened() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")

        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)

        turn = intake.turns[0]
        assert turn.id == f"discord:{said}"
        assert turn.key == ThreadKey("discord", emulator.guild_id, emulator.channel_id, said)
        assert turn.person == Person(ada, "Ada")
        assert turn.text == "why?"
        assert turn.asked_at == pytest.approx(time.time(), abs=5)
        assert json.loads(json.dumps(turn.place)) == turn.place


async def test_bots_and_talk_among_people_are_not_for_us() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada, other = emulator.user("Ada"), emulator.user("other", bot=True)

        await emulator.say(emulator.channel_id, other, f"{emulator.bot_mention} beep")
        await emulator.say(emulator.channel_id, emulator.bot_id, f"{emulator.bot_mention} me")
        await emulator.say(emulator.channel_id, ada, "talking about <@123456789012345678>")
        await emulator.say(emulator.channel_id, ada, f"hey {emulator.bot_mention}, you")
        await until(lambda: intake.turns)

        assert intake.texts == ["hey, you"]


async def test_a_role_is_not_us_and_reads_as_its_name() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada, role = emulator.user("Ada"), emulator.role("helpers")

        await emulator.say(emulator.channel_id, ada, f"<@&{role}> help")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} greet <@&{role}>")
        await until(lambda: intake.turns)

        assert intake.texts == ["greet @helpers"]


async def test_what_discord_puts_at_the_begin_of_a_thread_is_not_for_us() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""

        starter = emulator.event_of(said) | {"id": "99", "type": 21, "channel_id": thread}
        await emulator.tell("MESSAGE_CREATE", starter)
        await emulator.say(thread, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]


async def test_a_message_delivered_twice_is_one_turn() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")

        await emulator.redeliver(said)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]


async def test_every_message_in_a_dm_is_for_us() -> None:
    intake = FakeIntake()
    async with DiscordEmulator(message_content=False) as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)

        await emulator.say(dm, ada, "hello")
        await until(lambda: intake.turns)

        assert intake.turns[0].key == ThreadKey("discord", "dm", dm, dm)
        assert intake.turns[0].place == ChannelPlace(int(dm), None, opens_thread=False).written()


async def test_in_a_thread_of_our_own_nobody_needs_to_mention_us() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""

        await emulator.say(thread, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.turns[1].key == intake.turns[0].key
        expected = ChannelPlace(int(thread), None, opens_thread=False)
        assert intake.turns[1].place == expected.written()


async def test_a_thread_that_the_gateway_has_not_shown_us_is_looked_up() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""
        where = {"guild_id": emulator.guild_id, "parent_id": emulator.channel_id}
        gone: dict[str, object] = {"id": thread, "type": 11} | where

        await emulator.tell("THREAD_DELETE", gone)
        await emulator.say(thread, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.turns[1].key == intake.turns[0].key


async def test_without_message_content_we_read_only_mentions_in_a_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeIntake()
    async with (
        DiscordEmulator(message_content=False) as emulator,
        listening(emulator, intake) as platform,
    ):
        await until(lambda: emulator.sessions == 2)
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""

        await emulator.say(thread, ada, "two")
        await emulator.say(thread, ada, f"{emulator.bot_mention} three")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "three"]
        warnings = [one for one in caplog.messages if "Message Content Intent" in one]
        assert len(warnings) == 1


@pytest.mark.parametrize("threads", [True, False])
async def test_a_reply_to_us_in_a_channel_goes_on_with_its_thread(threads: bool) -> None:
    intake = FakeIntake()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, threads=threads) as platform,
    ):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "one")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with platform.surface(turn) as surface:
            answer = await surface.post(page("first", final=True))
        intake.threads[answer] = turn.key

        said = await emulator.say(emulator.channel_id, ada, "two", reply_to=answer)
        await until(lambda: intake.turns)

        assert intake.turns[0].key == turn.key
        expected = ChannelPlace(int(emulator.channel_id), int(said), opens_thread=False)
        assert intake.turns[0].place == expected.written()


async def test_without_threads_a_mention_is_answered_where_it_stands() -> None:
    intake = FakeIntake()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, threads=False) as platform,
    ):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)

        async with platform.surface(intake.turns[0]) as surface:
            await surface.post(page("because", final=True))

        assert intake.turns[0].key.thread == said
        assert emulator.screen(emulator.channel_id)[1].reply_to == said


async def test_other_mentions_read_as_names() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        asked = f"{emulator.bot_mention} does <@{bob}> read <#{emulator.channel_id}>?"

        await emulator.say(emulator.channel_id, ada, asked)
        await until(lambda: intake.turns)

        assert intake.texts == ["does @Bob read #general?"]


async def test_files_are_named_and_what_was_forwarded_is_read() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        original = await emulator.say(emulator.channel_id, ada, "this", files=("dog.png",))

        await emulator.say(dm, ada, "look", files=("cat.png",))
        await emulator.forward(dm, ada, original)
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["look\n[file: cat.png]", "[forwarded] this\n[file: dog.png]"]


async def test_an_empty_mention_gets_one_line_of_help() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")

        said = await emulator.say(emulator.channel_id, ada, f" {emulator.bot_mention} ")
        await emulator.redeliver(said)
        await until(lambda: len(emulator.screen(emulator.channel_id)) > 1)

        _, help_line = emulator.screen(emulator.channel_id)
        assert help_line.reply_to == said
        assert "question" in help_line.text
        assert not intake.turns


async def test_a_refused_turn_is_answered_with_its_apology() -> None:
    intake = FakeIntake()
    intake.refuses = ThreadBusy()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")

        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} now")
        await until(lambda: len(emulator.screen(emulator.channel_id)) > 1)

        _, apology = emulator.screen(emulator.channel_id)
        assert (apology.text, apology.reply_to) == (ThreadBusy.apology, said)
        assert not emulator.pings
        assert not emulator.unguarded


async def test_messages_wait_for_the_store_and_keep_their_order() -> None:
    intake = FakeIntake()
    intake.refuses = StoreUnavailable("away")
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        for text in ("one", "two"):
            await emulator.say(dm, ada, text)
        await until(lambda: intake.refusals)

        intake.refuses = None
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]


@asynccontextmanager
async def working(backlog: Backlog) -> AsyncIterator[None]:
    task = asyncio.create_task(backlog.work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Errands:
    """Makes errands that fail while `away`, and writes their names down when they are done.

    `tries` counts how often any of them was begun.
    """

    def __init__(self) -> None:
        self.away: Exception | None = StoreUnavailable("away")
        self.done: list[str] = []
        self.tries = 0

    def __call__(self, name: str) -> Errand:
        async def run() -> None:
            self.tries += 1
            if self.away:
                raise self.away
            self.done.append(name)

        return run


async def test_of_more_than_a_hundred_waiting_questions_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(103):
        backlog.add_question(f"{number}", errand(f"{number}"))

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 100)

    assert errand.done == [f"{number}" for number in range(3, 103)]


async def test_deletions_drop_no_question_of_other_people() -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(3):
        backlog.add_question(f"{number}", errand(f"question {number}"))
    for number in range(101):
        backlog.add_deletion([f"another {number}"], errand("deletion"))

    async with working(backlog):
        await until(lambda: errand.tries)
        errand.away = None
        await until(lambda: len(errand.done) == 104)

    assert errand.done[:3] == ["question 0", "question 1", "question 2"]


async def test_of_more_than_a_thousand_waiting_deletions_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(1002):
        backlog.add_deletion([f"{number}"], errand(f"{number}"))

    async with working(backlog):
        await until(lambda: "2 events from Discord were dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 1000)

    assert errand.done[0] == "2"


async def test_a_question_that_is_deleted_while_it_waits_is_not_admitted() -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(3):
        backlog.add_question(f"{number}", errand(f"question {number}"))
    async with working(backlog):
        await until(lambda: errand.tries)

        backlog.add_deletion(["0", "2"], errand("deletion"))
        errand.away = None
        await until(lambda: "deletion" in errand.done)

    assert errand.done == ["question 1", "deletion"]


@pytest.mark.parametrize("failure", [PlaceGone("no"), WriteRefused("no")])
async def test_an_errand_that_can_never_succeed_is_dropped_at_once(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture
) -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = failure
    backlog.add_question("1", errand("1"))

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        backlog.add_question("2", errand("2"))
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("failure", [WriteFailed("no"), WriteDelayed("no", retry_after=1)])
async def test_an_errand_that_discord_fails_for_long_is_dropped(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.discord.backlog._PATIENCE", 0.1)
    monkeypatch.setattr("adapters.discord.backlog._FIRST_PAUSE", 0.06)
    backlog, errand = Backlog(), Errands()
    errand.away = failure
    backlog.add_question("1", errand("1"))

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        backlog.add_question("2", errand("2"))
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert "wait" in caplog.text


async def test_an_errand_waits_for_the_store_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.discord.backlog._PATIENCE", 0.0)
    monkeypatch.setattr("adapters.discord.backlog._FIRST_PAUSE", 0.01)
    backlog, errand = Backlog(), Errands()
    backlog.add_question("1", errand("1"))

    async with working(backlog):
        await until(lambda: errand.tries > 2)
        errand.away = None
        await until(lambda: errand.done)

    assert errand.done == ["1"]


async def test_a_channel_that_the_library_does_not_know_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        said = await emulator.say(emulator.channel_id, ada, "hi")
        event = emulator.event_of(said) | {"id": "99", "channel_id": "98"}
        bot = {"id": emulator.bot_id, "username": "p", "discriminator": "0", "avatar": None}
        channel = {"id": "98", "type": 99, "guild_id": emulator.guild_id, "name": "new"}
        emulator.fail("GET /channels/98", status=200, body=channel, times=99)

        await emulator.tell("MESSAGE_CREATE", event | {"mentions": [bot]})
        await emulator.say(dm, ada, "hello?")
        await until(lambda: intake.turns)

        assert intake.texts == ["hello?"]
        assert "dropped: Unknown channel type 99" in caplog.text


async def test_a_deleted_question_is_forgotten_after_it_was_admitted() -> None:
    intake = FakeIntake()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} oh no")
        await until(lambda: intake.turns)

        await emulator.delete(said)
        # What is told behind the deletion does not wait for the admission.
        await emulator.slash(emulator.channel_id, ada, "ask", prompt="and you?")
        await until(lambda: len(intake.turns) > 1)
        early = list(intake.forgotten)
        intake.open.set()
        await until(lambda: intake.forgotten)

        assert (early, intake.forgotten) == ([], [f"discord:{said}"])


async def test_questions_that_a_moderator_sweeps_away_are_forgotten() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        channel, asked = emulator.channel_id, f"{emulator.bot_mention} why?"
        said = [await emulator.say(channel, ada, asked) for _ in range(2)]
        await until(lambda: len(intake.turns) > 1)

        await emulator.sweep(*said)
        await until(lambda: len(intake.forgotten) > 1)

        assert intake.forgotten == [f"discord:{one}" for one in said]


async def test_questions_that_are_swept_away_while_the_store_is_away_are_not_admitted() -> None:
    intake = FakeIntake()
    intake.refuses = StoreUnavailable("away")
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        channel, name = emulator.channel_id, emulator.bot_mention
        texts = [f"{name} {text}" for text in ("one", "two", "three")]
        said = [await emulator.say(channel, ada, text) for text in texts]
        await until(lambda: intake.refusals)

        await emulator.sweep(*said[:2])
        await emulator.say(channel, ada, f"{name} four")
        await until(lambda: intake.refusals > 1)
        intake.refuses = None
        await until(lambda: len(intake.turns) > 1 and intake.forgotten)

        assert intake.texts == ["three", "four"]
        assert intake.forgotten == [f"discord:{one}" for one in said[:2]]


async def test_an_event_that_fails_does_not_stop_those_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeIntake):
        async def forget(self, turn_id: str) -> None:
            raise RuntimeError("a mistake of ours")

    intake = Broken()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        await emulator.delete(await emulator.say(dm, ada, "one"))

        await emulator.say(dm, ada, "two")
        await until(lambda: "two" in intake.texts)

        assert "a mistake of ours" in caplog.text


# The command and the button


async def test_ask_is_admitted_before_it_is_acknowledged() -> None:
    intake = FakeIntake()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")

        asked = await emulator.slash(emulator.channel_id, ada, "ask", prompt=" why? ")
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


async def test_ask_works_in_a_dm() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)

        asked = await emulator.slash(dm, ada, "ask", prompt="why?")
        await until(lambda: emulator.original(asked))

        assert intake.turns[0].key == ThreadKey("discord", "dm", dm, f"ask-{ada}")


@pytest.mark.parametrize("refusal", [ThreadBusy(), StoreUnavailable("away")])
async def test_ask_that_is_not_admitted_gets_an_apology_for_the_asker_alone(
    refusal: Refused | StoreUnavailable,
) -> None:
    intake = FakeIntake()
    intake.refuses = refusal
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        asked = await emulator.slash(
            emulator.channel_id, emulator.user("Ada"), "ask", prompt="why?"
        )
        await until(lambda: emulator.original(asked))

        shown = emulator.original(asked)
        assert shown is not None
        assert (shown.text, shown.ephemeral) == (refusal.apology, True)
        assert not emulator.unguarded


async def test_ask_does_not_wait_longer_for_the_store_than_discord_waits_for_us() -> None:
    intake = FakeIntake()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        asked = await emulator.slash(
            emulator.channel_id, emulator.user("Ada"), "ask", prompt="why?"
        )
        await until(lambda: emulator.original(asked))

        shown = emulator.original(asked)
        assert shown is not None
        assert shown.text == StoreUnavailable.apology


async def test_the_stop_button_works_after_a_restart() -> None:
    intake = FakeIntake()
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
    intake = FakeIntake()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} count")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with logged_in(emulator) as platform, platform.surface(turn) as surface:
            shown = await surface.post(page("1, 2, 3", last=True))

        async with listening(emulator, intake):
            clicked = await emulator.click(shown, ada, f"regenerate:discord:{said}")
            await until(lambda: emulator.original(clicked))

        assert intake.pressed == [(f"discord:{said}", ada, f"discord:{clicked}")]
        assert [one.text for one in emulator.screen(emulator.channel_id)][1:] == ["1, 2, 3"]


async def test_a_stop_that_comes_after_the_end_is_told_so_and_gives_way_to_regenerate() -> None:
    intake = FakeIntake()
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
    intake = FakeIntake()
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
    intake = FakeIntake()
    intake.refuses = refusal
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        bob = emulator.user("Bob")
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("1, 2, 3", last=True))

        clicked = await emulator.click(shown, bob, "regenerate:discord:1")
        await until(lambda: emulator.original(clicked))

        told = emulator.original(clicked)
        assert told is not None
        assert (told.text, told.ephemeral) == (refusal.apology, True)


# The connection


async def test_a_refused_token_is_told_by_the_name_of_its_setting() -> None:
    async with DiscordEmulator() as emulator:
        with pytest.raises(CannotStart, match="DISCORD_TOKEN"):
            async with connect(
                token="wrong",
                api_url=emulator.api_url,
                gateway_url="",
                threads=True,
                budgets=NoLimits(),
            ):
                pass


async def test_an_unreachable_discord_is_told_by_its_address() -> None:
    address = "http://127.0.0.1:1/api/v10"

    with pytest.raises(CannotStart, match=address):
        async with connect(
            token="any", api_url=address, gateway_url="", threads=True, budgets=NoLimits()
        ):
            pass


async def test_a_token_that_is_withdrawn_ends_the_listening() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.fail("GET /users/@me", status=401)

        with pytest.raises(CannotStart, match="DISCORD_TOKEN"):
            await platform.listen(FakeIntake())


async def test_a_gateway_that_refuses_us_is_told_in_a_sentence_at_each_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.discord.platform._RECONNECT_PAUSE", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        async with (
            DiscordEmulator() as emulator,
            connect(
                token=emulator.token,
                api_url=emulator.api_url,
                gateway_url=address,
                threads=True,
                budgets=NoLimits(),
            ) as platform,
        ):
            await warned_twice(platform, caplog)

    assert {record.levelno for record in told(caplog)} == {logging.WARNING}
    assert all("cannot be reached: Cannot connect to host" in it.message for it in told(caplog))


async def test_a_login_that_is_cut_off_is_told_in_a_sentence_at_each_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.discord.platform._RECONNECT_PAUSE", 0.01)
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.fail("GET /users/@me", "drop", times=100)

        await warned_twice(platform, caplog)

    assert {record.levelno for record in told(caplog)} == {logging.WARNING}
    assert all("cannot be reached: Server disconnected" in it.message for it in told(caplog))


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not any(record.exc_info for record in found)
    return found


async def warned_twice(platform: DiscordPlatform, caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(platform.listen(FakeIntake()))
    try:
        await until(lambda: len(told(caplog)) > 1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_said_while_the_gateway_is_lost_is_heard() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        await emulator.say(dm, ada, "one")
        await until(lambda: intake.turns)

        await emulator.disconnect()
        await emulator.say(dm, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]
        assert emulator.sessions == 1


# The surface


async def test_a_reply_grows_in_its_thread_and_loses_its_button() -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
    ):
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        port: Platform = platform

        async with port.surface(turn) as surface:
            shown = await surface.post(page("It"))
            growing = emulator.screen(said)[0]
            await surface.edit(shown, page("It is"))
            await surface.edit(shown, page("It is @everyone's sky", final=True))
            finished = emulator.screen(said)[0]
            await surface.edit(shown, page("It is @everyone's sky", last=True))

        assert emulator.thread_of(said) == said
        assert growing.buttons == (f"stop:{turn.id}",)
        assert emulator.states(shown)[:3] == ["It", "It is", "It is @everyone's sky"]
        assert finished.buttons == ()
        assert emulator.screen(said)[0].buttons == (f"regenerate:{turn.id}",)
        assert not emulator.pings
        assert not emulator.unguarded
        assert surface.budget(Page(0, "", final=False), new=False).bucket == f"discord:edit:{said}"
        assert emulator.sessions == 0


async def test_every_message_suppresses_previews() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        for turn in (dm_turn(emulator), channel_turn(emulator, said, opens_thread=False)):
            async with platform.surface(turn) as surface:
                shown = await surface.post(page("https://example.org"))
                await surface.edit(shown, page("https://example.org/more", final=True))

        writes = [one for one in emulator.requests if "messages" in one.path]
        assert [one.body.get("flags") for one in writes] == [4, 4, 4, 4]


async def test_a_table_is_measured_and_shown_as_code() -> None:
    table = "| a | b |\n|---|---|\n| long cell | c |\n\n"
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page(table))
            await surface.edit(shown, page(table + "Done.", final=True))

        posted, edited = emulator.states(shown)
        assert posted.startswith("```\n| a         | b |")
        assert edited == f"{posted}\n\nDone."
        assert surface.measure(table + "Done.") == len(edited)


async def test_typing_shows_while_the_surface_is_open() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")

        async with platform.surface(channel_turn(emulator, said)):
            await until(lambda: emulator.typing)

        assert emulator.typing == [said]


async def test_a_typing_call_that_hangs_delays_nothing() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.fail("POST .*/typing", "hang")
        started = time.monotonic()

        async with platform.surface(dm_turn(emulator)) as surface:
            await surface.post(page("here", final=True))

        assert time.monotonic() - started < 1


async def test_a_thread_that_was_opened_before_is_used_again() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        async with platform.surface(turn):
            pass

        async with platform.surface(turn) as surface:
            await surface.post(page("because", final=True))

        assert [one.text for one in emulator.screen(said)] == ["because"]


async def test_a_thread_that_is_there_waits_for_no_other() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        async with platform.surface(turn):
            pass
        emulator.fail("POST .*/threads", status=429, retry_after=300)

        async with platform.surface(turn) as surface:
            await surface.post(page("because", final=True))

        assert [one.text for one in emulator.screen(said)] == ["because"]


async def test_a_thread_is_named_by_the_first_words_of_the_question() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        place = ChannelPlace(int(emulator.channel_id), int(said), opens_thread=True)

        async with platform.surface(turn_at(place.written(), text="word " * 50)):
            opened = next(one for one in emulator.requests if one.path.endswith("/threads"))

        assert opened.body["name"] == "word " * 18 + "word word…"[:9]


async def test_a_question_without_a_space_names_a_thread_as_well() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        place = ChannelPlace(int(emulator.channel_id), int(said), opens_thread=True)

        async with platform.surface(turn_at(place.written(), text="x" * 300)):
            opened = next(one for one in emulator.requests if one.path.endswith("/threads"))

        assert str(opened.body["name"]).startswith("xxx")


async def test_where_no_thread_may_be_opened_the_reply_stands_in_the_channel() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.fail("POST .*/threads", status=403, body={"code": 50013, "message": "no"})

        async with platform.surface(channel_turn(emulator, said)) as surface:
            await surface.post(page("because"))
            await surface.post(page("and so on", number=1, final=True))

        _, first, second = emulator.screen(emulator.channel_id)
        assert (first.text, first.reply_to) == ("because", said)
        assert (second.text, second.reply_to) == ("and so on", None)
        written = [one.body for one in emulator.requests if one.path.endswith("/messages")]
        assert written[0]["allowed_mentions"] == {"parse": [], "replied_user": False}


async def test_a_reply_is_shown_although_its_question_has_gone() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with platform.surface(turn) as surface:
            await emulator.delete(said)

            await surface.post(page("because", final=True))

        assert [one.text for one in emulator.screen(emulator.channel_id)] == ["because"]


async def test_a_thread_that_cannot_be_opened_just_now_is_a_passing_failure() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.fail("POST .*/threads", status=503)

        with pytest.raises(WriteFailed):
            async with platform.surface(channel_turn(emulator, said)):
                pass


async def test_opening_a_thread_too_often_is_told_with_the_time_to_wait() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.fail("POST .*/threads", status=429, retry_after=300)

        with pytest.raises(WriteDelayed) as delayed:
            async with platform.surface(channel_turn(emulator, said)):
                pass

        assert delayed.value.retry_after == 300


async def test_where_we_may_not_write_in_the_thread_the_reply_stands_in_the_channel() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.forbid_writing(emulator.channel_id, in_threads=True)

        async with platform.surface(channel_turn(emulator, said)) as surface:
            shown = await surface.post(page("be"))
            await surface.edit(shown, page("because"))
            await surface.post(page("and so on", number=1, final=True))

        _, first, second = emulator.screen(emulator.channel_id)
        assert (first.text, first.reply_to) == ("because", said)
        assert (second.text, second.reply_to) == ("and so on", None)
        bucket = surface.budget(Page(0, "", final=False), new=False).bucket
        assert bucket == f"discord:edit:{emulator.channel_id}"


async def test_a_reply_that_had_to_stand_in_the_channel_is_found_there_after_a_restart() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        emulator.forbid_writing(emulator.channel_id, in_threads=True)
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("be"))

        async with platform.surface(turn) as surface:
            await surface.edit(shown, page("because"))
            await surface.post(page("and so on", number=1, final=True))

        texts = [one.text for one in emulator.screen(emulator.channel_id)]
        assert texts == ["why?", "because", "and so on"]


async def test_where_a_page_in_the_channel_was_deleted_the_others_are_found_there() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        emulator.forbid_writing(emulator.channel_id, in_threads=True)
        async with platform.surface(turn) as surface:
            first = await surface.post(page("because", final=True))
            second = await surface.post(page("and so", number=1))
        await emulator.delete(first)

        async with platform.surface(turn) as surface:
            with pytest.raises(MessageGone):
                await surface.edit(first, page("because", final=True))
            await surface.edit(second, page("and so on", number=1, final=True))

        assert [one.text for one in emulator.screen(emulator.channel_id)] == ["why?", "and so on"]


async def test_a_reply_that_began_in_its_thread_does_not_go_on_in_the_channel() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        async with platform.surface(channel_turn(emulator, said)) as surface:
            await surface.post(page("be"))
            emulator.forbid_writing(emulator.channel_id, in_threads=True)

            with pytest.raises(PlaceGone):
                await surface.post(page("because", final=True))

        assert len(emulator.screen(emulator.channel_id)) == 1


async def test_a_later_page_does_not_go_into_the_channel_after_a_restart() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.forbid_writing(emulator.channel_id, in_threads=True)

        async with platform.surface(channel_turn(emulator, said)) as surface:
            with pytest.raises(PlaceGone):
                await surface.post(page("because", number=1, final=True))

        assert len(emulator.screen(emulator.channel_id)) == 1


async def test_where_we_may_write_neither_in_the_thread_nor_in_the_channel_is_no_place() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.forbid_writing(emulator.channel_id, in_threads=True)
        emulator.forbid_writing(emulator.channel_id, in_threads=False)

        async with platform.surface(channel_turn(emulator, said)) as surface:
            with pytest.raises(PlaceGone):
                await surface.post(page("because", final=True))


async def test_a_thread_that_is_archived_in_mid_reply_is_opened_again() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        async with platform.surface(channel_turn(emulator, said)) as surface:
            shown = await surface.post(page("be"))
            await emulator.archive(said)

            await surface.edit(shown, page("because"))
            await emulator.archive(said)
            await surface.post(page("and so on", number=1, final=True))

        assert [one.text for one in emulator.screen(said)] == ["because", "and so on"]


async def test_a_thread_that_was_locked_in_mid_reply_is_no_place() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        async with platform.surface(channel_turn(emulator, said)) as surface:
            shown = await surface.post(page("be"))
            await emulator.archive(said, locked=True)

            with pytest.raises(PlaceGone):
                await surface.edit(shown, page("because"))
            with pytest.raises(PlaceGone):
                await surface.post(page("and so on", number=1, final=True))


async def test_a_thread_that_takes_no_unarchiving_is_no_place() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        full = {"code": 160006, "message": "Maximum number of active threads reached"}
        emulator.fail(r"PATCH /channels/\d+$", status=400, body=full)
        async with platform.surface(channel_turn(emulator, said)) as surface:
            shown = await surface.post(page("be"))
            await emulator.archive(said)

            with pytest.raises(PlaceGone, match="stays archived"):
                await surface.edit(shown, page("because"))


async def test_a_command_is_answered_in_a_thread_that_is_archived_meanwhile() -> None:
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "why?")
        async with platform.surface(channel_turn(emulator, said)):
            asked = await emulator.slash(said, ada, "ask", prompt="why?")
            await until(lambda: emulator.original(asked))
        async with platform.surface(intake.turns[0]) as surface:
            await emulator.archive(said)

            shown = await surface.post(page("be"))
            await emulator.archive(said)
            await surface.edit(shown, page("because", final=True))

        assert [one.text for one in emulator.screen(said)] == ["because"]


async def test_a_page_without_text_takes_its_message_away() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            await surface.post(page("because", final=True))
            later = await surface.post(page("and", number=1))

            await surface.edit(later, page("", number=1, final=True))

        texts = [one.text for one in emulator.screen(str(turn.place["channel"]))]
        assert texts == ["because"]


async def test_a_deleted_question_leaves_no_place_for_a_reply() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        await emulator.delete(said)

        with pytest.raises(PlaceGone, match="deleted"):
            async with platform.surface(channel_turn(emulator, said)):
                pass


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"channel": "general", "question": None, "opens_thread": False},
        {"channel": "1", "question": 2, "opens_thread": True},
        {"channel": "1", "interaction": "x", "token": "t"},
        {"channel": "1", "interaction": "2", "token": "t", "press": "3"},
    ],
)
async def test_a_place_that_is_none_of_ours_is_gone(place: Place) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        with pytest.raises(PlaceGone):
            async with platform.surface(turn_at(place)):
                pass


async def test_a_post_that_was_cut_off_is_not_doubled_when_it_is_repeated() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        emulator.fail("POST .*/messages", "drop", applied=True)
        async with platform.surface(turn) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(page("once"))

            shown = await surface.post(page("once"))

        assert [one.id for one in emulator.screen(str(turn.place["channel"]))] == [shown]


@pytest.mark.parametrize("earlier", ["be", "because"])
async def test_a_post_that_was_cut_off_shows_the_newer_page_when_it_is_repeated(
    earlier: str,
) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        emulator.fail("POST .*/messages", "drop", applied=True)
        async with platform.surface(turn) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(page(earlier))

            await surface.post(page("because", final=True))

        (shown,) = emulator.screen(str(turn.place["channel"]))
        assert (shown.text, shown.buttons) == ("because", ())


async def test_a_page_that_was_taken_away_is_posted_anew() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            taken_away = await surface.post(page("Former words", number=1, last=True))
            await surface.edit(taken_away, page("", number=1, final=True))

        async with platform.surface(turn) as surface:
            shown = await surface.post(page("New words", number=1, last=True))

        (message,) = emulator.screen(str(turn.place["channel"]))
        assert (message.id, message.text) == (shown, "New words")
        assert shown != taken_away


async def test_a_post_found_again_gets_the_button_of_its_end() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            growing = await surface.post(page("All of it."))

        async with platform.surface(turn) as surface:
            shown = await surface.post(page("All of it.", last=True))

        assert shown == growing
        assert [one.buttons for one in emulator.screen(str(turn.place["channel"]))] == [
            (f"regenerate:{turn.id}",)
        ]


async def test_after_a_refused_edit_the_page_is_posted_anew() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("half"))
            emulator.fail("PATCH .*/messages", status=400, body={"code": 50035, "message": "no"})
            with pytest.raises(WriteRefused):
                await surface.edit(shown, page("half and half", final=True))

            await surface.post(page("half and half", final=True))

        texts = [one.text for one in emulator.screen(str(turn.place["channel"]))]
        assert texts == ["half", "half and half"]


async def test_a_page_is_not_doubled_though_an_edit_of_another_was_refused() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        no = {"code": 50035, "message": "no"}
        async with platform.surface(turn) as surface:
            first = await surface.post(page("half"))
            emulator.fail("PATCH .*/messages", status=400, body=no)
            with pytest.raises(WriteRefused):
                await surface.edit(first, page("one", final=True))
            await surface.post(page("one", final=True))
            lost = await surface.post(page("two", number=1))

        async with platform.surface(turn) as surface:
            found = await surface.post(page("two, three", number=1, last=True))

        assert found == lost
        texts = [one.text for one in emulator.screen(str(turn.place["channel"]))]
        assert texts == ["half", "one", "two, three"]


async def test_what_is_found_and_takes_no_edit_gives_way_to_a_new_message() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        no = {"code": 50035, "message": "no"}
        async with platform.surface(turn) as surface:
            lost = await surface.post(page("half"))

        async with platform.surface(turn) as surface:
            emulator.fail("PATCH .*/messages", status=400, body=no)
            shown = await surface.post(page("half and half", last=True))

        (message,) = emulator.screen(str(turn.place["channel"]))
        assert (message.id, message.text) == (shown, "half and half")
        assert shown != lost


async def test_what_takes_no_edit_stays_until_there_is_a_new_message() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        no = {"code": 50035, "message": "no"}
        async with platform.surface(turn) as surface:
            await surface.post(page("half"))

        async with platform.surface(turn) as surface:
            emulator.fail("PATCH .*/messages", status=400, body=no)
            emulator.fail("POST .*/messages", status=400, body=no, after=1)
            with pytest.raises(WriteRefused):
                await surface.post(page("half and half", last=True))

        assert [one.text for one in emulator.screen(str(turn.place["channel"]))] == ["half"]


async def test_a_page_that_was_replaced_and_lost_twice_shows_the_newest_text() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            taken_away = await surface.post(page("Former words", number=1))
            await surface.edit(taken_away, page("", number=1, final=True))
        async with platform.surface(turn) as surface:
            lost = await surface.post(page("New", number=1))

        async with platform.surface(turn) as surface:
            shown = await surface.post(page("New words", number=1, last=True))

        (message,) = emulator.screen(str(turn.place["channel"]))
        assert (message.id, message.text) == (shown, "New words")
        assert shown == lost


async def test_edits_of_an_old_message_get_a_budget_of_their_own() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.limits.old_edits = (1, 29.0)
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("half"))
            emulator.clock.advance(3601)
            await surface.edit(shown, page("half and"))
            channel = surface.budget(page("half and half"), new=False)

            # The budget that it was written with is that of all messages in the channel.
            with pytest.raises(WriteFailed):
                await surface.edit(shown, page("half and half"))
            own = surface.budget(page("half and half"), new=False)
            with pytest.raises(WriteDelayed) as delayed:
                await surface.edit(shown, page("half and half"))

        assert delayed.value.retry_after == pytest.approx(29, abs=1)
        assert own.bucket == channel.bucket.replace("edit", "old")
        assert surface.budget(page("more", number=1), new=False) == channel


async def test_a_message_that_is_too_old_for_many_edits_is_left_for_a_new_one() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.limits.old_edits = (1, 33.0)
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("half"))
            emulator.clock.advance(3601)
            await surface.edit(shown, page("half and"))

            with pytest.raises(WriteRefused):
                await surface.edit(shown, page("half and half", final=True))


async def test_a_deleted_reply_is_told_as_such() -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        shown = await surface.post(page("going"))
        await emulator.delete(shown)

        with pytest.raises(MessageGone):
            await surface.edit(shown, page("going on"))


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, 50035, WriteRefused),
        (401, 0, WriteFailed),
        (403, 0, WriteFailed),
        (403, 40333, WriteFailed),
        (403, 50001, PlaceGone),
        (403, 50007, PlaceGone),
        (403, 50013, PlaceGone),
        (403, 160005, PlaceGone),
        (404, 10003, PlaceGone),
        (404, 10008, MessageGone),
        (500, 0, WriteFailed),
        (503, 0, WriteFailed),
        (None, 0, WriteFailed),
    ],
)
async def test_a_refusal_is_told_in_the_words_of_the_core(
    status: int | None, code: int, expected: type[SurfaceError]
) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("one"))
            body = {"code": code, "message": "no"}
            how: How = "status" if status else "drop"
            emulator.fail("PATCH .*/messages", how, status=status or 500, body=body)
            started = time.monotonic()

            with pytest.raises(expected):
                await surface.edit(shown, page("one two"))

        assert time.monotonic() - started < 0.5


async def test_a_page_of_a_proxy_is_a_passing_failure() -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        emulator.fail("POST .*/messages", status=403, body="<html>Access denied</html>")

        with pytest.raises(WriteFailed):
            await surface.post(page("one"))


async def test_a_person_who_takes_no_messages_is_named_to_the_operator() -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        body = {"code": 50007, "message": "no"}
        emulator.fail("POST .*/messages", status=403, body=body)

        with pytest.raises(PlaceGone, match="takes no direct messages"):
            await surface.post(page("one"))


async def test_a_call_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.discord.errors.REQUEST_TIMEOUT", 0.1)
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator) as platform,
        platform.surface(dm_turn(emulator)) as surface,
    ):
        emulator.fail("POST .*/messages", "hang")

        with pytest.raises(WriteFailed):
            await surface.post(page("one"))


async def test_a_full_bucket_is_told_at_once_with_the_time_to_wait() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            shown = await surface.post(page("one"))
            emulator.fail("PATCH .*/messages", status=429, retry_after=7)
            started = time.monotonic()

            with pytest.raises(WriteDelayed) as delayed:
                await surface.edit(shown, page("one two"))

        assert delayed.value.retry_after == 7
        assert time.monotonic() - started < 0.5


# The surface of a command


async def test_a_command_is_answered_in_its_original_response() -> None:
    intake = FakeIntake()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake) as platform,
    ):
        ada = emulator.user("Ada")
        asked = await emulator.slash(emulator.channel_id, ada, "ask", prompt="why?")
        await until(lambda: intake.turns)

        async with platform.surface(intake.turns[0]) as surface:
            shown = await surface.post(page("Be"))
            growing = emulator.original(asked)
            await surface.edit(shown, page("Because"))
            await surface.edit(shown, page("Because.", final=True))
            await surface.post(page("The end", number=1, final=True))

        original, later = emulator.screen(emulator.channel_id)
        assert growing is not None
        assert growing.buttons == (f"stop:discord:{asked}",)
        assert emulator.states(original.id) == ["Be", "Because", "Because."]
        assert (original.buttons, later.text) == ((), "The end")
        assert not emulator.pings
        assert not emulator.unguarded
        assert not emulator.typing
        edits = [one for one in emulator.requests if one.method == "PATCH"]
        assert {one.body["flags"] for one in edits} == {4}


async def test_a_first_page_that_comes_before_the_acknowledgement_waits_for_it() -> None:
    intake = FakeIntake()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        asked = await emulator.slash(emulator.channel_id, ada, "ask", prompt="why?")
        await until(lambda: intake.turns)

        async with platform.surface(intake.turns[0]) as surface:
            posting = asyncio.create_task(surface.post(page("Because", final=True)))
            await until(lambda: [one for one in emulator.requests if one.status == 404])
            intake.open.set()
            await posting

        assert [one.text for one in emulator.screen(emulator.channel_id)] == ["Because"]
        original = emulator.original(asked)
        assert original is not None
        assert original.text == "Because"


async def test_a_command_that_was_acknowledged_too_late_is_answered_in_the_channel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.discord.webhook._DEFERRAL_PAUSES", (0.01, 0.01))
    intake = FakeIntake()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        asked = await emulator.slash(emulator.channel_id, ada, "ask", prompt="why?")
        await until(lambda: intake.turns)
        emulator.clock.advance(3.5)
        intake.open.set()
        await until(lambda: "did not take an answer" in caplog.text)

        async with platform.surface(intake.turns[0]) as surface:
            await surface.post(page("Because", final=True))
            await surface.post(page("and so", number=1, last=True))

        shown = emulator.screen(emulator.channel_id)
        assert [one.text for one in shown] == ["Because", "and so"]
        assert emulator.original(asked) is None


async def test_a_command_that_is_never_acknowledged_is_answered_in_the_channel() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        place = CommandPlace(int(emulator.channel_id), snowflake_of(time.time()), "unknown")

        async with platform.surface(turn_at(place.written())) as surface:
            shown = await surface.post(page("Because", final=True))

        assert [one.id for one in emulator.screen(emulator.channel_id)] == [shown]


async def test_a_command_without_channel_and_response_has_no_place() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        place = CommandPlace(1, snowflake_of(time.time()), "unknown")
        async with platform.surface(turn_at(place.written())) as surface:
            with pytest.raises(PlaceGone):
                await surface.post(page("Because", number=1, final=True))


async def test_text_is_measured_in_code_points() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            text = "👍" * surface.limit

            await surface.post(page(text, final=True))

        assert surface.measure(text) == surface.limit == 2000
