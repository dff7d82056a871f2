"""Replies that grow in Slack's own streams, and what becomes of them when Slack says no."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.slack.limits import Limits
from adapters.slack.markup import markdown_block
from adapters.slack.reply.streams import addition, streamed
from bot.domain import Delta, Page, Turn
from bot.errors import WriteFailed
from bot.reply.draft import WAITING
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.emulators.slack.streams import SECONDS
from tests.support.replies import spoken
from tests.support.slack_platform import LIMITS
from tests.support.slack_scene import TEXT, WORDS, growing, make_scene
from tests.support.waiting import until

EXPIRED = replace(LIMITS, stream_seconds=0.0)

MARKUP = [
    *(
        "Some **bold",
        " words** and ",
        "`co",
        "de`, a [li",
        "nk](https://exa",
        "mple.org?a=1&b=2).\n\n",
    ),
    *("| a | b |\n|--", "-|---|\n| 1 ", "| 2 |\n\n", "Then &l", "t;!channel&g", "t; & <!here>\n"),
    *("```py\nif a < b", " && c:\n    pass\n", "```\nDone. 5 * 3 = 15"),
]


async def test_a_reply_in_a_thread_grows_in_one_stream(store: Store) -> None:
    async with make_scene() as scene:
        await scene.answer(store, WORDS)

        (shown,) = scene.replies()
        states = scene.slack.states(shown.channel_id, shown.ts)
        assert shown.text.strip() == TEXT.strip()
        assert len(states) > 3
        assert all(TEXT.startswith(state.rstrip()) for state in states)
        assert scene.calls("chat.startStream") == scene.calls("chat.stopStream") == 1
        assert not scene.calls("chat.update")


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
async def test_any_markup_in_any_pieces_stands_there_exactly(store: Store, chunk: int) -> None:
    text = "".join(MARKUP)
    pieces = [text[at : at + chunk] for at in range(0, len(text), chunk)]
    async with make_scene() as scene:
        await scene.answer(store, pieces, pause=0.001)

        assert scene.texts() == [text]
        assert scene.slack.pings == []


async def test_no_half_written_markup_is_ever_added(store: Store) -> None:
    async with make_scene() as scene:
        await scene.answer(store, MARKUP, pause=0.02)

        (shown,) = scene.replies()
        states = scene.slack.states(shown.channel_id, shown.ts)[:-1]
        assert all(state.count("**") % 2 == 0 for state in states)
        assert not any("[li" in state and "mple.org" not in state for state in states)
        assert not any("| a |" in state and "|---|---|" not in state for state in states)


async def test_at_the_top_level_of_a_dm_a_reply_is_posted_and_updated(store: Store) -> None:
    async with make_scene() as scene:
        dm = scene.slack.dm(scene.turn.person.id)
        place = {"channel": dm, "thread": None, "question": scene.turn.place["question"]}
        scene.turn = Turn(
            scene.turn.id, scene.turn.key, scene.turn.person, "why?", place, time.time()
        )

        await scene.answer(store, WORDS)

        assert scene.slack.screen(dm)[-1].text.strip() == TEXT.strip()
        assert not scene.calls("chat.startStream")


@pytest.mark.parametrize("error", ["feature_not_enabled", "missing_recipient_user_id"])
async def test_where_slack_wants_no_stream_the_reply_is_posted_and_updated(
    store: Store, error: str
) -> None:
    async with make_scene() as scene:
        scene.slack.fail("chat.startStream", error=error, times=9)

        await scene.answer(store, WORDS)
        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2
        # An app that may not is not asked again; a place is.
        assert scene.calls("chat.startStream") == (1 if error == "feature_not_enabled" else 2)


@pytest.mark.parametrize("reason", ["expired", "msg_too_long"])
async def test_a_stream_that_takes_no_more_goes_on_by_update(store: Store, reason: str) -> None:
    async with make_scene() as scene:
        if reason == "expired":
            scene.slack.streams.seconds = 0.1
        else:
            scene.slack.fail("chat.appendStream", error=reason, times=99, after=1)
        said, appends = list[str](), list[int]()

        async def words() -> AsyncGenerator[Delta]:
            # Up to the first update, and some more.
            while len(appends) < 10 and len(said) < 2000:
                said.append(f"word{len(said)} ")
                yield said[-1]
                await asyncio.sleep(0.03)
                if scene.calls("chat.update"):
                    appends.append(scene.calls("chat.appendStream"))

        await scene.stream(store, words())

        assert [text.strip() for text in scene.texts()] == ["".join(said).strip()]
        assert appends == [appends[0]] * 10
        assert scene.calls("chat.appendStream") == appends[0]


@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
async def test_an_answer_that_is_lost_doubles_nothing(store: Store, method: str) -> None:
    async with make_scene() as scene:
        scene.slack.fail(method, "drop", applied=True)

        await scene.grow(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


def test_a_stream_is_ended_before_slack_ends_it() -> None:
    assert Limits().stream_seconds < SECONDS


async def test_a_message_goes_on_by_update_when_its_stream_expires(store: Store) -> None:
    async with make_scene(limits=EXPIRED) as scene:
        await scene.grow(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert scene.calls("chat.startStream") == scene.calls("chat.stopStream") == 1
        assert scene.calls("chat.update") > 1
        assert not scene.calls("chat.appendStream")


async def test_the_end_of_an_answer_needs_no_update_when_its_stream_expires() -> None:
    async with make_scene(limits=EXPIRED) as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))

        await surface.edit(message_id, Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]
        assert not scene.calls("chat.update")


async def test_a_stream_that_cannot_grow_as_it_should_is_ended_once_and_updated() -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))
            await surface.edit(message_id, growing("Or so"))
            await surface.edit(message_id, growing("Or so it"))

        assert scene.texts() == ["Or so it"]
        methods = ("chat.stopStream", "chat.update", "agents.sessions.setStatus")
        assert [scene.calls(method) for method in methods] == [1, 2, 0]


async def test_a_stream_without_text_is_deleted() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("&"))

        await surface.edit(message_id, Page(0, "", final=True))

        assert not scene.replies()


async def test_a_page_that_is_cut_shorter_than_it_stood_there_is_updated(store: Store) -> None:
    long = ("A sentence of some words. " * 12 + "\n\n") * 40
    async with make_scene() as scene:
        await scene.answer(store, [long[at : at + 200] for at in range(0, len(long), 200)])

        assert len(scene.texts()) > 2
        assert "".join(scene.texts()).split() == long.split()


async def test_after_slacks_own_stop_nothing_says_that_we_are_at_work(store: Store) -> None:
    async with make_scene() as scene:
        stopped, (first, second, *others) = asyncio.Event(), WORDS
        words = spoken(first, scene.writes, second, stopped.is_set, *others)
        answering = asyncio.create_task(scene.stream(store, words))
        await until(lambda: scene.calls("chat.appendStream"))

        await scene.stop()
        stopped.set()
        await answering

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert scene.session()[-1] == "active"
        assert scene.calls("agents.sessions.setStatus") == 1


async def test_an_ordinary_end_needs_no_session_request(store: Store) -> None:
    async with make_scene() as scene:
        await scene.answer(store, WORDS)

        assert scene.session()[-1] == "active"
        assert not scene.calls("agents.sessions.setStatus")


async def test_a_stream_that_stalls_shows_the_status_and_no_more_text(store: Store) -> None:
    timing = ReplyTiming(silence=0.05)
    heard = asyncio.Event()

    async def halting() -> AsyncGenerator[str]:
        yield "Because "
        await heard.wait()
        yield "so."

    async with make_scene() as scene:
        answering = asyncio.create_task(scene.stream(store, halting(), timing=timing))
        await until(scene.replies)
        await until(scene.status)
        heard.set()
        await answering

        (shown,) = scene.replies()
        states = scene.slack.states(shown.channel_id, shown.ts)
        assert [state.strip() for state in states] == ["Because", "Because so."]
        assert scene.status() == ""
        assert not scene.calls("chat.update")


async def test_a_stream_that_goes_silent_after_it_grew_shows_the_status() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        await surface.edit(message_id, growing("Because so"))
        before = scene.status()

        sign = Page(0, f"Because so\n\n{WAITING}", final=False, said="Because so")
        await surface.edit(message_id, sign)

        assert (before, bool(scene.status())) == ("", True)


async def test_a_sign_of_life_alone_begins_no_stream(store: Store) -> None:
    timing = ReplyTiming(first_silence=0.05)
    heard = asyncio.Event()

    async def late() -> AsyncGenerator[str]:
        await heard.wait()
        yield "Because so."

    async with make_scene() as scene:
        answering = asyncio.create_task(scene.stream(store, late(), timing=timing))
        await until(scene.replies)
        sign = scene.texts()
        heard.set()
        await answering

        assert sign == [WAITING]
        assert scene.texts() == ["Because so."]
        assert not scene.calls("chat.startStream")


async def test_a_stop_that_slack_refuses_doubles_nothing(store: Store) -> None:
    async with make_scene() as scene:
        # With rating buttons, and without.
        scene.slack.fail("chat.stopStream", error="invalid_blocks", times=2)

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        bare = [call for call in scene.slack.requests if call.method == "chat.stopStream"][-1]
        assert not {"chunks", "blocks"} & set(bare.body)
        assert not scene.calls("agents.sessions.setStatus")


async def test_a_stream_that_slack_does_not_let_end_is_tried_again_later(store: Store) -> None:
    async with make_scene() as scene:
        scene.slack.fail("chat.stopStream", error="invalid_arguments", times=99)

        with pytest.raises(WriteFailed):
            await scene.answer(store, WORDS, patience=0.1)

        assert len(scene.replies()) == 1


@pytest.mark.parametrize(
    "error", ["missing_scope", "not_allowed_token_type", "restricted_action", "no_permission"]
)
@pytest.mark.parametrize("method", ["chat.appendStream", "chat.stopStream"])
async def test_what_a_stream_may_not_an_update_may(store: Store, method: str, error: str) -> None:
    async with make_scene() as scene:
        scene.slack.fail(method, error=error)

        await scene.grow(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


async def test_only_what_was_said_stands_in_a_stream() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        await surface.post(Page(0, f"Because\n\n{WAITING}", final=False, said="Because"))

        assert scene.texts() == ["Because"]


async def test_a_page_that_is_whole_at_once_begins_no_stream() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        await surface.post(Page(0, "Because so.", final=True, last=True, said="Because so."))

        assert [shown.buttons for shown in scene.replies()] == [("regenerate",)]
        assert not scene.calls("chat.startStream")


async def test_a_page_whose_stream_has_ended_is_updated_at_once() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        await surface.edit(message_id, Page(0, "Because so.", final=True))

        await surface.edit(message_id, Page(0, "Because so. Stopped.", final=True))

        assert scene.texts() == ["Because so. Stopped."]
        assert scene.calls("chat.stopStream") == 1


async def test_a_page_that_stands_is_changed_while_another_streams() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        first = await surface.post(Page(0, "Red", final=True))
        await surface.post(Page(1, "Red", final=False, said="Red"))

        await surface.edit(first, Page(0, "Red and blue", final=True))

        assert scene.texts() == ["Red and blue", "Red"]


async def test_text_that_came_too_early_stays_and_the_stream_goes_on() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because so"))

        await surface.edit(message_id, growing("Because"))
        await surface.edit(message_id, growing("Because so it is."))

        assert scene.texts() == ["Because so it is."]
        assert not scene.calls("chat.update") + scene.calls("chat.stopStream")


async def test_the_last_page_keeps_its_button_where_it_was_streamed() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))

        await surface.edit(message_id, replace(growing("Because"), final=True, last=True))

        assert [shown.buttons for shown in scene.replies()] == [("regenerate",)]
        assert not scene.calls("chat.update")


async def test_a_deleted_stream_ends_the_turn(store: Store) -> None:
    async with make_scene() as scene:
        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.05))
        await until(scene.replies)

        await scene.slack.delete(scene.slack.channel_id, scene.replies()[0].ts)

        await asyncio.wait_for(answering, 60)
        assert scene.texts() == []


PIECES = [
    *(
        "&",
        "lt;",
        "gt",
        ";",
        "amp;",
        "#39;",
        "#x3c",
        "#0000000000060",
        "#" + "0" * 40 + "60;",
        "&#",
    ),
    *("<!channel>", "<@U1>", "word", "word ", "**", "`", "\n", "(", ")", "<", "[a](", "   ```\n"),
    *("https://", "https://a.example/?q=1", "https://a.example/?a&lt;!channel&gt;", "HTTPS://a"),
]


# An entity that two appends share, one of them with a number that is long.
@example(["&", "lt;"], [3])
@example(["&", "#0000000000060", ";", "!channel> "], [10, 20])
# An address in the middle of a word, or in code, is none to Slack.
@example(["word", "https://a.example/?a&lt;!channel&gt;", " "], [4, 100])
@example(["`", "https://a.example/?a&lt;!channel&gt;", "`"], [1, 100])
@given(st.lists(st.sampled_from(PIECES)), st.lists(st.integers(1, 20), min_size=1))
def test_what_is_added_piece_by_piece_is_the_text_and_never_a_mention(
    pieces: list[str], steps: list[int]
) -> None:
    text = "".join(pieces)
    stands, at, step = "", 0, 0

    while at < len(text):
        at += steps[step % len(steps)]
        step += 1
        page = Page(0, text[:at], final=at >= len(text), said=text[:at])
        more = addition(stands, page)
        # What cannot be added is updated as a whole.
        stands = streamed(page) if more is None else stands + more

    assert "<" not in stands
    assert stands == markdown_block(text)["text"]
