"""What an earlier try has left in Discord is found though its nonce is forgotten."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from adapters.discord.reply.message import QUESTION
from adapters.discord.tuning import Tuning
from bot.domain import Page, Purpose, Turn
from bot.errors import WriteFailed
from bot.ports import Surface
from tests.emulators.clock import Clock
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import channel_turn, listening, logged_in, page, turn_at
from tests.support.fakes import FakeQueue
from tests.support.waiting import until

LATER = 600.0  # seconds, after which Discord knows no nonce any more


def of_long_ago(turn: Turn) -> Turn:
    return replace(turn, asked_at=time.time() - LATER)


async def dm_question(emulator: DiscordEmulator) -> Turn:
    ada = emulator.user("Ada")
    dm = emulator.dm(ada)
    said = await emulator.say(dm, ada, "why?")
    place = {"channel": dm, "question": None, "opens_thread": False}
    return of_long_ago(turn_at(place, turn_id=f"discord:{said}"))


async def mention(emulator: DiscordEmulator, *, opens_thread: bool) -> Turn:
    said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
    return of_long_ago(channel_turn(emulator, said, opens_thread=opens_thread))


def shown(emulator: DiscordEmulator, channel: str) -> list[str]:
    mine = [one for one in emulator.screen(channel) if one.author_id == emulator.bot_id]
    return [one.text for one in mine]


async def left_by(emulator: DiscordEmulator, turn: Turn, *pages: Page) -> list[str]:
    """Post these as a process that died before it could save an id."""
    async with logged_in(emulator) as platform, platform.surface(turn) as surface:
        return [await surface.post(one) for one in pages]


@asynccontextmanager
async def resumed(emulator: DiscordEmulator, turn: Turn) -> AsyncIterator[Surface]:
    """Open the surface of a turn in another process, which goes on with what it finds."""
    async with (
        logged_in(emulator) as platform,
        platform.surface(turn, Purpose.RESUME) as surface,
    ):
        yield surface


@pytest.mark.parametrize("where", ["dm", "thread", "channel"])
async def test_what_a_try_of_long_ago_has_left_is_gone_on_with(where: str) -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        if where == "dm":
            turn = await dm_question(emulator)
        else:
            turn = await mention(emulator, opens_thread=where == "thread")
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            found = await surface.post(page("It is so", last=True))

        channel = turn.id.removeprefix("discord:") if where == "thread" else None
        channel = channel or str(turn.place["channel"])
        assert (found, shown(emulator, channel)) == (left[0], ["It is so"])


@pytest.mark.parametrize("where", ["dm", "channel"])
async def test_all_pages_of_a_try_of_long_ago_are_found_in_their_order(where: str) -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        if where == "dm":
            turn = await dm_question(emulator)
        else:
            turn = await mention(emulator, opens_thread=False)
        written = [page("1", final=True), page("2", number=1, final=True), page("3", number=2)]
        left = await left_by(emulator, turn, *written)
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            first = await surface.post(page("one", final=True))
            second = await surface.post(page("two", number=1, final=True))
            third = await surface.post(page("three", number=2, final=True))
            fourth = await surface.post(page("four", number=3, last=True))

        assert [first, second, third] == left
        assert fourth not in left
        assert shown(emulator, str(turn.place["channel"])) == ["one", "two", "three", "four"]


async def test_below_a_question_of_a_channel_each_finished_page_is_known() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await mention(emulator, opens_thread=False)
        left = await left_by(emulator, turn, page("1", final=True), page("2", number=1, final=True))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            await surface.edit(left[0], page("one", final=True))
            second = await surface.post(page("two", number=1, last=True))

        assert (second, shown(emulator, emulator.channel_id)) == (left[1], ["one", "two"])


@pytest.mark.parametrize("where", ["dm", "thread", "channel"])
async def test_a_finished_page_that_nothing_follows_is_known_by_what_it_says(where: str) -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        if where == "dm":
            turn = await dm_question(emulator)
        else:
            turn = await mention(emulator, opens_thread=where == "thread")
        left = await left_by(emulator, turn, page("one", final=True), page("2", number=1))
        # The process died before it wrote the second.
        await emulator.delete(left[1])
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            first = await surface.post(page("one", final=True))
            await surface.post(page("two", number=1, last=True))

        channel = turn.id.removeprefix("discord:") if where == "thread" else None
        channel = channel or str(turn.place["channel"])
        assert (first, shown(emulator, channel)) == (left[0], ["one", "two"])


async def test_a_finished_page_that_says_something_else_is_left_alone() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        await left_by(emulator, turn, page("another's", final=True))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            await surface.post(page("one", final=True))
            await surface.post(page("another's", number=1))

        assert shown(emulator, str(turn.place["channel"])) == ["another's", "one", "another's"]


async def test_what_stands_behind_many_messages_of_others_is_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await mention(emulator, opens_thread=False)
        for number in range(230):
            await emulator.say(emulator.channel_id, emulator.user("Bob"), f"{number}")
        await left_by(emulator, turn, page("1", final=True), page("2", number=1))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            await surface.post(page("one", final=True))
            await surface.post(page("two", number=1, last=True))

        assert shown(emulator, emulator.channel_id) == ["one", "two"]
        assert not caplog.records

        async with (
            logged_in(emulator, tuning=Tuning(history_pages=2)) as platform,
            platform.surface(turn, Purpose.RESUME) as surface,
        ):
            await surface.post(page("three", last=True))

        assert [one.levelno for one in caplog.records] == [logging.WARNING]


async def test_pages_that_are_known_or_another_turns_are_left_alone() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        other = replace(turn, id="discord:99")
        await left_by(emulator, other, page("a", final=True), page("b", number=1, last=True))
        known = (await left_by(emulator, turn, page("It is")))[0]
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            await surface.edit(known, page("It is"))
            await surface.post(page("so", number=1, last=True))

        assert shown(emulator, str(turn.place["channel"])) == ["a", "b", "It is", "so"]


async def test_finished_pages_before_another_turns_button_are_that_turns() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        other = replace(turn, id="discord:99")
        await left_by(emulator, other, page("a", final=True), page("b", number=1, last=True))
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            found = await surface.post(page("It is so", last=True))

        assert found == left[0]
        assert shown(emulator, str(turn.place["channel"])) == ["a", "b", "It is so"]


async def test_what_replies_to_somebody_is_no_page_of_a_reply_that_simply_comes_next() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        below = {**turn.place, "question": turn.id.removeprefix("discord:")}
        await left_by(emulator, turn_at(below), page("help", final=True))
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            found = await surface.post(page("It is so", last=True))

        assert found == left[0]
        assert shown(emulator, str(turn.place["channel"])) == ["help", "It is so"]


async def test_the_answer_to_a_command_is_no_page_of_another_reply() -> None:
    clock, intake = Clock(), FakeQueue()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        dm = str(turn.place["channel"])
        async with listening(emulator, intake) as platform:
            given = await emulator.slash(dm, emulator.user("Ada"), "ask", question="why?")
            await until(lambda: emulator.original(given))
            async with platform.surface(intake.turns[0]) as surface:
                await surface.post(page("a", final=True))
                no_access = {"code": 50001, "message": "Missing Access"}
                emulator.fail("POST /channels", status=403, body=no_access)
                await surface.post(page("b", number=1, final=True))
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            found = await surface.post(page("It is so", last=True))

        assert (found, shown(emulator, dm)) == (left[0], [f"{QUESTION}why?\na", "b", "It is so"])


async def test_nobody_tries_to_edit_what_a_person_wrote() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        dm = str(turn.place["channel"])
        await emulator.say(dm, emulator.user("Ada"), "hurry")
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            await surface.post(page("It is so", last=True))

        edits = [one.path for one in emulator.requests if one.method == "PATCH"]
        assert edits == [f"/channels/{dm}/messages/{left[0]}"]


async def test_what_a_try_of_long_ago_has_left_beside_its_thread_is_gone_on_with() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await mention(emulator, opens_thread=True)
        emulator.forbid_writing(emulator.channel_id, in_threads=True)
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            found = await surface.post(page("It is so", last=True))

        assert (found, shown(emulator, emulator.channel_id)) == (left[0], ["It is so"])


async def test_one_message_is_not_taken_for_two_pages_that_say_the_same() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        left = await left_by(emulator, turn, page("one", final=True))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            first = await surface.post(page("one", final=True))
            second = await surface.post(page("one", number=1, final=True))

        assert first == left[0]
        assert second != first
        assert shown(emulator, str(turn.place["channel"])) == ["one", "one"]


FORGETFUL = Tuning(nonce_known_for=0.0)


async def test_a_page_that_this_try_has_sent_is_not_lost() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator, tuning=FORGETFUL) as platform:
        turn = await dm_question(emulator)
        async with platform.surface(turn) as surface:
            await surface.post(page("one"))
            emulator.fail("POST .*/messages", status=503)
            with pytest.raises(WriteFailed):
                await surface.post(page("two", number=1))

            await surface.post(page("two", number=1, last=True))

        assert shown(emulator, str(turn.place["channel"])) == ["one", "two"]


async def test_a_page_below_another_question_of_the_channel_is_not_ours() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn, other = [await mention(emulator, opens_thread=False) for _ in range(2)]
        await left_by(emulator, other, page("a", final=True))
        await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        async with resumed(emulator, turn) as surface:
            await surface.post(page("It is so", last=True))

        assert shown(emulator, emulator.channel_id) == ["a", "It is so"]


async def test_a_post_whose_answer_was_lost_long_ago_is_looked_for() -> None:
    clock = Clock()
    async with (
        DiscordEmulator(clock=clock) as emulator,
        logged_in(emulator, tuning=FORGETFUL) as platform,
    ):
        turn = await dm_question(emulator)
        emulator.fail("POST .*/messages", "drop", applied=True)
        async with platform.surface(turn) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(page("It is"))
            clock.advance(LATER)

            await surface.post(page("It is so", last=True))

        assert shown(emulator, str(turn.place["channel"])) == ["It is so"]


async def test_a_look_that_fails_is_taken_again_and_nothing_is_sent_before() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)
        emulator.fail("GET .*/messages", status=503)

        async with resumed(emulator, turn) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(page("It is so", last=True))
            between = shown(emulator, str(turn.place["channel"]))
            await surface.post(page("It is so", last=True))

        assert between == ["It is"]
        assert shown(emulator, str(turn.place["channel"])) == ["It is so"]


async def test_what_was_found_and_takes_no_edit_yet_is_edited_later() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)
        emulator.fail("PATCH .*/messages", status=503)

        async with resumed(emulator, turn) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(page("It is so", last=True))
            await surface.post(page("It is so", last=True))

        assert shown(emulator, str(turn.place["channel"])) == ["It is so"]


async def test_where_we_may_not_look_the_reply_is_sent_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with DiscordEmulator() as emulator:
        turn = await dm_question(emulator)
        emulator.fail("GET .*/messages", status=403, body={"code": 50001, "message": "Missing"})

        async with resumed(emulator, turn) as surface:
            await surface.post(page("It is so", last=True))

        assert shown(emulator, str(turn.place["channel"])) == ["It is so"]
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


async def test_nobody_looks_while_the_nonce_is_known() -> None:
    async with DiscordEmulator() as emulator:
        turn = replace(await dm_question(emulator), asked_at=time.time())

        async with resumed(emulator, turn) as surface:
            await surface.post(page("It is so", last=True))

        assert not [
            one for one in emulator.requests if one.method == "GET" and "messages" in one.path
        ]


@pytest.mark.parametrize("where", ["dm", "thread", "channel"])
async def test_what_an_answer_does_not_need_of_an_earlier_try_is_found(where: str) -> None:
    async with DiscordEmulator() as emulator:
        if where == "dm":
            turn, other = await dm_question(emulator), await dm_question(emulator)
        else:
            opens = where == "thread"
            turn = await mention(emulator, opens_thread=opens)
            other = await mention(emulator, opens_thread=opens)
        first, second = await left_by(emulator, turn, page("1", final=True), page("2", number=1))
        await left_by(emulator, other, page("another answer"), page("its end", number=1, last=True))

        async with logged_in(emulator) as platform:
            found = await platform.orphaned_messages(turn, but=[first])
            async with platform.surface(turn, Purpose.RESTORE) as surface:
                await surface.edit(second, Page(1, "", final=True))

        channel = turn.id.removeprefix("discord:") if where == "thread" else None
        assert found == [second]
        assert "2" not in shown(emulator, channel or str(turn.place["channel"]))


async def test_a_page_that_can_be_stopped_after_its_end_is_found() -> None:
    async with DiscordEmulator() as emulator:
        turn = await mention(emulator, opens_thread=True)
        ended, late = await left_by(
            emulator, turn, page("Its end.", final=True, last=True), page("Late", number=1)
        )

        async with logged_in(emulator) as platform:
            found = await platform.orphaned_messages(turn, but=[ended, late])

        assert found == [late]


async def test_what_is_put_right_after_its_end_opens_no_thread_and_shows_no_typing() -> None:
    async with DiscordEmulator() as emulator:
        turn = await mention(emulator, opens_thread=True)
        async with logged_in(emulator) as platform, platform.surface(turn) as surface:
            left = await surface.post(page("late"))
            await until(lambda: emulator.typing)
        calls, typed = len(emulator.requests), len(emulator.typing)

        async with (
            logged_in(emulator) as platform,
            platform.surface(turn, Purpose.RESTORE) as surface,
        ):
            await surface.edit(left, page("The end.", last=True))

        assert shown(emulator, turn.id.removeprefix("discord:")) == ["The end."]
        assert len(emulator.typing) == typed
        assert not [one for one in emulator.requests[calls:] if one.path.endswith("/threads")]


async def test_nothing_is_left_where_the_place_is_gone() -> None:
    async with DiscordEmulator() as emulator:
        turn = await mention(emulator, opens_thread=True)

        async with logged_in(emulator) as platform:
            assert await platform.orphaned_messages(turn, but=[]) == []


async def test_a_message_of_an_unknown_shape_hides_none_of_ours() -> None:
    async with DiscordEmulator() as emulator:
        turn = await mention(emulator, opens_thread=False)
        left = await left_by(emulator, turn, page("It is", final=True))
        odd = {"id": str(int(left[0]) - 1), "content": "by nobody"}
        listed = [emulator.event_of(left[0]), odd]
        emulator.fail(f"GET /channels/{emulator.channel_id}/messages", status=200, body=listed)

        async with logged_in(emulator) as platform:
            found = await platform.orphaned_messages(turn, but=())

        assert list(found) == left


async def test_an_older_reply_below_the_question_keeps_its_text_without_a_button() -> None:
    clock = Clock()
    async with DiscordEmulator(clock=clock) as emulator:
        turn = await dm_question(emulator)
        older = replace(page("Older.", last=True), end="older")
        (above,) = await left_by(emulator, replace(turn, id="discord:1"), older)
        left = await left_by(emulator, turn, page("It is"))
        clock.advance(LATER)

        placed = replace(turn, place={**turn.place, "above": above})
        async with resumed(emulator, placed) as surface:
            again = await surface.post(page("It is so.", last=True))

        assert [again] == left
        assert shown(emulator, str(turn.place["channel"])) == ["Older.", "It is so."]
