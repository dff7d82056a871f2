"""What others said in Discord reaches the turn, by the payload or by one request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from adapters.discord.platform import DiscordPlatform
from adapters.discord.tuning import Tuning
from bot.domain import Attachment, ContextMessage, Person, ThreadKey, Turn
from bot.errors import PlaceGone, WriteDelayed
from bot.ports import Earlier
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.objects import Payload
from tests.support.discord_platform import (
    FAST,
    heard,
    listening,
    page,
    running_process,
    until_saved,
)
from tests.support.fakes import FakeQueue
from tests.support.waiting import until

FILE = Attachment("answer.py", b"x = 1")


def texts(found: Sequence[ContextMessage]) -> list[tuple[str, str]]:
    return [(one.person.name if one.person else "the bot", one.text) for one in found]


def reads(emulator: DiscordEmulator) -> int:
    """Return how many requests have read messages."""
    paths = [call.path for call in emulator.requests if call.method == "GET"]
    return sum("/messages" in path for path in paths)


async def last(intake: FakeQueue, text: str) -> Turn:
    await until(lambda: text in intake.texts)
    return next(turn for turn in intake.turns if turn.text == text)


async def test_a_reply_brings_the_message_with_its_author_and_files() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        said = await emulator.say(emulator.channel_id, bob, f"Ask <@{ada}>.", files=("plan.pdf",))

        await emulator.say(
            emulator.channel_id, ada, f"{emulator.bot_mention} is he right?", reply_to=said
        )
        turn = await last(intake, "is he right?")

        assert turn.quote
        assert [file.name for file in turn.quote.files] == ["plan.pdf"]
        assert replace(turn.quote, files=()) == ContextMessage(
            f"discord:{said}", Person(bob, "Bob"), "Ask @Ada.\n[file: plan.pdf]"
        )
        assert texts(await platform.read_context(turn, since="", most=50)) == [
            ("Bob", "Ask @Ada.\n[file: plan.pdf]")
        ]


async def test_a_reply_to_the_bot_quotes_it_as_itself_without_its_files() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        await emulator.say(dm, ada, "one")
        async with platform.surface(await last(intake, "one")) as surface:
            with_file = replace(page("First.", last=True), attachments=(FILE,))
            answer = await surface.post(with_file)

        await emulator.say(dm, ada, "two", reply_to=answer)

        assert (await last(intake, "two")).quote == ContextMessage(
            f"discord:{answer}", None, "First."
        )


EMBED: Payload = {"type": "rich", "title": "Build failed", "fields": []}
SHOWN: Payload = {"type": 17, "components": [{"type": 10, "content": "Three tests are red"}]}


@pytest.mark.parametrize("text", ["", "CI says:"])
async def test_what_another_bot_shows_is_read_as_quote_context_and_beginning(text: str) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, ci = emulator.user("Ada"), emulator.user("CI", bot=True)
        shown = "\n".join(filter(None, [text, "Build failed", "Three tests are red"]))
        began = await emulator.say(emulator.channel_id, ci, text or "x")
        thread = await emulator.open_thread(began, ada, "Build")
        inside = await emulator.say(thread, ci, text or "x")
        for one in (began, inside):
            emulator.decorate(one, text=text, embeds=[EMBED], components=[SHOWN])

        await emulator.say(thread, ada, f"{emulator.bot_mention} why?", reply_to=inside)
        turn = await last(intake, "why?")
        found = await platform.read_context(turn, since="", most=50)
        few = await platform.read_context(turn, since="", most=1)

        assert turn.quote == ContextMessage(f"discord:{inside}", Person(ci, "CI"), shown)
        assert texts(found) == texts(few) == [("CI", shown)] * 2


@pytest.mark.parametrize("change", ["deleted", "elsewhere", "forward"])
async def test_what_is_no_message_of_this_channel_is_not_quoted(change: str) -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, "x")
        asked = await emulator.say(
            emulator.channel_id, ada, f"{emulator.bot_mention} why?", reply_to=said
        )
        event: Any = emulator.event_of(asked)
        if change == "deleted":
            event["referenced_message"] = None
        elif change == "elsewhere":
            event["message_reference"]["channel_id"] = emulator.channel("secrets")
        else:
            event["type"] = 0

        await emulator.tell("MESSAGE_CREATE", event | {"id": "99"})
        await until(lambda: "discord:99" in intake.asked)

        assert intake.last.quote is None


async def test_a_message_of_which_the_payload_has_only_the_id_is_read() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        for text in ("one", "two", "three"):
            await emulator.say(emulator.channel_id, bob, text)
        said = emulator.screen(emulator.channel_id)[1].id
        asked = await emulator.say(
            emulator.channel_id, ada, f"{emulator.bot_mention} why?", reply_to=said
        )
        event: Any = emulator.event_of(asked)
        del event["referenced_message"]
        later = str(int(asked) + 1)
        await emulator.tell("MESSAGE_CREATE", event | {"id": later})
        await until(lambda: f"discord:{later}" in intake.asked)

        turn = intake.last
        await emulator.say(emulator.channel_id, bob, "Said later.")
        before = reads(emulator)
        with_talk = await platform.read_context(turn, since="", most=50)
        alone = await platform.read_context(turn, since="", most=0)

        assert turn.quote == ContextMessage(f"discord:{said}", None, "")
        assert texts(alone) == [("Bob", "two")]
        assert texts(with_talk) == [
            ("Bob", "one"),
            ("Bob", "two"),
            ("Bob", "three"),
            ("Ada", "why?"),
        ]
        assert reads(emulator) == before + 2


async def in_a_thread(emulator: DiscordEmulator, *people: str) -> str:
    """Let people talk in a thread that one of them opened from a message."""
    began = await emulator.say(emulator.channel_id, people[0], "We deploy. When?")
    thread = await emulator.open_thread(began, people[0], "Deploy")
    for person, text in zip(people, ("On Friday?", "On Monday.", "Never."), strict=False):
        await emulator.say(thread, person, text)
    return thread


async def test_called_into_a_thread_it_reads_what_was_said_and_how_it_began() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        thread = await in_a_thread(emulator, bob, ada, emulator.user("CI", bot=True))
        await emulator.say(thread, ada, f"{emulator.bot_mention} who is right?")
        turn = await last(intake, "who is right?")
        await emulator.say(thread, bob, "Said later.")
        before = reads(emulator)

        found = await platform.read_context(turn, since="", most=50)
        few = await platform.read_context(turn, since="", most=2)
        since = await platform.read_context(turn, since=found[1].id, most=50)

        assert turn.key == ThreadKey("discord", emulator.guild_id, emulator.channel_id, thread)
        assert texts(found) == [
            ("Bob", "We deploy. When?"),
            ("Bob", "On Friday?"),
            ("Ada", "On Monday."),
            ("CI", "Never."),
        ]
        assert found[0].id == f"discord:{thread}"
        # With the message from which it was opened, by another request.
        assert texts(few) == [texts(found)[0], *texts(found)[-2:]]
        assert texts(since) == texts(found)[-2:]
        assert reads(emulator) == before + 4


async def test_a_thread_whose_first_message_is_gone_is_read_without_it() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        thread = await in_a_thread(emulator, bob, ada)
        await emulator.delete(thread)
        await emulator.say(thread, ada, f"{emulator.bot_mention} who is right?")
        turn = await last(intake, "who is right?")

        found = await platform.read_context(turn, since="", most=1)

        assert texts(found) == [("Ada", "On Monday.")]


async def test_a_context_costs_one_call_however_many_speak() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        people = [emulator.user(f"Person {n}") for n in range(5)]
        thread = await in_a_thread(emulator, *people[:3])
        for person in people:
            await emulator.say(thread, person, f"<@{people[0]}> is right.")
        await emulator.say(thread, people[0], f"{emulator.bot_mention} who is right?")
        turn = await last(intake, "who is right?")
        before = len(emulator.requests)

        found = await platform.read_context(turn, since="", most=50)

        assert [call.call for call in emulator.requests[before:]] == [
            f"GET /channels/{thread}/messages"
        ]
        assert texts(found)[-1] == ("Person 4", "@Person 0 is right.")


async def test_for_a_person_who_may_not_read_what_was_said_nothing_is_read() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        emulator.hide_history(emulator.channel_id)
        async with listening(emulator, intake) as platform:
            ada, bob = emulator.user("Ada"), emulator.user("Bob")
            thread = await in_a_thread(emulator, bob, ada, emulator.user("CI", bot=True))
            await emulator.say(thread, ada, f"{emulator.bot_mention} who is right?")
            await emulator.slash(thread, ada, "ask", question="who is wrong?")
            before = reads(emulator)

            for asked in ("who is right?", "who is wrong?"):
                turn = await last(intake, asked)
                assert await platform.read_context(turn, since="", most=50) == ()

            assert reads(emulator) == before


# What is hidden from everybody, the bot included, no catch-up finds.
@pytest.mark.parametrize(("hidden", "missed"), [(True, False), (False, False), (False, True)])
async def test_for_such_a_person_nothing_is_read_after_a_resume_or_a_catch_up(
    store: Store, *, hidden: bool, missed: bool
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        if hidden:
            emulator.hide_history(emulator.channel_id)
        async with running_process(emulator, FakeQueue(), store):
            thread = await in_a_thread(emulator, bob, ada, emulator.user("CI", bot=True))
            await until_saved(store, 3)
        await emulator.say(thread, ada, f"{emulator.bot_mention} who is right?")
        emulator.clock.advance(3600 if missed else 0)

        async with running_process(emulator, intake, store) as platform:
            turn = await last(intake, "who is right?")
            found = await platform.read_context(turn, since="", most=50)

        assert bool(found) is not hidden
        assert emulator.resumes == (0 if missed else 1)


async def test_where_a_talk_begins_nothing_is_read() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        await emulator.say(emulator.channel_id, emulator.user("Bob"), "private")
        await emulator.say(dm, ada, "earlier")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} in a channel")
        await emulator.say(dm, ada, "in a dm")

        turns = [await last(intake, text) for text in ("in a channel", "in a dm")]
        before = reads(emulator)
        for turn in turns:
            assert await platform.read_context(turn, since="", most=50) == ()

        assert reads(emulator) == before


async def test_the_answers_of_the_bot_are_read_as_its_own() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        async with platform.surface(await last(intake, "one")) as surface:
            await surface.post(page(r"First: \(x_{1} * y\).", last=True))
        thread = intake.last.id.partition(":")[2]

        await emulator.say(thread, ada, "two")
        found = await platform.read_context(await last(intake, "two"), since="", most=50)

        assert emulator.screen(thread)[0].text == "First: x₁ \\* y."
        assert texts(found) == [("Ada", "one"), ("the bot", "First: x₁ * y.")]


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(429, 0, WriteDelayed), (403, 50001, PlaceGone)]
)
async def test_a_refusal_to_read_is_told(status: int, code: int, kind: type[Exception]) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        thread = await in_a_thread(emulator, ada)
        await emulator.say(thread, ada, f"{emulator.bot_mention} well?")
        turn = await last(intake, "well?")
        body = {"message": "no", "code": code} | ({"retry_after": 9.0} if status == 429 else {})
        emulator.fail(f"GET /channels/{thread}/messages", status=status, body=body)

        with pytest.raises(kind):
            await platform.read_context(turn, since="", most=50)


# A message that a catch-up reads lacks the rights of its author.
UNSOUGHT = replace(Tuning(), catch_up_channels=0)


async def say_apart(emulator: DiscordEmulator, channel: str, user: str, text: str) -> None:
    """Say something, and return when another millisecond has begun."""
    await emulator.say(channel, user, text)
    said_at = time.time_ns() // 1_000_000
    await until(lambda: time.time_ns() // 1_000_000 > said_at)


async def read_of(platform: DiscordPlatform, turn: Turn, most: int = 50) -> Earlier:
    read = platform.earlier(turn)
    assert read
    return await read(turn.asked_at, most)


async def test_earlier_messages_are_those_of_the_thread_or_the_channel_of_the_question() -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, tuning=UNSOUGHT) as platform,
    ):
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        thread = await in_a_thread(emulator, bob, ada)
        await say_apart(emulator, emulator.channel("secrets"), bob, "A secret.")
        await emulator.say(thread, ada, f"{emulator.bot_mention} in the thread?")
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} in the channel?")
        await emulator.say(emulator.channel_id, bob, "Said later.")
        await emulator.say(thread, bob, "Said later.")
        inside, outside = (
            await last(intake, "in the thread?"),
            await last(intake, "in the channel?"),
        )
        before = reads(emulator)

        in_thread = await read_of(platform, inside)
        in_channel = await read_of(platform, outside)

        assert texts([one for _, one in in_thread.messages]) == [
            ("Bob", "We deploy. When?"),
            ("Bob", "On Friday?"),
            ("Ada", "On Monday."),
        ]
        assert texts([one for _, one in in_channel.messages]) == [("Bob", "We deploy. When?")]
        assert (in_thread.unread_before, in_channel.unread_before) == (0.0, 0.0)
        assert reads(emulator) == before + 2


async def test_earlier_messages_are_read_on_from_where_a_page_ends() -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, tuning=UNSOUGHT) as platform,
    ):
        ada = emulator.user("Ada")
        for number in range(5):
            await say_apart(emulator, emulator.channel_id, ada, str(number))
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} and?")
        turn = await last(intake, "and?")
        read = platform.earlier(turn)
        assert read

        first = await read(turn.asked_at, 2)
        second = await read(first.unread_before, 2)
        third = await read(second.unread_before, 2)

        said = [[one.text for _, one in page.messages] for page in (first, second, third)]
        assert said == [["3", "4"], ["1", "2"], ["0"]]
        assert third.unread_before == 0.0
        assert first.messages[0][0] == first.unread_before


async def test_no_earlier_messages_are_read_for_those_who_may_not_nor_in_a_dm() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        emulator.hide_history(emulator.channel_id)
        async with listening(emulator, intake, tuning=UNSOUGHT) as platform:
            ada = emulator.user("Ada")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} in a channel")
            await emulator.slash(emulator.channel_id, ada, "ask", question="by a command")
            await emulator.say(emulator.dm(ada), ada, "in a dm")

            for text in ("in a channel", "by a command", "in a dm"):
                assert platform.earlier(await last(intake, text)) is None


async def test_after_a_resume_a_channel_is_read_only_for_those_whose_rights_are_known(
    store: Store,
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        emulator.hide_history(emulator.channel_id)
        async with running_process(emulator, FakeQueue(), store):
            await emulator.say(emulator.channel_id, ada, "hi")
            await until_saved(store, 1)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} well?")

        async with running_process(emulator, intake, store) as platform:
            turn = await last(intake, "well?")

        assert platform.earlier(turn) is None


async def test_a_private_question_reads_earlier_messages_of_a_thread_alone() -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, tuning=UNSOUGHT) as platform,
    ):
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        thread = await in_a_thread(emulator, bob)
        await say_apart(emulator, thread, bob, "Well?")
        await emulator.slash(thread, ada, "ask", question="inside", private=True)
        await emulator.slash(emulator.channel_id, ada, "ask", question="outside", private=True)

        found = await read_of(platform, await last(intake, "inside"))

        assert texts([one for _, one in found.messages]) == [
            ("Bob", "We deploy. When?"),
            ("Bob", "On Friday?"),
            ("Bob", "Well?"),
        ]
        assert platform.earlier(await last(intake, "outside")) is None
