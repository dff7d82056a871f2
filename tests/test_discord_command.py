"""The reply to a slash command: the webhook's while its token lives, the channel's afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.discord import DiscordPlatform
from adapters.discord.place import CommandPlace
from bot.domain import Turn
from bot.errors import PlaceGone, WriteFailed, WriteRefused
from tests.emulators.discord import DiscordEmulator
from tests.fakes import FakeIntake
from tests.test_discord import listening, page, snowflake_of, turn_at
from tests.waiting import until

NO_ACCESS = {"code": 50001, "message": "Missing Access"}


@asynccontextmanager
async def asked(emulator: DiscordEmulator) -> AsyncIterator[tuple[DiscordPlatform, Turn]]:
    """Yield the turn of a command that Ada has just given."""
    intake = FakeIntake()
    async with listening(emulator, intake) as platform:
        given = await emulator.slash(
            emulator.channel_id, emulator.user("Ada"), "ask", prompt="why?"
        )
        await until(lambda: emulator.original(given))
        yield platform, intake.turns[0]


def aged(turn: Turn, minutes: float) -> Turn:
    """Return the turn as if it was asked so long ago; in the emulator its token still lives."""
    asked_at = snowflake_of(time.time() - 60 * minutes)
    place = CommandPlace(int(str(turn.place["channel"])), asked_at, str(turn.place["token"]))
    return turn_at(place.written(), turn_id=turn.id)


def texts(emulator: DiscordEmulator) -> list[str]:
    return [one.text for one in emulator.screen(emulator.channel_id)]


async def test_an_answer_whose_token_expires_goes_on_in_the_same_message() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Be"))
            emulator.clock.advance(900)

            await surface.edit(shown, page("Becau"))
            await surface.edit(shown, page("Because", last=True))

        (message,) = emulator.screen(emulator.channel_id)
        assert (message.text, message.buttons) == ("Because", (f"regenerate:{turn.id}",))
        assert message.suppressed
        refused = [one for one in emulator.requests if one.status == 401]
        assert len(refused) == 1
        assert surface.budget(page("Because"), new=False).bucket == (
            f"discord:edit:{emulator.channel_id}"
        )


async def test_an_answer_of_long_ago_is_written_anew_in_its_message() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            shown = await surface.post(page("Because", last=True))
        calls = len([one for one in emulator.requests if one.path.startswith("/webhooks")])

        async with platform.surface(aged(turn, 14.5)) as surface:
            budget = surface.budget(page("For"), new=False)
            await surface.edit(shown, page("For this reason", last=True))

        assert texts(emulator) == ["For this reason"]
        assert budget.bucket == f"discord:edit:{emulator.channel_id}"
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

        assert (message.text, message.buttons) == ("Because", ())


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
            assert surface.budget(page("Be"), new=False).bucket.startswith("discord:ask:")
            emulator.fail("PATCH /webhooks", status=400, body={"code": 50035, "message": "no"})
            with pytest.raises(WriteRefused):
                await surface.edit(shown, page("Because"))

            budget = surface.budget(page("Because"), new=True)
            await surface.post(page("Because", final=True))

        assert texts(emulator) == ["Be", "Because"]
        assert budget.bucket == f"discord:post:{emulator.channel_id}"


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

        assert [one.text for one in shown] == ["Because", "and so"]
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

            found = await surface.post(page("and so", number=1, final=True))
            await surface.post(page("on", number=2, last=True))

        assert texts(emulator) == ["Because", "and so", "on"]
        assert found == f"@{emulator.screen(emulator.channel_id)[1].id}"


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
