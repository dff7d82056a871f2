"""A reply's messages in Discord: posted once, edited in place, with the right button."""

from __future__ import annotations

import pytest

from bot.domain import Page, Shown
from bot.errors import MessageGone, WriteDelayed, WriteFailed, WriteRefused
from bot.ports import Platform
from bot.reply.pages import Pager
from bot.store import Store
from bot.text.markdown import without_escapes
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import channel_turn, dm_turn, logged_in, page
from tests.support.fakes import bucket_of, write_the_end


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
        assert bucket_of(surface, Page(0, "", final=False)) == f"discord:edit:{said}"
        assert emulator.sessions == 0


async def test_formulas_are_shown_as_text_or_code_on_pages_that_fit() -> None:
    text = "\n".join([r"Then \(a^2 + b_{1} * c_{2}\) is \[\frac{x_1}{y_1} \\ z\]"] * 60)
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)

        async with platform.surface(turn) as surface:
            pages = Pager(limit=surface.limit, measure=surface.measure).cut(text)
            for number, part in enumerate(pages):
                await surface.post(page(part, number=number, final=True))

        shown = [one.text for one in emulator.screen(str(turn.place["channel"]))]
        line = r"Then a² + b₁ * c₂ is `\frac{x_1}{y_1} \\ z`"
        assert "\n".join(map(without_escapes, shown)).split("\n") == 60 * [line]
        assert len(shown) == len(pages) > 1


async def test_every_message_suppresses_previews() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        for turn in (dm_turn(emulator), channel_turn(emulator, said, opens_thread=False)):
            async with platform.surface(turn) as surface:
                shown = await surface.post(page("https://example.org"))
                await surface.edit(shown, page("https://example.org/more", final=True))

        writes = [one for one in emulator.requests if "messages" in one.path]
        assert [one.body.get("flags") for one in writes] == [4, 4, 4, 4]


async def test_no_message_calls_whom_it_answers() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        async with platform.surface(channel_turn(emulator, said, opens_thread=False)) as surface:
            shown = await surface.post(page("It"))
            await surface.edit(shown, page("It is", final=True))

        writes = [one for one in emulator.requests if "messages" in one.path]
        called = [one.body.get("allowed_mentions") for one in writes]
        assert called == [{"parse": [], "replied_user": False}] * 2


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


async def test_a_page_without_text_takes_its_message_away() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            await surface.post(page("because", final=True))
            later = await surface.post(page("and", number=1))

            await surface.edit(later, page("", number=1, final=True))

        texts = [one.text for one in emulator.screen(str(turn.place["channel"]))]
        assert texts == ["because"]


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
            channel = bucket_of(surface, page("half and half"))

            # The budget that it was written with is that of all messages in the channel.
            with pytest.raises(WriteFailed):
                await surface.edit(shown, page("half and half"))
            own = bucket_of(surface, page("half and half"))
            with pytest.raises(WriteDelayed) as delayed:
                await surface.edit(shown, page("half and half"))

        assert delayed.value.retry_after == pytest.approx(29, abs=1)
        assert own == channel.replace("edit", "old")
        assert bucket_of(surface, page("more", number=1)) == channel


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


async def test_text_is_measured_in_code_points() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            text = "👍" * surface.limit

            await surface.post(page(text, final=True))

        assert surface.measure(text) == surface.limit == 2000


async def test_a_page_that_discord_knows_by_its_nonce_is_not_taken_away(store: Store) -> None:
    text = "".join(f"word{number:04} " for number in range(300))  # two pages
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            ids = [await surface.post(page(one, number=at)) for at, one in enumerate("ab")]
            emulator.fail("PATCH", status=400, body={"code": 50035, "message": "Invalid Form Body"})
            await write_the_end(
                Shown(tuple(ids), text, outcome="done"),
                surface=surface,
                store=store,
            )

        shown = [one.text for one in emulator.screen(str(turn.place["channel"]))]
        assert sorted("".join(f"{one} " for one in shown).split()) == sorted(text.split())


async def test_white_space_around_a_text_costs_no_second_write() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)

        async with platform.surface(turn) as surface:
            await surface.post(page(" It is so\n", last=True))

        (shown,) = emulator.screen(str(turn.place["channel"]))
        assert shown.text == "It is so"
        assert not [one for one in emulator.requests if one.method == "PATCH"]


async def test_a_message_id_that_is_none_of_discords_is_a_message_that_is_gone() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            with pytest.raises(MessageGone):
                await surface.edit("../../users/@me", page("Hi"))

        assert [one for one in emulator.requests if one.method == "PATCH"] == []
