"""Files of an answer in Slack: shared by an update, once, and never in place of the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bot.domain import Attachment, Page, Purpose
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.slack.reply.test_surface import open_thread
from tests.support.slack_platform import UNLIMITED, first
from tests.support.slack_scene import Scene, growing, make_scene
from tests.support.waiting import until

FILES = (Attachment("answer.py", b"print('<!channel>')\n"), Attachment("table.csv", b"a,b\r\n"))
LAST = replace(first("It is so.", last=True), attachments=FILES)
WANTED = tuple((one.name, one.data) for one in FILES)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with make_scene() as one:
        yield one


def uploads(scene: Scene) -> int:
    return scene.calls("files.completeUploadExternal")


async def test_a_stream_gets_its_files_when_it_has_ended(scene: Scene) -> None:
    async with scene.platform.surface(scene.turn) as surface:
        message = await surface.post(growing("It"))
        await surface.edit(message, LAST)
        await surface.edit(message, LAST)

    [shown] = scene.replies()
    assert (shown.text, shown.files) == ("It is so.", WANTED)
    assert shown.labels[:1] == ("Regenerate",)
    assert uploads(scene) == len(FILES)
    assert not scene.slack.pings


async def test_a_post_gets_its_files(scene: Scene) -> None:
    async with scene.platform.surface(scene.turn) as surface:
        await surface.post(LAST)

    [shown] = scene.replies()
    assert (shown.text, shown.files) == ("It is so.", WANTED)


@pytest.mark.parametrize(("replaces", "tells"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("purpose", [Purpose.RESUME, Purpose.RESTORE])
async def test_another_process_that_writes_the_page_again_leaves_one_of_each(
    scene: Scene, replaces: bool, tells: bool, purpose: Purpose
) -> None:
    files = scene.slack.files
    files.replaces, files.tells = replaces, tells
    async with scene.platform.surface(scene.turn) as surface:
        message = await surface.post(LAST)

    for _ in range(3):
        async with scene.platform.surface(scene.turn, purpose) as surface:
            await surface.edit(message, replace(LAST, end="older"))

    [shown] = scene.replies()
    assert (shown.text, shown.files) == ("It is so.", WANTED)
    assert uploads(scene) == len(FILES) * (1 if tells else 4)


@pytest.mark.parametrize("replaces", [True, False])
async def test_an_update_whose_response_is_lost_is_repeated_with_the_same_files(
    scene: Scene, replaces: bool
) -> None:
    scene.slack.files.replaces = replaces
    scene.slack.fail("chat.update", "drop", applied=True)
    async with scene.platform.surface(scene.turn) as surface:
        await surface.post(LAST)

    assert [one.files for one in scene.replies()] == [WANTED]
    assert uploads(scene) == len(FILES)


async def test_a_new_answer_loses_the_files_of_the_old_one_with_its_first_words(
    scene: Scene,
) -> None:
    async with scene.platform.surface(scene.turn) as surface:
        message = await surface.post(LAST)

    async with scene.platform.surface(scene.turn) as surface:
        await surface.edit(message, Page(0, "Anew", final=False, said="Anew"))
        begun = scene.replies()[0]
        await surface.edit(message, Page(0, "Anew.", final=True, last=True))

    assert (begun.text, begun.files) == ("Anew", ())
    assert scene.replies()[0].files == ()


async def test_a_new_answer_with_a_file_of_the_same_name_shows_its_own(scene: Scene) -> None:
    other = Attachment("answer.py", b"another")
    async with scene.platform.surface(scene.turn) as surface:
        message = await surface.post(LAST)

    async with scene.platform.surface(scene.turn) as surface:
        await surface.edit(message, replace(LAST, attachments=(other,)))

    assert scene.replies()[0].files == (("answer.py", b"another"),)


@pytest.mark.parametrize("replaces", [True, False])
async def test_a_file_that_slack_does_not_remove_costs_one_update(
    scene: Scene, replaces: bool
) -> None:
    async with scene.platform.surface(scene.turn) as surface:
        message = await surface.post(LAST)
    scene.slack.files.replaces = replaces
    before = scene.calls("chat.update")

    async with scene.platform.surface(scene.turn) as surface:
        for word in ("a", "b", "c"):
            await surface.edit(message, Page(0, word, final=False, said=word))

    assert scene.calls("chat.update") == before + 4


async def test_a_process_that_dies_between_upload_and_update_leaves_the_files_to_the_next(
    scene: Scene,
) -> None:
    scene.slack.fail("chat.update", "hang")
    async with scene.platform.surface(scene.turn) as surface:
        dying = asyncio.create_task(surface.post(LAST))
        await until(lambda: uploads(scene) == len(FILES) and scene.calls("chat.update"))
        dying.cancel()
        await asyncio.wait({dying})
    left = scene.replies()

    async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
        await surface.post(LAST)

    assert [one.files for one in left] == [()]
    assert [(one.text, one.files) for one in scene.replies()] == [("It is so.", WANTED)]


@pytest.mark.parametrize("method", ["getUploadURLExternal", "completeUploadExternal"])
async def test_an_upload_that_fails_is_repeated(scene: Scene, method: str) -> None:
    scene.slack.fail(method, status=500)
    scene.slack.fail(method, status=429, retry_after=1)
    async with scene.platform.surface(scene.turn) as surface:
        await surface.post(LAST)

    assert [one.files for one in scene.replies()] == [WANTED]


async def test_without_the_scope_the_answer_stands_and_the_log_names_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    slack = SlackEmulator(
        scopes=SCOPES - {"files:write"},
        rates={"chat.update": UNLIMITED, "chat.postMessage": UNLIMITED},
    )
    async with slack, open_thread(slack) as (surface, _, replies):
        message = await surface.post(LAST)
        await surface.edit(message, LAST)
        await surface.post(replace(LAST, number=1))

        assert [(one.text, one.files) for one in replies()] == [("It is so.", ())] * 2
        asked = [one for one in slack.requests if one.method == "files.getUploadURLExternal"]
        assert len(asked) == 1
    assert caplog.text.count("lacks its files") == caplog.text.count("files:write") == 1


async def test_a_refused_update_leaves_the_answer(scene: Scene) -> None:
    scene.slack.fail("chat.update", error="file_not_found")
    async with scene.platform.surface(scene.turn) as surface:
        await surface.post(LAST)

    assert [(one.text, one.files) for one in scene.replies()] == [("It is so.", ())]


async def test_a_table_is_too_wide_by_its_columns(scene: Scene) -> None:
    def table(columns: int) -> str:
        return f"|{'a|' * columns}\n|{'-|' * columns}\n|{'1|' * columns}"

    async with scene.platform.surface(scene.turn) as surface:
        assert surface.shows_whole(table(20))
        assert not surface.shows_whole(table(21))
        assert not surface.shows_whole(table(21).replace("|\n", "\n"))
