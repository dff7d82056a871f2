"""Calls of tools as cards in a stream of Slack, and what becomes of them when Slack says no."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from bot.domain import Page, Purpose, StepNote, StepNotes
from bot.reply.draft import STOPPED
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.support.replies import make_reply, spoken
from tests.support.slack_scene import Scene, growing, make_scene

SEARCH = StepNote("c1", "Searching the web")
FOUND = StepNote("c1", "Searching the web", "done")
LINE = "(Steps: Searching the web: done.)"
WAITS = StepNote("c2", "Calling `create`", "waits to be allowed")
QUESTION = "May I call `create` with `{}`?"
DONE = ("Searching the web", "complete")


def cards(scene: Scene) -> list[tuple[tuple[str, str], ...]]:
    return [one.cards for one in scene.replies()]


def texts(scene: Scene) -> list[str]:
    """Return the texts with one newline between paragraphs, which may be in blocks of their own."""
    return [re.sub("\n+", "\n", text) for text in scene.texts()]


def has(scene: Scene, *wanted: tuple[str, str]) -> Callable[[], bool]:
    return lambda: cards(scene)[-1:] == [wanted]


async def test_a_call_has_a_card_in_place_of_its_line(store: Store) -> None:
    async with make_scene() as scene:
        running, ended = StepNotes((SEARCH,)), StepNotes((FOUND,))
        await scene.stream(
            store,
            spoken(
                *("I look.", scene.writes),
                *(running, has(scene, ("Searching the web", "in_progress"))),
                *(ended, has(scene, DONE), "\n\nIt is Ann."),
            ),
            timing=ReplyTiming(silence=3600.0),
        )

        assert texts(scene) == ["I look.\nIt is Ann."]
        assert cards(scene) == [(DONE,)]
        # The history, and whatever writes the message again, has the line.
        assert scene.shown == f"I look.\n\nIt is Ann.\n\n{LINE}"
        assert not scene.calls("chat.update")


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        ("I look at `a", "b` now."),
        ("```\na = 1", "0\n```\nIt is."),
        ("| a | b |\n| --", "- | --- |\n| 1 | 2 |"),
    ],
)
async def test_cards_break_nothing_that_is_half_written(store: Store, said: str, rest: str) -> None:
    async with make_scene() as scene:
        deltas = spoken("So:\n", scene.writes, said, 0.1, StepNotes((FOUND,)), 0.1, rest)
        await scene.stream(store, deltas)

        assert scene.texts() == [f"So:\n{said}{rest}"]
        assert cards(scene) == [(DONE,)]


async def test_a_call_that_begins_while_the_stream_is_started_has_its_card_soon(
    store: Store,
) -> None:
    async with make_scene() as scene:
        may_start = asyncio.Event()
        scene.slack.fail("chat.startStream", "late", gate=may_start)

        def starts() -> bool:
            may_start.set()
            return True

        deltas = spoken(
            *("I look.", lambda: not scene.slack.pending_faults, StepNotes((SEARCH,)), starts),
            *(has(scene, ("Searching the web", "in_progress")), StepNotes((FOUND,)), " It is Ann."),
        )
        await scene.stream(store, deltas, timing=ReplyTiming(silence=3600.0))

        assert cards(scene) == [(DONE,)]


async def test_calls_before_the_first_words_have_their_cards_above_them(store: Store) -> None:
    async with make_scene() as scene:
        notes = FOUND, StepNote("c2", "Calling `create` on `office`", "denied")
        await scene.stream(store, spoken(StepNotes(notes), "It is", scene.writes, " Ann."))

        denied = ("Calling create on office: denied", "error")
        (begun,) = [it.body for it in scene.slack.requests if it.method == "chat.startStream"]
        kinds = ["plan_update", "task_update", "task_update", "markdown_text"]
        assert (scene.texts(), cards(scene)) == (["It is Ann."], [(DONE, denied)])
        assert [chunk["type"] for chunk in cast("Any", begun["chunks"])] == kinds


async def test_other_notes_stand_below_an_answer_with_cards(store: Store) -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        surface.note_step(StepNotes((FOUND,)))
        said = "It is Ann.  \n"
        message_id = await surface.post(growing(said))
        text = f"{said}\n\n{LINE}\n\n(Other note.)"
        await surface.edit(message_id, Page(0, text, final=True, last=True, steps=LINE))

        assert scene.texts() == [f"{said}\n\n(Other note.)"]


async def test_what_a_model_calls_makes_no_mention_and_no_link(store: Store) -> None:
    async with make_scene() as scene:
        named = f"Calling `<!channel> https://example.org {'x' * 100}`"
        note = StepNote("c1", named, "failed")
        await scene.stream(store, spoken(StepNotes((note,)), "It is", scene.writes, " Ann."))

        ((title, status),) = cards(scene)[0]
        assert title.startswith("Calling (!channel) https: example.org xxx")
        assert (len(title), status) == (80, "error")
        assert not scene.slack.pings


async def test_a_call_that_a_person_stops_is_not_known(store: Store) -> None:
    async with make_scene() as scene:
        stop = asyncio.Event()
        running = has(scene, ("Searching the web", "in_progress"))
        deltas = spoken("I look.", scene.writes, StepNotes((SEARCH,)), running, stop.set, 60)
        async with scene.platform.surface(scene.turn) as surface:
            reply = make_reply(store, surface, saved=scene.save, stop=stop)
            await reply.stream(deltas)

        assert texts(scene) == [f"I look.\n{STOPPED}"]
        assert cards(scene) == [(("Searching the web: not known", "error"),)]


async def test_a_call_that_outlasts_a_message_goes_on_in_the_next() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        surface.note_step(StepNotes((SEARCH,)))
        first = await surface.post(growing("I look."))
        await surface.edit(first, Page(0, "I look.", final=True))
        await surface.post(Page(1, "And", final=False, said="And"))

        running = ("Searching the web", "in_progress")
        assert cards(scene) == [(DONE,), (running,)]


async def test_cards_that_an_update_takes_away_stand_in_the_next_message() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        surface.note_step(StepNotes((FOUND,)))
        first = await surface.post(growing("Because"))
        await surface.edit(first, Page(0, "Or so.", final=True))
        second = await surface.post(Page(1, "And", final=False, said="And"))
        text = f"And that.\n\n{LINE}"
        await surface.edit(second, Page(1, text, final=True, last=True, steps=LINE))

        assert scene.texts() == ["Or so.", "And that."]
        assert cards(scene) == [(), (DONE,)]


async def test_of_very_many_calls_the_line_tells_all(store: Store) -> None:
    async with make_scene() as scene:
        notes = tuple(StepNote(f"c{number}", "Searching the web", "done") for number in range(64))
        await scene.stream(store, spoken(StepNotes(notes), "It is", scene.writes, " Ann."))

        assert scene.texts() == ["It is Ann.\n\n(Steps: Searching the web: done (64 times).)"]
        assert cards(scene) == [(DONE,) * 20]


@pytest.mark.parametrize("error", ["invalid_arguments", "invalid_chunks"])
@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
async def test_where_slack_wants_no_cards_the_line_tells_the_calls(
    store: Store, method: str, error: str
) -> None:
    async with make_scene() as scene:
        scene.slack.fail(method, error=error)

        def refused() -> bool:
            return method == "chat.stopStream" or not scene.slack.pending_faults

        for _ in range(2):
            deltas = spoken("I look.", scene.writes, StepNotes((FOUND,)), refused, "\n\nIt is Ann.")
            await scene.stream(store, deltas)

        assert texts(scene) == [f"I look.\nIt is Ann.\n{LINE}"] * 2
        assert cards(scene)[1] == ()
        assert not scene.calls("chat.update")


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("waiting", ["waits to be allowed", "waits for an answer"])
async def test_while_a_person_is_asked_the_stream_is_suspended(waiting: str, refuses: bool) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("I look."))
            surface.note_step(StepNotes((FOUND, replace(WAITS, outcome=waiting))))
            if refuses:
                scene.slack.fail("chat.stopStream", error="invalid_arguments")
            text = f"I look.\n\n{QUESTION}"
            asking = Page(0, text, final=False, said="I look.", sign=QUESTION, consent="c2")
            await surface.edit(message_id, asking)
            state, shown = scene.session()[-1], scene.replies()
        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            surface.note_step(StepNotes((FOUND, StepNote("c2", "Calling `create`", "done"))))
            await surface.edit(message_id, growing("I look.\n\nIt"))
            line = "(Steps: Searching the web: done; Calling `create`: done.)"
            whole = f"I look.\n\nIt is done.\n\n{line}"
            await surface.edit(message_id, Page(0, whole, final=True, last=True, steps=line))

        waits = (f"Calling create: {waiting}", "pending")
        assert [(one.text, one.cards) for one in shown] == [
            (text, () if refuses else (DONE, waits))
        ]
        assert state == ("active" if refuses else "suspended")
        assert (scene.texts(), cards(scene)) == ([whole], [()])


async def test_after_a_crash_the_calls_stand_there_once(store: Store) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            surface.note_step(StepNotes((FOUND,)))
            message_id = await surface.post(growing("It is"))
        await scene.stream(
            store,
            spoken(StepNotes((FOUND,)), "It is", " Ann."),
            [message_id],
            "It is",
            purpose=Purpose.RESUME,
        )

        assert (scene.texts(), cards(scene)) == ([f"It is Ann.\n\n{LINE}"], [()])
