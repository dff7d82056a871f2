"""Slack's files: which a message has, what of them is looked up, and how they are fetched."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from adapters.slack.files import files_of
from adapters.slack.platform import SlackPlatform
from bot.domain import FileRef, Turn
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.store import Store
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.emulators.slack.files import Upload
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.slack_platform import LIMITS, hearing
from tests.support.waiting import until

TEXT = ("notes.txt", b"in it")


def files(*, id_: str = "F1", **fields: object) -> list[dict[str, object]]:
    return [{"id": id_, **fields}]


def test_the_files_of_a_message_and_of_what_it_forwards_are_named_by_their_ids() -> None:
    inner = {"files": files(id_="F3", title="Log", size=7)}
    forwarded = {"is_share": True, "files": files(id_="F2"), "message_blocks": [{"message": inner}]}
    preview = {"from_url": "https://a.example", "files": files(id_="F4")}
    deleted = [*files(id_="F5", mode="tombstone"), {"name": "no id"}, "x"]
    message = {
        "files": [*files(name="a.txt", title="A", size=9), *deleted],
        "attachments": [forwarded, preview],
    }

    assert files_of(message, "slack:T1:C1:1.1") == tuple(
        FileRef(f"slack:{id_}", "slack:T1:C1:1.1", name, size, {})
        for id_, name, size in (("F1", "A", 9), ("F2", "file", 0), ("F3", "Log", 7))
    )


async def ask(slack: SlackEmulator, intake: FakeQueue, *uploads: Upload) -> Turn:
    ann = slack.user("Ann")
    await slack.say(slack.dm(ann), ann, "what is it?", files=uploads)
    await until(lambda: intake.turns)
    return intake.last


async def fetched(platform: SlackPlatform, file: FileRef) -> bytes:
    return b"".join([chunk async for chunk in platform.fetch_file(file)])


async def test_a_file_is_fetched_from_an_address_that_is_asked_anew() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await ask(slack, intake, TEXT)

        [file] = turn.files
        assert turn.text == "what is it?\n[file: notes.txt]"
        assert (file.name, file.size, file.message) == ("notes.txt", 5, turn.id)
        assert "http" not in str(file)
        assert await fetched(platform, file) == b"in it"
        assert [call.method for call in slack.requests].count("files.info") == 1


async def test_a_page_of_its_own_length_is_a_file() -> None:
    intake, page = FakeQueue(), b"\n<!doctype HTML><p>Well"
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await ask(slack, intake, ("a.html", page))

        assert await fetched(platform, turn.files[0]) == page


@pytest.mark.parametrize(
    "addresses",
    [
        ("", ""),  # of a file that the workspace's plan hides
        ("https://docs.example/a", ""),  # of a file at another service
        ("https://files.slack.com/a", "https://files.slack.com.evil.example/a"),
    ],
)
async def test_what_slack_does_not_have_or_show_is_not_fetched(addresses: tuple[str, str]) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await ask(slack, intake, TEXT)
        fields = dict(zip(("url_private", "url_private_download"), addresses, strict=True))
        slack.change_file(turn.key.channel, turn.id.rpartition(":")[2], **fields)

        with pytest.raises(WriteRefused, match="another host"):
            await fetched(platform, turn.files[0])
        assert not slack.files.fetched


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("file_deleted", MessageGone),
        ("file_not_found", MessageGone),
        ("access_denied", PlaceGone),
        ("ratelimited", WriteDelayed),
        ("internal_error", WriteFailed),
    ],
)
async def test_slacks_errors_of_a_file_are_translated(code: str, error: type[SurfaceError]) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await ask(slack, intake, TEXT)
        slack.fail("files.info", error=code)

        with pytest.raises(error):
            await fetched(platform, turn.files[0])


async def test_a_page_to_log_in_is_a_missing_scope() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await ask(slack, intake, TEXT, ("a.html", b"<html>"))
        slack.files.asks_to_log_in = True

        for file in turn.files:
            with pytest.raises(WriteRefused, match="files:read"):
                await fetched(platform, file)


async def test_without_the_scope_the_error_names_it() -> None:
    intake = FakeQueue()
    async with (
        SlackEmulator(scopes=SCOPES - {"files:read"}) as slack,
        hearing(slack, intake) as platform,
    ):
        turn = await ask(slack, intake, TEXT)

        with pytest.raises(PlaceGone, match="the scope files:read"):
            await fetched(platform, turn.files[0])


async def test_the_token_goes_along_within_slack_and_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    intake = FakeQueue()
    async with (
        SlackEmulator() as other,
        SlackEmulator() as slack,
        hearing(slack, intake) as platform,
    ):
        turn = await ask(slack, intake, TEXT)
        [file] = turn.files
        slack.files.elsewhere = f"{slack.files.base}files-pri/{slack.team_id}-F0FILE0001/notes.txt"

        assert await fetched(platform, file) == b"in it"
        slack.files.elsewhere = f"{other.api_url}auth.test"
        with pytest.raises(WriteRefused, match="another host"):
            await fetched(platform, file)

        assert other.requests == []
        assert slack.bot_token not in caplog.text
        assert "notes.txt" not in caplog.text


@pytest.mark.parametrize(
    "large", [{"size": 4_000_001}, {"original_w": 6_000, "original_h": 5_000}], ids=str
)
async def test_of_a_large_picture_the_smaller_copy_is_fetched(large: dict[str, int]) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await ask(slack, intake, ("cat.jpg", b"large"), ("copy.jpg", b"small"))
        thumb = f"{slack.files.base}files-pri/{slack.team_id}-F0FILE0002/copy.jpg"
        slack.change_file(turn.key.channel, turn.id.rpartition(":")[2], thumb_1024=thumb, **large)

        assert await fetched(platform, turn.files[0]) == b"small"


async def from_another_workspace(slack: SlackEmulator, intake: FakeQueue) -> Turn:
    eve = slack.user("Eve")
    slack.foreign[eve] = "T0OTHER001"
    await slack.say(slack.dm(eve), eve, "what is it?", files=(TEXT, ("b.txt", b"more")))
    await until(lambda: intake.turns)
    return intake.last


async def test_a_file_of_another_workspace_is_looked_up() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        turn = await from_another_workspace(slack, intake)

        assert turn.text == "what is it?\n[file: notes.txt]\n[file: b.txt]"
        assert names(turn.files) == ["notes.txt", "b.txt"]
        assert await fetched(platform, turn.files[0]) == b"in it"


async def test_an_event_does_not_wait_long_for_the_name_of_a_file() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack:
        slack.fail("files.info", "hang", times=2)
        async with hearing(slack, intake, limits=replace(LIMITS, name_timeout=0.1)):
            turn = await from_another_workspace(slack, intake)

        assert turn.text == "what is it?\n[file]\n[file]"
        assert names(turn.files) == ["file", "file"]


async def test_the_messages_of_a_thread_bring_their_files() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann, eve = slack.user("Ann"), slack.user("Eve")
        slack.foreign[eve] = "T0OTHER001"
        place = slack.channel_id
        parent = await slack.say(place, ann, "Look!", files=(TEXT,))
        gone = await slack.say(place, ann, "And this.", thread_ts=parent, files=(TEXT,))
        await slack.say(place, eve, "Mine.", thread_ts=parent, files=(("b.txt", b"more"),))
        await slack.delete_file(place, gone, "notes.txt")
        await slack.say(place, ann, f"{slack.bot_mention} well?", thread_ts=parent)
        await until(lambda: intake.turns)

        found = await platform.read_context(intake.last, since="", most=50)

        assert [names(one.files) for one in found] == [["notes.txt"], [], ["file"]]
        assert [one.files[0].message for one in found if one.files] == [found[0].id, found[2].id]
        assert [one.text for one in found[1:]] == [
            "And this.\n[deleted file]",
            "Mine.\n[file]",
        ]
        # However many there are, only those that are read are looked up.
        assert not [call for call in slack.requests if call.method == "files.info"]
        assert await fetched(platform, found[2].files[0]) == b"more"


def names(refs: Sequence[FileRef]) -> list[str]:
    return [file.name for file in refs]


async def test_a_file_that_is_deleted_is_taken_from_its_question() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake):
        turn = await ask(slack, intake, TEXT, ("b.txt", b"more"))
        ts = turn.id.rpartition(":")[2]

        await slack.delete_file(turn.key.channel, ts, "notes.txt")
        await until(lambda: intake.edits)
        await slack.edit(turn.key.channel, ts, "and now?")
        await until(lambda: len(intake.edits) == 2)

        (first, first_at), (second, second_at) = intake.edits
        assert first.text == "what is it?\n[deleted file]\n[file: b.txt]"
        assert second.text == "and now?\n[deleted file]\n[file: b.txt]"
        assert names(first.files) == names(second.files) == ["b.txt"]
        assert 0 < first_at <= second_at


async def test_a_file_that_is_deleted_from_what_was_no_question_asks_nothing(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel_id
        thread = await slack.say(place, ann, "Look!")
        earlier = await slack.say(place, ann, "Mine.", thread_ts=thread, files=(TEXT,))
        await until(lambda: any(one.ts == earlier for one in slack.deliveries))
        await slack.say(place, ann, f"{slack.bot_mention} why?", thread_ts=thread)
        await until(lambda: intake.turns)

        await slack.delete_file(place, earlier, "notes.txt")
        await until(lambda: sum(one.ts == earlier for one in slack.deliveries) == 2)

        assert intake.texts == ["why?"]
