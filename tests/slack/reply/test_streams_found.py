"""What an earlier try, or an earlier turn, has left of streams in a thread of Slack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

import pytest

from bot.domain import Page, Purpose
from bot.domain import Shown as Left
from bot.errors import GivenUp, WriteFailed, WriteRefused
from bot.store import Store
from tests.emulators.slack import Call
from tests.support.at_work import given_up_unseen, make_queue, repairing
from tests.support.replies import make_reply
from tests.support.slack_scene import LONG, TEXT, WORDS, Scene, growing, make_scene
from tests.support.waiting import until


async def test_a_stream_whose_beginner_died_is_ended_and_updated() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))

        async with scene.platform.surface(scene.turn) as surface:
            await surface.edit(message_id, Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


@pytest.mark.parametrize("error", ["message_not_in_streaming_state", "stopped_by_user"])
async def test_a_stream_that_ends_before_it_could_be_ended_is_updated(error: str) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))
        scene.slack.clock.advance(301)
        scene.slack.fail("chat.update", error="streaming_state_conflict")
        scene.slack.fail("chat.stopStream", error=error, times=2)

        async with scene.platform.surface(scene.turn) as surface:
            await surface.edit(message_id, Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_a_stream_that_nobody_knows_of_is_found_by_the_next_try() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_a_stream_is_found_where_the_try_that_ended_it_died_too() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        # The first update learns that the message still streams.
        scene.slack.fail("chat.update", "drop", after=1)
        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(growing("Because so"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def make_attempt(
    scene: Scene,
    store: Store,
    answer: str,
    *,
    left: Left,
    purpose: Purpose,
    dies_at: tuple[str, int] | None = None,
) -> Left:
    """Answer in a process, which may die with the answer of such a call unheard, or soon.

    Its model says all and does not end then. Return what it has saved.
    """
    saved, heard, calls = left, asyncio.Event(), 0

    async def save(shown: Left) -> None:
        nonlocal saved
        saved = shown

    def tell(call: Call) -> None:
        nonlocal calls
        if dies_at:
            calls += call.method == dies_at[0]
            if calls == dies_at[1]:
                heard.set()

    async def said() -> AsyncGenerator[str]:
        for start in range(0, len(answer), 500):
            yield answer[start : start + 500]
            await asyncio.sleep(0.01)
        if dies_at:
            await asyncio.Event().wait()

    async def speak() -> None:
        async with scene.platform.surface(scene.turn, purpose) as surface:
            await make_reply(store, surface, earlier=left, saved=save).stream(said())
        if not dies_at:
            heard.set()

    answering = asyncio.create_task(speak())
    scene.slack.watch(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5 if dies_at else 60):
            await heard.wait()
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    return saved


@pytest.mark.parametrize(
    "second",
    [("chat.postMessage", 1), ("chat.stopStream", 1), ("chat.update", 1), ("chat.update", 2)],
)
@pytest.mark.parametrize(
    "first",
    [
        ("chat.startStream", 1),
        ("chat.appendStream", 1),
        ("chat.stopStream", 1),
        ("chat.startStream", 2),
    ],
)
async def test_wherever_processes_die_one_answer_stands_there_alone(
    store: Store, first: tuple[str, int], second: tuple[str, int]
) -> None:
    async with make_scene() as scene:
        left = Left((), "", "")
        left = await make_attempt(
            scene, store, LONG, left=left, purpose=Purpose.ANSWER, dies_at=first
        )
        another = "Another answer. " * 100
        left = await make_attempt(
            scene, store, another, left=left, purpose=Purpose.RESUME, dies_at=second
        )

        left = await make_attempt(
            scene, store, "The last answer.", left=left, purpose=Purpose.RESUME
        )
        await scene.delete_orphans(left)

        assert left.outcome
        assert " ".join(scene.texts()).split() == left.text.split()


async def test_what_an_earlier_try_has_begun_gives_way_where_it_takes_no_edits(
    store: Store,
) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        scene.slack.fail("chat.update", error="edit_window_closed", times=99)

        await scene.answer(store, ["Because so."], purpose=Purpose.RESUME)
        scene.slack.heal()

        assert scene.texts() == ["Because so."]


async def test_a_page_that_is_found_in_its_message_is_not_deleted(store: Store) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            ids = [
                await surface.post(Page(number, text, final=True))
                for number, text in enumerate(["Red", "Green"])
            ]
        scene.slack.fail("chat.update", error="edit_window_closed")

        await scene.answer(store, [LONG], message_ids=ids, purpose=Purpose.RESUME)

        assert sorted("".join(scene.texts()).split()) == sorted(LONG.split())


async def test_a_stream_that_is_found_is_one_page() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("First"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "First page.", final=True))
            await surface.post(Page(1, "Second page.", final=True))

        assert scene.texts() == ["First page.", "Second page."]


async def test_the_stream_of_a_page_that_is_known_is_no_other_pages() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("First"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.edit(message_id, Page(0, "First page.", final=True))
            await surface.post(Page(1, "Second page.", final=True))

        assert scene.texts() == ["First page.", "Second page."]


async def test_a_turn_takes_no_finished_answer_for_its_own(store: Store) -> None:
    async with make_scene() as scene:
        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.02))
        following = await scene.asks_on()
        await until(lambda: scene.calls("chat.appendStream"))
        scene.slack.clock.advance(301)
        await answering

        scene.turn = following
        await scene.answer(store, ["Second."], purpose=Purpose.RESUME)

        assert [text.strip() for text in scene.texts()] == ["and?", TEXT.strip(), "Second."]


async def test_a_stream_that_is_over_is_no_unsaved_page() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        scene.slack.clock.advance(301)

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because", "Because so."]


async def test_the_stream_of_another_app_is_no_page_of_ours() -> None:
    async with make_scene() as scene:
        thread = str(scene.turn.place["thread"])
        scene.slack.stream_of_another(scene.slack.channel_id, thread, "Mine.")

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Mine.", "Because so."]


async def test_a_stream_above_the_answer_of_another_turn_is_no_page_of_this_one() -> None:
    async with make_scene() as scene:
        following = await scene.asks_on()
        for page in (growing("Lost"), Page(0, "Second.", final=True)):
            async with scene.platform.surface(following) as surface:
                await surface.post(page)

        # Slack sent the first question again, after an outage.
        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "First.", final=True))

        assert scene.texts() == ["and?", "Lost", "Second.", "First."]


async def test_a_page_that_is_sent_anew_takes_no_other_pages_stream() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            first = await surface.post(Page(0, "First", final=True))
            await surface.post(Page(1, "Sec", final=False, said="Sec"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            scene.slack.fail("chat.update", error="edit_window_closed")
            with pytest.raises(WriteRefused):
                await surface.edit(first, Page(0, "First page.", final=True))
            await surface.post(Page(0, "First page.", final=True))

        assert scene.texts() == ["First", "Sec", "First page."]


async def test_a_page_that_is_sent_anew_is_found_by_its_number() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        first = await surface.post(Page(0, "First", final=True))
        scene.slack.fail("chat.update", error="edit_window_closed")
        with pytest.raises(WriteRefused):
            await surface.edit(first, growing("First page"))
        scene.slack.fail("chat.postMessage", "drop", applied=True)
        with pytest.raises(WriteFailed):
            await surface.post(growing("First page"))

        await surface.post(growing("First page."))

        assert scene.texts() == ["First", "First page."]
        assert not scene.calls("chat.startStream")


@pytest.mark.parametrize("end", ["finished", "left", "stopped"])
async def test_a_stream_that_ended_is_found_as_its_page(end: str) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))
            if end == "stopped":
                await scene.stop()
            page = growing("Or so" if end == "left" else "Because so")
            await surface.edit(message_id, replace(page, final=end == "finished"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            found = await surface.post(Page(0, "Because so.", final=True))

        assert found == message_id
        assert scene.texts() == ["Because so."]


async def test_a_streaming_page_that_the_answer_does_not_need_is_deleted(store: Store) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_ids = [
                await surface.post(Page(0, "First page.", final=True)),
                await surface.post(Page(1, "Sec", final=False, said="Sec")),
            ]

        await scene.answer(store, ["An answer that is short."], message_ids=message_ids, older="")

        assert scene.texts() == ["An answer that is short."]


async def test_orphaned_messages_are_those_of_the_turn_except_its_pages() -> None:
    async with make_scene() as scene:
        thread = str(scene.turn.place["thread"])
        async with scene.platform.surface(scene.turn) as surface:
            page = await surface.post(Page(0, "Because so.", final=True))
            twice = await surface.post(Page(0, "Because so.", final=True))
            running = await surface.post(Page(1, "And", final=False, said="And"))
        async with scene.platform.surface(await scene.asks_on()) as surface:
            await surface.post(Page(0, "Another answer.", final=True))
        scene.slack.stream_of_another(scene.slack.channel_id, thread, "Mine.")

        orphans = await scene.platform.orphaned_messages(scene.turn, but=[page])

        assert orphans == [twice, running]


async def test_a_page_that_can_be_stopped_after_its_end_is_found() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            ended = await surface.post(Page(0, "Because so.", final=True, last=True))
            late = await surface.post(Page(0, "Because so.", final=True))
            await surface.edit(late, Page(0, "The model is busy.", final=False))

        found = await scene.platform.orphaned_messages(scene.turn, but=[ended, late])

        assert found == [late]


async def test_a_stream_that_the_turn_before_has_left_is_not_taken() -> None:
    async with make_scene() as scene:
        following = await scene.asks_on()
        async with scene.platform.surface(scene.turn) as surface:
            left = await surface.post(growing("Because"))
        following = replace(following, place={**following.place, "above": left})

        async with scene.platform.surface(following, Purpose.RESUME) as surface:
            await surface.post(Page(0, "Another answer.", final=True))

        assert scene.texts() == ["and?", "Because", "Another answer."]


async def test_an_orphaned_stream_is_deleted() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            orphan = await surface.post(growing("And"))

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.edit(orphan, Page(0, "", final=True))

        assert scene.texts() == []


async def test_a_finished_page_that_is_not_needed_is_deleted_at_once() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(Page(0, "First page.", final=True))

        await surface.edit(message_id, Page(0, "", final=True))

        assert scene.texts() == []
        assert not scene.calls("chat.stopStream")


async def test_an_apology_that_comes_late_takes_no_stream_of_a_turn_that_goes_on(
    store: Store,
) -> None:
    queue = make_queue(store)
    async with make_scene() as scene:
        await given_up_unseen(queue, scene.turn)
        following = await scene.asks_on()
        async with scene.platform.surface(following) as surface:
            message_id = await surface.post(growing("Because"))

            async with repairing(queue, scene.platform):
                await until(lambda: GivenUp.apology in scene.texts())
                await surface.edit(message_id, growing("Because so"))

            assert scene.texts() == ["and?", "Because so", GivenUp.apology]
