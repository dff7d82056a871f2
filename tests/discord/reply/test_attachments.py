"""Files of an answer in Discord: once, however often their page is written."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from adapters.discord.reply.message import is_narrow
from bot.domain import Attachment, Page, Purpose
from bot.errors import PlaceGone, WriteFailed
from tests.discord.reply.test_command import asked
from tests.emulators.discord import DiscordEmulator, Shown
from tests.emulators.discord.objects import ATTACH_FILES, PERMISSIONS
from tests.support.discord_platform import channel_turn, dm_turn, logged_in, page

FILES = (Attachment("answer.py", b"print('@everyone')\n"), Attachment("table.csv", b"a,b\r\n"))
LAST = replace(page("It is so.", last=True), attachments=FILES)
WITHOUT = int(PERMISSIONS) & ~ATTACH_FILES


def files_of(shown: Shown) -> list[tuple[str, bytes]]:
    return [*zip(shown.files, shown.contents, strict=True)]


WANTED = [(one.name, one.data) for one in FILES]


async def test_a_page_written_again_has_its_files_once() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            message = await surface.post(page("It"))
            await surface.edit(message, LAST)
            await surface.edit(message, LAST)
        async with platform.surface(turn, Purpose.RESTORE) as surface:
            await surface.edit(message, replace(LAST, end="older"))

        [shown] = emulator.screen(str(turn.place["channel"]))
        assert (shown.text, files_of(shown)) == ("It is so.", WANTED)
        assert not emulator.pings


async def test_a_message_has_the_files_of_its_new_page_alone() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            message = await surface.post(LAST)
            await surface.edit(message, page("Anew"))
            [growing] = emulator.screen(str(turn.place["channel"]))
            await surface.edit(message, replace(LAST, attachments=FILES[1:]))

        [shown] = emulator.screen(str(turn.place["channel"]))
        assert growing.files == ()
        assert files_of(shown) == WANTED[1:]


async def test_a_post_that_was_cut_off_has_its_files_once() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        emulator.fail("POST .*/messages", "drop", applied=True)
        async with platform.surface(turn) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(LAST)
            await surface.post(LAST)

        [shown] = emulator.screen(str(turn.place["channel"]))
        assert files_of(shown) == WANTED


async def test_the_answer_to_a_command_has_its_files() -> None:
    async with DiscordEmulator() as emulator, asked(emulator) as (platform, turn):
        async with platform.surface(turn) as surface:
            message = await surface.post(page("It"))
            await surface.edit(message, LAST)
            await surface.edit(message, LAST)

        [shown] = emulator.screen(emulator.channel_id)
        assert files_of(shown) == WANTED


async def test_without_the_permission_the_answer_stands_and_the_log_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.let_bot(permissions=WITHOUT)
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        async with platform.surface(channel_turn(emulator, said)) as surface:
            first = await surface.post(replace(LAST, last=False))
            await surface.edit(first, LAST)
            await surface.post(replace(LAST, number=1))

        shown = emulator.screen(said)
        assert [(one.text, one.files) for one in shown] == [("It is so.", ())] * 2
        assert shown[0].labels == ("Regenerate",)
        assert caplog.text.count("Attach Files") == 3
        assert "answer.py, table.csv" in caplog.text


async def test_a_file_that_is_too_large_is_left_out() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        too_large = {"code": 40005, "message": "Request entity too large"}
        emulator.fail("POST .*/messages", status=413, body=too_large)
        async with platform.surface(turn) as surface:
            await surface.post(LAST)

        [shown] = emulator.screen(str(turn.place["channel"]))
        assert (shown.text, shown.files) == ("It is so.", ())


async def test_what_is_refused_without_files_too_is_refused() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.forbid_writing(emulator.channel_id, in_threads=False)
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with platform.surface(turn) as surface:
            with pytest.raises(PlaceGone, match="Send Messages"):
                await surface.post(LAST)


def test_a_table_is_too_wide_by_the_columns_that_it_takes_on_the_screen() -> None:
    narrow = f"| {'a' * 30} | {'日' * 20} |\n|-|-|\n| 1 | 2 |"
    wide = f"| {'a' * 30} | 1 |\n|-|-|\n| 1 | {'日' * 30} |"

    assert is_narrow(narrow)
    assert not is_narrow(wide)


async def test_a_page_without_files_says_so_in_each_write() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        async with platform.surface(dm_turn(emulator)) as surface:
            message = await surface.post(page("It"))
            await surface.edit(message, Page(0, "It is", final=True))

        writes = [one.body for one in emulator.requests if "messages" in one.path]
        assert [one["attachments"] for one in writes] == [[], []]
