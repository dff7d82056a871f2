"""Where a reply stands in Discord: in a thread of its question, or where it may."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from adapters.discord.reply.channel import ChannelAddress
from adapters.discord.rest import GLOBAL_LIMIT
from adapters.discord.tuning import Tuning
from bot.domain import EditBudget, Page, Place, Purpose
from bot.errors import MessageGone, PlaceGone, WriteDelayed, WriteFailed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import (
    channel_turn,
    dm_turn,
    listening,
    logged_in,
    page,
    turn_at,
)
from tests.support.fakes import FakeQueue, NoLimits, bucket_of
from tests.support.replies import answer_of
from tests.support.waiting import until


async def test_typing_shows_once_where_a_question_waits_for_a_worker() -> None:
    intake = FakeQueue()
    tuning = Tuning(typing_gap=3600.0)
    async with DiscordEmulator() as emulator, listening(emulator, intake, tuning=tuning):
        ada = emulator.user("Ada")
        taken, waiting = emulator.channel("taken"), emulator.channel("waiting")
        await emulator.say(taken, ada, f"{emulator.bot_mention} one")
        await until(lambda: "one" in intake.asked_for_waits)
        intake.is_waiting = True
        # Discord itself shows that a command is worked on.
        await emulator.slash(taken, ada, "ask", question="two")
        await emulator.say(waiting, ada, f"{emulator.bot_mention} three")
        await emulator.say(waiting, ada, f"{emulator.bot_mention} four")
        await until(lambda: "four" in intake.texts and emulator.typing)

        await emulator.say(emulator.dm(ada), ada, "five")
        await until(lambda: emulator.dm(ada) in emulator.typing)

        assert emulator.typing == [waiting, emulator.dm(ada)]


async def test_typing_shows_while_the_surface_is_open() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")

        async with platform.surface(channel_turn(emulator, said)):
            await until(lambda: emulator.typing)

        assert emulator.typing == [said]


async def test_a_thread_that_was_opened_before_is_used_again() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        async with platform.surface(turn):
            pass

        async with platform.surface(turn) as surface:
            await surface.post(page("because", final=True))

        assert [one.text for one in emulator.screen(said)] == ["because"]


async def test_a_reply_that_ended_before_its_thread_was_opened_stands_there_and_nobody_types() -> (
    None
):
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)

        async with platform.surface(turn, Purpose.APOLOGIZE) as surface:
            await surface.post(page("Sorry.", final=True))
            await asyncio.sleep(0.1)

        assert [one.text for one in emulator.screen(said)] == ["Sorry."]
        assert not emulator.typing


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
        place = ChannelAddress(int(emulator.channel_id), int(said), opens_thread=True)

        async with platform.surface(turn_at(place.to_json(), text="word " * 50)):
            opened = next(one for one in emulator.requests if one.path.endswith("/threads"))

        assert opened.body["name"] == "word " * 18 + "word word…"[:9]


async def test_a_question_without_a_space_names_a_thread_as_well() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        place = ChannelAddress(int(emulator.channel_id), int(said), opens_thread=True)

        async with platform.surface(turn_at(place.to_json(), text="x" * 300)):
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
        assert (second.text, second.reply_to) == ("and so on", said)
        written = [one.body for one in emulator.requests if one.path.endswith("/messages")]
        assert written[0]["allowed_mentions"] == {"parse": [], "replied_user": False}


async def test_a_reply_that_had_to_stand_in_the_channel_is_restored_there() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        emulator.fail("POST .*/threads", status=403, body={"code": 50013, "message": "no"})
        async with platform.surface(turn) as surface:
            answer = await surface.post(page("because", last=True))

        async with platform.surface(turn, Purpose.RESTORE) as surface:
            await surface.edit(answer, page("because", final=True))

        assert [one.buttons for one in emulator.screen(emulator.channel_id)] == [(), ()]


async def test_a_reply_in_its_thread_goes_on_there_when_no_thread_may_be_opened_any_more() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("be"))
        emulator.fail("POST .*/threads", status=403, body={"code": 50013, "message": "no"})

        async with platform.surface(turn, Purpose.RESUME) as surface:
            await surface.edit(shown, page("because", last=True))

        assert [one.text for one in emulator.screen(said)] == ["because"]


@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_reply_that_has_messages_opens_no_thread_again(in_thread: bool) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        if not in_thread:
            emulator.fail("POST .*/threads", status=403, body={"code": 50013, "message": "no"})
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("be"))

        going_on = replace(turn, place={**turn.place, "continues": True})
        async with platform.surface(going_on, Purpose.RESUME) as surface:
            await surface.edit(shown, page("because", final=True))
            await surface.post(page("and so on", number=1, last=True))

        place = said if in_thread else emulator.channel_id
        texts = [one.text for one in emulator.screen(place)]
        assert texts[-2:] == ["because", "and so on"]
        assert sum(one.call.endswith("/threads") for one in emulator.requests) == 1


@pytest.mark.parametrize("how", [{"status": 503}, {"status": 429, "retry_after": 1.0}])
async def test_whether_a_refused_thread_is_there_has_to_be_known(how: dict[str, Any]) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said)
        async with platform.surface(turn) as surface:
            await surface.post(page("be"))
        emulator.fail("POST .*/threads", status=403, body={"code": 50013, "message": "no"})
        emulator.fail(f"GET /channels/{said}", **how)

        with pytest.raises((WriteFailed, WriteDelayed)):
            async with platform.surface(turn, Purpose.RESUME):
                pass


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


async def test_where_threads_have_to_wait_for_long_the_reply_stands_in_the_channel(
    store: Store,
) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator, store=store) as platform:
        emulator.limits.thread = (1, 300.0)
        people = [emulator.user("Ada"), emulator.user("Bob"), emulator.user("Eve")]
        asked = [await emulator.say(emulator.channel_id, person, "why?") for person in people]

        for said in asked:
            async with platform.surface(channel_turn(emulator, said)) as surface:
                await surface.post(page(f"because {said}", final=True))

        first, *others = asked
        assert [one.text for one in emulator.screen(first)] == [f"because {first}"]
        texts = [one.text for one in emulator.screen(emulator.channel_id)]
        assert texts[-2:] == [f"because {said}" for said in others]
        assert not any(request.limited for request in emulator.requests)


async def test_a_refusal_of_a_thread_holds_the_next_one_in_all_processes(store: Store) -> None:
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator, store=store) as one,
        logged_in(emulator, store=store) as other,
    ):
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        next_one = await emulator.say(emulator.channel_id, emulator.user("Bob"), "why?")
        emulator.fail("POST .*/threads", status=429, retry_after=300)
        async with one.surface(channel_turn(emulator, said)):
            pass

        async with other.surface(channel_turn(emulator, next_one)) as surface:
            await surface.post(page("because", final=True))

        assert emulator.screen(emulator.channel_id)[-1].text == "because"
        assert sum(request.path.endswith("/threads") for request in emulator.requests) == 1


async def test_a_thread_waits_for_a_short_refusal(store: Store) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator, store=store) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        emulator.fail("POST .*/threads", status=429, retry_after=0.5)

        async with platform.surface(channel_turn(emulator, said)) as surface:
            await surface.post(page("because", final=True))

        assert [one.text for one in emulator.screen(said)] == ["because"]


async def test_a_message_that_has_its_slot_waits_for_nothing_more(store: Store) -> None:
    budgets = EditBudgets(store=store)

    async with DiscordEmulator() as emulator, logged_in(emulator, store=store) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            written = page("because", final=True)
            budget = surface.budget(written, new=True)
            assert budget
            await budgets.final(budget, deadline=math.inf)
            await budgets.pause(GLOBAL_LIMIT, 3600)

            await surface.post(written)

        assert [one.text for one in emulator.screen(str(turn.place["channel"]))] == ["because"]


class Full(NoLimits):
    """Has no request left that nobody would miss; `asked` counts who wanted one."""

    def __init__(self) -> None:
        self.asked = 0

    async def spare(self, budget: EditBudget) -> bool:
        self.asked += 1
        return False


async def test_nobody_types_where_messages_need_the_global_limit() -> None:
    budgets, tuning = Full(), Tuning(typing_gap=0.01, typing_every=math.inf)
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator, budgets=budgets, tuning=tuning) as platform,
        platform.surface(dm_turn(emulator)),
    ):
        await until(lambda: budgets.asked > 3)

        assert not emulator.typing


async def test_typing_that_found_no_room_does_not_count_as_shown() -> None:
    budgets, tuning = Full(), Tuning(typing_gap=600)
    async with (
        DiscordEmulator() as emulator,
        logged_in(emulator, budgets=budgets, tuning=tuning) as platform,
        platform.surface(turn := dm_turn(emulator)),
    ):
        await until(lambda: budgets.asked == 1)

        await platform.type_once(turn)

        assert budgets.asked == 2


async def test_nobody_types_on_in_a_place_that_is_gone() -> None:
    tuning = Tuning(typing_every=0.01, typing_gap=0.0)
    gone = {"code": 10003, "message": "Unknown Channel"}
    async with DiscordEmulator() as emulator, logged_in(emulator, tuning=tuning) as platform:
        failing = emulator.fail("POST .*/typing", status=404, body=gone, times=1000)

        async with platform.surface(dm_turn(emulator)) as surface:
            await until(lambda: failing.times < 1000)
            emulator.latency = 0.05
            for number in range(4):
                await surface.post(page(f"{number}", number=number, final=True))

        assert failing.times == 999


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
        assert (second.text, second.reply_to) == ("and so on", said)
        bucket = bucket_of(surface, Page(0, "", final=False))
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
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "why?")
        async with platform.surface(channel_turn(emulator, said)):
            asked = await emulator.slash(said, ada, "ask", question="why?")
            await until(lambda: emulator.original(asked))
        async with platform.surface(intake.turns[0]) as surface:
            await emulator.archive(said)

            shown = await surface.post(page("be"))
            await emulator.archive(said)
            await surface.edit(shown, page("because", final=True))

        assert [answer_of(one.text) for one in emulator.screen(said)] == ["because"]


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
        {"channel": "1", "interaction": "x", "token": "t"},
    ],
)
async def test_a_place_that_is_none_of_ours_is_gone(place: Place) -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        with pytest.raises(PlaceGone):
            async with platform.surface(turn_at(place)):
                pass


async def test_a_typing_call_that_hangs_delays_nothing() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        hanging = emulator.fail("POST .*/typing", "hang")

        # Less than a call that hangs takes until it is given up.
        async with asyncio.timeout(60), platform.surface(dm_turn(emulator)) as surface:
            await until(lambda: hanging.struck)
            await surface.post(page("here", final=True))
