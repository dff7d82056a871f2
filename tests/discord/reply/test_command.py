"""The reply to a slash command: the webhook's while its token lives, the channel's afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from adapters.discord.platform import DiscordPlatform
from adapters.discord.reply.command import CommandAddress
from adapters.discord.reply.message import QUESTION
from adapters.discord.tuning import Tuning
from bot.domain import Place, Purpose, Shown, Turn
from bot.errors import MessageGone, PlaceGone, WriteFailed, WriteRefused
from bot.ports import Surface
from bot.reply.pages import Pager
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.limits import Limits
from tests.support.discord_platform import listening, logged_in, page, snowflake_of, turn_at
from tests.support.fakes import FakeQueue, bucket_of, write_the_end
from tests.support.replies import answer_of
from tests.support.waiting import until

NO_ACCESS = {"code": 50001, "message": "Missing Access"}


class Slow(FakeQueue):
    """Takes a press when it is `open`, and tells before that there was one."""

    async def regenerate(
        self, turn_id: str, *, person_id: str, press_id: str, place: Place | None, **_: object
    ) -> None:
        await super().regenerate(turn_id, person_id=person_id, press_id=press_id, place=place)
        await self.open.wait()


@asynccontextmanager
async def asked(emulator: DiscordEmulator) -> AsyncIterator[tuple[DiscordPlatform, Turn]]:
    """Yield the turn of a command that Ada has just given."""
    intake = FakeQueue()
    async with listening(emulator, intake) as platform:
        given = await emulator.slash(
            emulator.channel_id, emulator.user("Ada"), "ask", question="why?"
        )
        await until(lambda: emulator.original(given))
        yield platform, intake.turns[0]


@asynccontextmanager
async def pressed(
    emulator: DiscordEmulator, *pages: str, in_time: bool = False
) -> AsyncIterator[tuple[Surface, list[str], Turn]]:
    """Yield the surface of a press of Regenerate, 15 minutes after the answer if not `in_time`.

    And what stands there since, where the bot does not see the channel; and the turn.
    """
    intake = Slow()
    async with listening(emulator, intake) as platform:
        ada, last = emulator.user("Ada"), len(pages) - 1
        given = await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
        await until(lambda: emulator.original(given))
        turn = intake.turns[0]
        if last:
            emulator.fail("POST /channels", status=403, body=NO_ACCESS, times=99)
            emulator.fail("GET /channels", status=403, body=NO_ACCESS, times=99)
        async with platform.surface(turn) as surface:
            stood = [
                await surface.post(page(text, number=number, final=True, last=number == last))
                for number, text in enumerate(pages)
            ]
        if not in_time:
            emulator.clock.advance(900)
            turn = aged(turn, 15.5)
        intake.open.clear()
        await emulator.click(stood[-1].removeprefix("@"), ada, f"regenerate:{turn.id}")
        await until(lambda: intake.pressed)
        added = intake.pressed_at[0]
        assert added is not None
        asyncio.get_running_loop().call_later(0.1, intake.open.set)
        async with platform.surface(replace(turn, place={**turn.place, **added})) as surface:
            yield surface, stood, turn


def aged(turn: Turn, minutes: float) -> Turn:
    """Return the turn as if it was asked so long ago; in the emulator its token still lives."""
    asked_at = snowflake_of(time.time() - 60 * minutes)
    place = CommandAddress(int(str(turn.place["channel"])), asked_at, str(turn.place["token"]))
    return turn_at(place.to_json(), turn_id=turn.id)


def texts(emulator: DiscordEmulator) -> list[str]:
    return [answer_of(one.text) for one in emulator.screen(emulator.channel_id)]


async def test_an_answer_whose_token_expires_goes_on_in_the_same_message() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Be"))
            emulator.clock.advance(900)

            await surface.edit(shown, page("Becau"))
            await surface.edit(shown, page("Because", last=True))

        (message,) = emulator.screen(emulator.channel_id)
        assert (answer_of(message.text), message.buttons) == ("Because", (f"regenerate:{turn.id}",))
        assert message.suppressed
        refused = [one for one in emulator.requests if one.status == 401]
        assert len(refused) == 1
        assert bucket_of(surface, page("Because")) == f"discord:edit:{emulator.channel_id}"


async def test_an_answer_of_long_ago_is_written_anew_in_its_message() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Because", last=True))
        calls = len([one for one in emulator.requests if one.path.startswith("/webhooks")])

        async with platform.surface(aged(turn, 14.5)) as surface:
            bucket = bucket_of(surface, page("For"))
            await surface.edit(shown, page("For this reason", last=True))

        assert texts(emulator) == ["For this reason"]
        assert bucket == f"discord:edit:{emulator.channel_id}"
        asked_webhook = [one for one in emulator.requests if one.path.startswith("/webhooks")]
        assert len(asked_webhook) == calls


async def test_where_we_may_not_see_the_channel_an_answer_loses_its_button_in_time() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Be"))
        emulator.fail("PATCH /channels", status=403, body=NO_ACCESS, times=2)

        async with platform.surface(aged(turn, 14.5)) as surface:
            await surface.edit(shown, page("Because"))
            (message,) = emulator.screen(emulator.channel_id)
            emulator.clock.advance(900)
            with pytest.raises(PlaceGone):
                await surface.edit(shown, page("Because, because"))

        assert (answer_of(message.text), message.buttons) == ("Because", ())


async def test_an_old_answer_is_written_anew_by_the_token_of_the_press() -> None:
    async with DiscordEmulator() as emulator:
        async with pressed(emulator, "Because") as (surface, (shown,), turn):
            await surface.edit(shown, page("For"))
            bucket = bucket_of(surface, page("For"))
            await surface.edit(shown, page("For this reason", last=True))

        (message,) = emulator.screen(emulator.channel_id)
        assert (answer_of(message.text), message.buttons) == (
            "For this reason",
            (f"regenerate:{turn.id}",),
        )
        assert bucket.startswith("discord:ask:")
        assert not [one for one in emulator.requests if one.call.startswith("PATCH /channels")]


async def test_a_page_that_the_channel_shows_waits_for_the_channels_budget() -> None:
    async with DiscordEmulator() as emulator:
        async with pressed(emulator, "One", "Two") as (surface, stood, _):
            await surface.edit(stood[0], page("Red"))
            edits = bucket_of(surface, page("Red and"))
            posts = bucket_of(surface, page("Red"), new=True)

        assert edits == f"discord:edit:{emulator.channel_id}"
        assert posts == f"discord:post:{emulator.channel_id}"


async def test_an_old_answer_of_one_page_grows_where_we_may_not_see_the_channel() -> None:
    async with DiscordEmulator() as emulator:
        async with pressed(emulator, "Because") as (surface, (shown,), _):
            emulator.fail("POST /channels", status=403, body=NO_ACCESS)
            emulator.fail("GET /channels", status=403, body=NO_ACCESS)
            await surface.edit(shown, page("For this reason", final=True))
            later = await surface.post(page("and", number=1))
            await surface.edit(later, page("and that", number=1, last=True))

        assert texts(emulator) == ["For this reason", "and that"]


@pytest.mark.parametrize("anew", [["Red"], ["Red", "Green"], ["Red", "Green", "Blue", "Grey"]])
async def test_an_old_answer_of_several_pages_is_written_anew_below_those_that_must_stay(
    store: Store, anew: list[str]
) -> None:
    limits = Limits(create=(50, 5.0), edit=(50, 5.0), webhook=(50, 5.0))
    async with DiscordEmulator(limits=limits) as emulator:
        async with pressed(emulator, "One", "Two", "Three") as (surface, stood, _):
            emulator.fail("PATCH /channels", status=403, body=NO_ACCESS, times=99)
            emulator.fail("DELETE /channels", status=403, body=NO_ACCESS, times=99)
            await write_the_end(
                Shown(tuple(stood), "\n\n".join(one * 400 for one in anew), outcome="done"),
                surface=surface,
                store=store,
            )

        shown = [text.strip() for text in texts(emulator)]
        assert shown[:2] == ["One", "Two"]
        assert "Three" not in shown
        assert "".join(shown[2:]).replace("\n", "") == "".join(one * 400 for one in anew)


async def test_an_answer_of_several_pages_is_written_anew_in_them_while_its_token_lives() -> None:
    async with DiscordEmulator() as emulator:
        async with pressed(emulator, "One", "Two", in_time=True) as (surface, stood, _):
            await surface.edit(stood[0], page("Red", final=True))
            await surface.edit(stood[1], page("Green", number=1, last=True))

        assert texts(emulator) == ["Red", "Green"]


async def test_a_page_that_an_earlier_press_wrote_is_not_taken_for_deleted() -> None:
    async with (
        DiscordEmulator() as emulator,
        pressed(emulator, "One", "Two", in_time=True) as (surface, stood, _),
    ):
        unknown = {"code": 10008, "message": "Unknown Message"}
        emulator.fail("PATCH /webhooks", status=404, body=unknown, times=2)
        emulator.fail("PATCH /channels", status=403, body=NO_ACCESS)

        with pytest.raises(WriteRefused):
            await surface.edit(stood[0], page("Red"))


async def test_a_page_that_a_person_deleted_is_told_as_such_after_a_press() -> None:
    async with (
        DiscordEmulator() as emulator,
        pressed(emulator, "Because") as (surface, (shown,), _),
    ):
        await surface.edit(shown, page("For"))
        await emulator.delete(shown.removeprefix("@"))

        with pytest.raises(MessageGone):
            await surface.edit(shown, page("For this reason"))


async def test_an_answer_is_known_by_the_id_of_its_message() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Because", last=True))

        assert [f"@{one.id}" for one in emulator.screen(emulator.channel_id)] == [shown]


async def test_a_first_page_that_comes_after_the_token_is_a_message() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        calls = len(emulator.requests)
        async with platform.surface(aged(turn, 14.5)) as surface:
            shown = await surface.post(page("Because", last=True))

        assert texts(emulator) == ["", "Because"]
        assert emulator.screen(emulator.channel_id)[1].id == shown
        later = emulator.requests[calls:]
        assert not [one for one in later if one.path.startswith("/webhooks")]


async def test_a_response_that_refused_an_edit_is_not_asked_again() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Be"))
            assert bucket_of(surface, page("Be")).startswith("discord:ask:")
            emulator.fail("PATCH /webhooks", status=400, body={"code": 50035, "message": "no"})
            with pytest.raises(WriteRefused):
                await surface.edit(shown, page("Because"))

            bucket = bucket_of(surface, page("Because"), new=True)
            await surface.post(page("Because", final=True))

        assert texts(emulator) == ["Be", "Because"]
        assert bucket == f"discord:post:{emulator.channel_id}"


async def test_a_table_is_shown_as_code() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            await surface.post(page("| a | b |\n|---|---|\n| long | c |\n\n", final=True))

        (shown,) = texts(emulator)
        assert shown.startswith("```\n| a    | b |")


async def test_later_pages_are_follow_ups_where_the_bot_is_no_member() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        emulator.fail("POST /channels", status=403, body=NO_ACCESS)
        emulator.fail("GET /channels", status=403, body=NO_ACCESS)

        async with platform.surface(turn) as surface:
            await surface.post(page("Because", final=True))
            later = await surface.post(page("and", number=1))
            await surface.edit(later, page("and so", number=1, final=True))
            shown = emulator.screen(emulator.channel_id)
            await surface.edit(later, page("", number=1, final=True))

        assert [answer_of(one.text) for one in shown] == ["Because", "and so"]
        assert all(one.suppressed for one in shown)
        assert texts(emulator) == ["Because"]


async def test_a_follow_up_whose_answer_was_lost_is_found_where_we_may_read() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        emulator.forbid_writing(emulator.channel_id, in_threads=False)
        emulator.fail("POST /webhooks", "drop", applied=True)
        async with platform.surface(turn) as surface:
            await surface.post(page("Because", final=True))
            with pytest.raises(WriteFailed):
                await surface.post(page("and", number=1))
            others = [f"{number}" for number in range(101)]
            for other in others:
                await emulator.say(emulator.channel_id, emulator.user("Bob"), other)

            found = await surface.post(page("and so", number=1, final=True))
            await surface.post(page("on", number=2, last=True))

        ours = [one for one in texts(emulator) if one not in others]
        assert ours == ["Because", "and so", "on"]
        assert found == f"@{emulator.screen(emulator.channel_id)[1].id}"


async def both_ask(emulator: DiscordEmulator, intake: FakeQueue) -> list[Turn]:
    """Return the turns of two people who have given the command, one after the other."""
    for person in ("Ada", "Bob"):
        given = await emulator.slash(
            emulator.channel_id, emulator.user(person), "ask", question="why?"
        )
        await until(partial(emulator.original, given))
    return intake.turns


async def test_a_follow_up_of_another_command_is_not_taken_for_a_lost_one() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        first, second = await both_ask(emulator, intake)
        async with platform.surface(second) as surface:
            await surface.post(page("Bob's", final=True))
        emulator.forbid_writing(emulator.channel_id, in_threads=False)

        async with platform.surface(first) as surface:
            await surface.post(page("Ada's", final=True))
            await surface.post(page("and so on", number=1, last=True))

        assert texts(emulator) == ["Ada's", "Bob's", "and so on"]


async def test_a_finished_page_of_another_command_is_left_alone() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        first, second = await both_ask(emulator, intake)
        async with platform.surface(second) as surface:
            await surface.post(page("Bob's", number=1, final=True))
        async with platform.surface(first) as surface:
            left = await surface.post(page("It", number=1))
        emulator.clock.advance(600)
        first = replace(first, asked_at=time.time() - 600)

        async with platform.surface(first, Purpose.RESUME) as surface:
            found = await surface.post(page("It is so", number=1, last=True))

        assert found == left
        assert texts(emulator)[2:] == ["Bob's", "It is so"]


async def test_a_follow_up_that_cannot_be_looked_for_just_now_waits() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        emulator.forbid_writing(emulator.channel_id, in_threads=False)
        emulator.fail("GET /channels", status=503)
        async with platform.surface(turn) as surface:
            await surface.post(page("Because", final=True))

            with pytest.raises(WriteFailed):
                await surface.post(page("and", number=1))

        assert texts(emulator) == ["Because"]


async def test_an_error_on_the_way_tells_no_token() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        there = {"Location": f"{emulator.api_url}/webhooks/1/{turn.place['token']}/messages/2"}
        emulator.fail("/webhooks", status=307, headers=there, times=20)
        async with platform.surface(turn) as surface:
            with pytest.raises(WriteFailed) as failed:
                await surface.post(page("Because"))

        assert "TooManyRedirects" in str(failed.value)
        assert str(turn.place["token"]) not in str(failed.value)


async def test_a_command_is_answered_in_its_original_response() -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake) as platform,
    ):
        ada = emulator.user("Ada")
        asked = await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
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
        assert [*map(answer_of, emulator.states(original.id))] == ["Be", "Because", "Because."]
        assert (original.buttons, later.text) == ((), "The end")
        assert not emulator.pings
        assert not emulator.unguarded
        assert not emulator.typing
        edits = [one for one in emulator.requests if one.method == "PATCH"]
        assert {one.body["flags"] for one in edits} == {4}


LINE = f"{QUESTION}why is it _so_? [file: a.png]"


@asynccontextmanager
async def asked_why(
    emulator: DiscordEmulator, **options: str | bool
) -> AsyncIterator[tuple[DiscordPlatform, Turn]]:
    intake, question = FakeQueue(), "why is \u202eit _so_?"
    async with listening(emulator, intake) as platform:
        given = await emulator.slash(
            *(emulator.channel_id, emulator.user("Ada"), "ask"),
            **{"question": question, "file": "a.png", **options},
        )
        await until(lambda: emulator.original(given))
        yield platform, intake.turns[0]


async def test_a_command_shows_its_question_above_the_answer_until_the_end() -> None:
    text = "".join(f"{number:04} " for number in range(600)).strip()
    async with DiscordEmulator() as emulator, asked_why(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            pages = Pager(limit=surface.limit, measure=surface.measure).cut(text)
            shown = await surface.post(page(pages[0]))
            await surface.edit(shown, page(pages[0], final=True))
            await surface.post(page(pages[1], number=1, last=True))

        first, second = [one.text for one in emulator.screen(emulator.channel_id)]
        assert first == f"{LINE}\n{pages[0]}"
        assert f"{answer_of(first)} {second}" == text


async def test_a_quote_in_an_answer_is_not_part_of_its_question() -> None:
    async with DiscordEmulator() as emulator, asked_why(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            await surface.post(page("> So it is said."))

        assert [one.text for one in emulator.screen(emulator.channel_id)] == [
            f"{LINE}\n\n> So it is said."
        ]


async def test_a_long_question_is_shown_by_its_beginning() -> None:
    question = "why " * 1000
    async with (
        DiscordEmulator() as emulator,
        asked_why(emulator, question=question) as (platform, turn),
    ):
        async with platform.surface(turn) as surface:
            await surface.post(page("x" * surface.limit, last=True))

        [shown] = [one.text for one in emulator.screen(emulator.channel_id)]
        assert shown.startswith(f"{QUESTION}why why")
        assert shown.partition("\n")[0].endswith("…")


async def test_an_answer_keeps_its_question_when_the_store_has_lost_it() -> None:
    async with DiscordEmulator() as emulator, asked_why(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Beca"))

        for purpose, text in ((Purpose.RESUME, "Because"), (Purpose.RESTORE, "Because.")):
            known = turn if purpose is Purpose.RESUME else replace(turn, text="")
            async with platform.surface(known, purpose) as surface:
                await surface.edit(shown, page(text, last=True))
            assert [one.text for one in emulator.screen(emulator.channel_id)] == [f"{LINE}\n{text}"]

        emulator.fail("GET /channels/.*", status=403, body=NO_ACCESS)
        async with platform.surface(replace(turn, text=""), Purpose.RESTORE) as surface:
            await surface.edit(shown, page("Because!", last=True))
        assert [one.text for one in emulator.screen(emulator.channel_id)] == [f"{LINE}\nBecause!"]


async def test_a_message_without_its_question_is_read_only_once() -> None:
    async with DiscordEmulator() as emulator, asked_why(emulator) as (platform, turn):
        async with platform.surface(replace(turn, text="")) as surface:
            shown = await surface.post(page("Beca"))
            await surface.edit(shown, page("Becaus"))
            await surface.edit(shown, page("Because", last=True))

        assert [one.text for one in emulator.screen(emulator.channel_id)] == ["Because"]
        assert len([one for one in emulator.requests if one.call.startswith("GET /ch")]) == 1


async def test_a_private_answer_does_not_repeat_its_question() -> None:
    async with DiscordEmulator() as emulator, asked_why(emulator, private=True) as (platform, turn):
        async with platform.surface(turn) as surface:
            await surface.post(page("Because"))

        assert [one.text for one in emulator.screen(emulator.channel_id)] == ["Because"]


async def test_a_first_page_that_comes_before_the_acknowledgement_waits_for_it() -> None:
    intake = FakeQueue()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        asked = await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
        await until(lambda: intake.turns)

        async with platform.surface(intake.turns[0]) as surface:
            posting = asyncio.create_task(surface.post(page("Because", final=True)))
            await until(lambda: [one for one in emulator.requests if one.status == 404])
            intake.open.set()
            await posting

        assert [answer_of(one.text) for one in emulator.screen(emulator.channel_id)] == ["Because"]
        original = emulator.original(asked)
        assert original is not None
        assert answer_of(original.text) == "Because"


async def test_a_command_that_was_acknowledged_too_late_is_answered_in_the_channel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tuning = Tuning(deferral_pauses=(0.01, 0.01))
    intake = FakeQueue()
    intake.open.clear()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, tuning=tuning) as platform,
    ):
        ada = emulator.user("Ada")
        asked = await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
        await until(lambda: intake.turns)
        emulator.clock.advance(60.5)
        intake.open.set()
        await until(lambda: caplog.records)

        async with platform.surface(intake.turns[0]) as surface:
            await surface.post(page("Because", final=True))
            await surface.post(page("and so", number=1, last=True))

        shown = emulator.screen(emulator.channel_id)
        assert [answer_of(one.text) for one in shown] == ["Because", "and so"]
        assert emulator.original(asked) is None


async def test_a_command_that_is_never_acknowledged_is_answered_in_the_channel() -> None:
    tuning = Tuning(deferral_pauses=())
    async with DiscordEmulator() as emulator, logged_in(emulator, tuning=tuning) as platform:
        place = CommandAddress(int(emulator.channel_id), snowflake_of(time.time()), "unknown")

        async with platform.surface(turn_at(place.to_json())) as surface:
            shown = await surface.post(page("Because", final=True))

        assert [one.id for one in emulator.screen(emulator.channel_id)] == [shown]


async def test_a_command_without_channel_and_response_has_no_place() -> None:
    tuning = Tuning(deferral_pauses=())
    async with DiscordEmulator() as emulator, logged_in(emulator, tuning=tuning) as platform:
        place = CommandAddress(1, snowflake_of(time.time()), "unknown")
        async with platform.surface(turn_at(place.to_json())) as surface:
            with pytest.raises(PlaceGone):
                await surface.post(page("Because", number=1, final=True))
