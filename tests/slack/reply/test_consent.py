"""A question for consent in Slack: as a message with buttons, and what the thread's status says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bot.domain import Page, Purpose, StepNote, StepNotes
from bot.errors import WriteFailed
from tests.emulators.slack.sessions import STATUS_CHARACTERS
from tests.slack.reply.test_streams import MARKUP
from tests.support.slack_scene import Scene, growing, make_scene
from tests.support.waiting import until

CALL = "aB3dE6gH9"
QUESTION = 'May I call `create_ticket` on `tracker` with `{"title": "<!channel>"}`?'
LABELS = ("Allow", "Allow always", "Deny")


def doing(what: str) -> StepNotes:
    return StepNotes((StepNote("c1", what),))


SEARCHING = doing("Searching the web")


def asking(said: str = "", *, number: int = 0) -> Page:
    text = f"{said}\n\n{QUESTION}" if said else QUESTION
    return Page(number, text, final=False, said=said, sign=QUESTION, consent=CALL)


def in_dm(scene: Scene) -> Scene:
    dm = scene.slack.dm(scene.turn.person.id)
    place = {"channel": dm, "thread": None, "question": scene.turn.place["question"]}
    scene.turn = replace(scene.turn, place=place)
    return scene


async def test_a_question_for_consent_has_three_buttons_in_place_of_stop() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        await surface.post(asking())

        [shown] = scene.replies()
        values = [scene.slack.value(shown.channel_id, shown.ts, it) for it in shown.buttons]
        assert (shown.text, shown.labels) == (QUESTION, LABELS)
        assert shown.buttons == ("allow", "always", "deny")
        assert values == [f"{CALL}:{scene.turn.id}"] * 3
        assert not scene.calls("chat.startStream")
        assert not scene.slack.pings


async def test_a_stream_becomes_a_message_with_the_question() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("I"))
            await surface.edit(message_id, growing("I look"))
            await surface.edit(message_id, asking("I look."))

        [shown] = scene.replies()
        assert (shown.text, shown.labels) == (f"I look.\n\n{QUESTION}", LABELS)
        assert scene.calls("chat.stopStream") == 1
        assert not scene.calls("chat.update")


@pytest.mark.parametrize("chunk", [1, 7, 1000])
async def test_any_markup_stands_exactly_above_the_question(chunk: int) -> None:
    text = "".join(MARKUP)
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing(text[:chunk]))
        for end in range(2 * chunk, len(text) + chunk, chunk):
            await surface.edit(message_id, growing(text[:end]))
        await surface.edit(message_id, asking(text))

        assert scene.texts() == [f"{text}\n\n{QUESTION}"]
        assert not scene.slack.pings


async def test_a_stream_that_cannot_show_the_question_is_ended_and_updated() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        await surface.edit(message_id, asking("Or so."))

        [shown] = scene.replies()
        assert (shown.text, shown.labels) == (f"Or so.\n\n{QUESTION}", LABELS)


@pytest.mark.parametrize("method", ["chat.stopStream", "chat.postMessage"])
async def test_an_answer_that_is_lost_asks_once(method: str) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = ""
            if method == "chat.stopStream":
                message_id = await surface.post(growing("I look."))
            scene.slack.fail(method, "drop", applied=True)
            write = surface.edit(message_id, asking("I look.")) if message_id else None
            with pytest.raises(WriteFailed):
                await (write or surface.post(asking("I look.")))
            if message_id:
                await surface.edit(message_id, asking("I look."))
            else:
                await surface.post(asking("I look."))

        assert [one.labels for one in scene.replies()] == [LABELS]


async def test_after_the_answer_the_reply_goes_on_in_the_same_message() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("I look."))
            await surface.edit(message_id, asking("I look."))
        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            await surface.edit(message_id, growing("I look.\n\nIt is"))
            between = scene.replies()
            whole = Page(0, "I look.\n\nIt is done.", final=True, last=True)
            await surface.edit(message_id, whole)

        assert [(one.text, one.buttons) for one in between] == [("I look.\n\nIt is", ("stop",))]
        assert scene.texts() == ["I look.\n\nIt is done."]
        assert scene.replies()[0].buttons == ("regenerate",)
        assert not scene.calls("conversations.replies")


@pytest.mark.parametrize("streams", [True, False])
async def test_while_a_person_is_asked_nothing_says_that_we_are_at_work(streams: bool) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await until(scene.status)
            if streams:
                message_id = await surface.post(growing("I look."))
                surface.note_step(SEARCHING)
                await until(scene.status)
                await surface.edit(message_id, asking("I look."))
            else:
                await surface.post(asking())
        waiting = scene.session()[-1], scene.status()
        async with scene.platform.surface(scene.turn, Purpose.RESUME):
            await until(scene.status)
            at_work = scene.session()[-1]

        assert waiting == ("suspended", "")
        assert at_work == "processing"
        assert (scene.session()[-1], scene.status()) == ("active", "")


async def test_a_session_that_no_status_line_could_wake_is_not_suspended() -> None:
    async with make_scene() as scene:
        scene.slack.fail("assistant.threads.setStatus", error="missing_scope", times=9)
        async with scene.platform.surface(scene.turn) as surface:
            await until(lambda: scene.calls("assistant.threads.setStatus"))
            await until(lambda: not surface.shows_work)
            await surface.post(asking())

        assert not scene.calls("agents.sessions.setStatus")


async def test_at_the_top_level_of_a_dm_the_question_has_its_buttons_too() -> None:
    async with make_scene() as scene, scene.platform.surface(in_dm(scene).turn) as surface:
        message_id = await surface.post(growing("I look."))
        await surface.edit(message_id, asking("I look."))

        shown = scene.slack.screen(str(scene.turn.place["channel"]))[-1]
        assert (shown.text, shown.labels) == (f"I look.\n\n{QUESTION}", LABELS)
        assert not scene.calls("agents.sessions.setStatus")


async def test_a_repair_finds_a_question_that_was_written_too_late() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(asking())

        found = await scene.platform.orphaned_messages(scene.turn, but=[message_id])

        assert found == [message_id]


async def test_the_status_line_says_what_is_done_now() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            seen = surface.note_step(SEARCHING)
            await until(lambda: scene.status() == "is searching the web…")
            await surface.post(growing("I have"))
            below = surface.note_step(doing("Calling `read` on `<!here>`"))
            await until(lambda: scene.status() == "is calling read on (!here)…")
            surface.note_step(StepNotes(()))
            await until(lambda: scene.status() == "is thinking...")

        # A stream has a card, too.
        assert (seen, below) == (True, False)
        assert scene.status() == ""
        assert scene.texts() == ["I have"]


async def test_a_long_step_fits_the_status_line() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        surface.note_step(doing(f"Calling {'x' * 100}"))
        await until(lambda: "xxx" in scene.status())

        assert len(scene.status()) == STATUS_CHARACTERS


async def test_a_step_that_has_just_begun_leaves_no_status_line_behind() -> None:
    begun = asyncio.Event()
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await until(scene.status)
            await surface.post(growing("I have"))
            scene.slack.fail("assistant.threads.setStatus", "late", gate=begun)
            surface.note_step(SEARCHING)
            await until(lambda: not scene.slack.pending_faults)
            asyncio.get_running_loop().call_later(0.1, begun.set)  # time for the end

        lines = scene.slack.status(scene.slack.channel_id, str(scene.turn.place["thread"]))
        assert lines[-2:] == ["is searching the web…", ""]


async def test_a_step_is_not_in_the_status_line_where_a_message_is_updated() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(asking())
            posted = surface.note_step(SEARCHING)
        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            resumed = surface.note_step(SEARCHING)
            await surface.edit(message_id, growing("Done"))
        async with scene.platform.surface(in_dm(scene).turn) as surface:
            alone = surface.note_step(SEARCHING)

        assert (posted, resumed, alone) == (False, False, False)
