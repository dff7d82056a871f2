"""Files on a real homeserver: those of answers, and those that people send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from bot.domain import Attachment, FileRef, Json, Page, Purpose, Turn
from bot.errors import MessageGone, SurfaceError, WriteFailed
from bot.store import Store
from tests.matrix.test_surface import Scene, page, scene_of
from tests.support.synapse import Shown, Synapse

CODE = Attachment("code-1.py", b"print('rain')\n" * 100)
TABLE = Attachment("table.csv", "über,1\n".encode())


@pytest.fixture(params=[False, True], ids=["thread", "direct"])
async def scene(
    request: pytest.FixtureRequest, synapse: Synapse, store: Store
) -> AsyncIterator[Scene]:
    async with scene_of(synapse, store, direct=request.param) as one:
        yield one


def ended(text: str, *files: Attachment) -> Page:
    return page(text, last=True, attachments=files)


async def files_in(scene: Scene) -> list[Shown]:
    return [one for one in await scene.shown() if one.kind == "m.file"]


class TestOfAnswers:
    async def test_they_stand_below_the_page_in_its_thread(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            await surface.post(ended("see below", CODE, TABLE))

        answer, *files = await scene.shown()
        assert answer.text == "see below"
        assert [one.text for one in files] == ["code-1.py", "table.csv"]
        assert {one.thread for one in files} == {answer.thread}
        assert files[0].content["info"] == {"mimetype": "text/x-python", "size": len(CODE.data)}
        assert await bytes_of(scene, turn, files[1].id, str(files[1].content["url"])) == TABLE.data

    async def test_a_page_that_is_written_again_has_them_once(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(ended("see below", CODE))
            await surface.edit(message, ended("see below", CODE))
        before = await files_in(scene)
        async with scene.surface(turn, Purpose.RESUME) as surface:
            await surface.edit(message, page("growing again"))
            await surface.edit(message, ended("see below, again", CODE))
        async with scene.surface(turn, Purpose.RESTORE) as surface:
            await surface.edit(message, ended("see below, again", CODE))

        assert await files_in(scene) == before
        assert len(before) == 1

    async def test_those_of_an_older_answer_are_taken_away(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(ended("see below", CODE, TABLE))
        async with scene.surface(turn, Purpose.RESUME) as surface:
            await surface.edit(message, ended("only one", TABLE))
            assert [one.text for one in await files_in(scene)] == ["table.csv"]
            await surface.edit(message, Page(0, "no last one", final=True))

        assert await files_in(scene) == []

    async def test_one_whose_answer_is_lost_is_there_once(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("growing"))
            # The edit arrives, and the file does so without an answer.
            scene.proxy.lose_answer(r"GET .*/event/.*")
            with pytest.raises(WriteFailed):
                await surface.edit(message, ended("see below", CODE))
            scene.proxy.lose_answer()
            with pytest.raises(WriteFailed):
                await surface.edit(message, ended("see below", CODE))
            await surface.edit(message, ended("see below", CODE))

        (answer, _) = await scene.shown()
        assert (answer.text, answer.edits) == ("see below", 1)

    async def test_an_answer_stands_without_a_file_that_is_refused(self, scene: Scene) -> None:
        turn = await scene.ask()
        scene.proxy.fail(413, r"POST .*/upload")
        async with scene.surface(turn) as surface:
            await surface.post(ended("see below", CODE))

        assert await scene.texts() == ["see below"]


class TestOfPeople:
    async def test_one_is_fetched_from_the_homeserver(self, scene: Scene) -> None:
        turn, data = await scene.ask(), b"\x00rain" * 40_000
        url = await scene.ann.upload("rain.bin", data, "application/octet-stream")
        sent = await scene.ann.send(
            scene.room, {"msgtype": "m.file", "body": "rain.bin", "url": url}
        )

        assert await bytes_of(scene, turn, sent, url) == data

    async def test_one_of_a_redacted_message_is_gone(self, scene: Scene) -> None:
        turn = await scene.ask()
        url = await scene.ann.upload("rain.bin", b"rain", "text/plain")
        sent = await scene.ann.send(
            scene.room, {"msgtype": "m.file", "body": "rain.bin", "url": url}
        )
        await scene.ann.redact(scene.room, sent)

        with pytest.raises(MessageGone):
            await bytes_of(scene, turn, sent, url)

    @pytest.mark.parametrize(
        "address",
        [
            "mxc://synapse.test/none",
            "mxc://synapse.test/../../account/whoami",
            "https://evil.example/x",
            "mxc://evil.example/abc?allow_redirect=true",
            "",
        ],
    )
    async def test_no_other_address_is_asked(self, scene: Scene, address: str) -> None:
        turn = await scene.ask()

        with pytest.raises(SurfaceError):
            await bytes_of(scene, turn, str(turn.place["question"]), address)
        assert not [one for one in scene.proxy.calls if "whoami" in one.call][1:]

    async def test_one_without_a_place_is_refused(self, scene: Scene) -> None:
        async with scene.platform() as platform:
            with pytest.raises(SurfaceError):
                await anext(platform.fetch_file(FileRef("matrix:$x", "matrix:$x", "x", 0, {})))


async def bytes_of(scene: Scene, turn: Turn, event: str, address: str) -> bytes:
    place: dict[str, Json] = {"room": scene.room, "mxc": address}
    file = FileRef(f"matrix:{event}", f"matrix:{event}", "x", 0, place)
    async with scene.platform() as platform, aclosing(platform.fetch_file(file)) as chunks:
        return b"".join([chunk async for chunk in chunks])
