"""Replies that grow in Slack's own streams, and what becomes of them when Slack says no."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.slack import SlackPlatform, connect
from adapters.slack.markup import markdown_block
from adapters.slack.streams import streamed
from bot.budget import EditBudgets
from bot.domain import Page, Person, ThreadKey, Turn
from bot.errors import WriteFailed
from bot.guard import unescape
from bot.reply import Reply
from bot.store import Store
from tests.emulators.slack import Rate, Shown, SlackEmulator
from tests.fakes import FakeModel

UNLIMITED = Rate(calls=1000, seconds=1.0, burst=1000)
WORDS = [f"word{number} " for number in range(30)]
TEXT = "".join(WORDS)
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


@dataclass
class Scene:
    """A question in a thread of an emulated Slack, and the bot."""

    slack: SlackEmulator
    platform: SlackPlatform
    turn: Turn
    saved: list[Sequence[str]] = field(default_factory=list)

    def replies(self) -> list[Shown]:
        return self.slack.screen(self.slack.channel_id, str(self.turn.place["thread"]))[1:]

    def texts(self) -> list[str]:
        return [shown.text for shown in self.replies()]

    def calls(self, method: str) -> int:
        return sum(call.method == method for call in self.slack.requests)

    async def save(self, pages: Sequence[str], shown: str) -> None:
        self.saved.append(list(pages))

    async def answer(self, store: Store, deltas: Sequence[str], *, pause: float = 0.01) -> None:
        async with self.platform.surface(self.turn) as surface:
            reply = Reply(
                surface=surface,
                budgets=EditBudgets(store=store),
                pages=(),
                older="",
                former="",
                stop=asyncio.Event(),
                save=self.save,
                patience=5.0,
            )
            await reply.stream(FakeModel(deltas, pause=pause).stream([]))


@asynccontextmanager
async def a_scene(*, age: float = 0.0) -> AsyncIterator[Scene]:
    quick = dict.fromkeys(
        ("chat.startStream", "chat.appendStream", "chat.stopStream", "chat.update"), UNLIMITED
    )
    async with SlackEmulator(rates=quick | {"chat.postMessage": UNLIMITED}) as slack:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "why?")
        turn = Turn(
            id=f"slack:{slack.team_id}:{slack.channel_id}:{ts}",
            key=ThreadKey("slack", slack.team_id, slack.channel_id, ts),
            person=Person(ann, "Ann"),
            text="why?",
            place={"channel": slack.channel_id, "thread": ts, "question": ts},
            asked_at=time.time() - age,
        )
        async with connect(
            bot_token=slack.bot_token,
            app_token=slack.app_token,
            signing_secret=slack.signing_secret,
            api_url=slack.api_url,
        ) as platform:
            yield Scene(slack, platform, turn)


def growing(said: str) -> Page:
    return Page(0, said, final=False, said=said)


async def test_a_reply_in_a_thread_grows_in_one_stream(store: Store) -> None:
    async with a_scene() as scene:
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
    async with a_scene() as scene:
        await scene.answer(store, pieces, pause=0.001)

        assert scene.texts() == [text]
        assert scene.slack.pings == []


async def test_no_half_written_markup_is_ever_added(store: Store) -> None:
    async with a_scene() as scene:
        await scene.answer(store, MARKUP, pause=0.02)

        (shown,) = scene.replies()
        states = scene.slack.states(shown.channel_id, shown.ts)[:-1]
        assert all(state.count("**") % 2 == 0 for state in states)
        assert not any("[li" in state and "mple.org" not in state for state in states)
        assert not any("| a |" in state and "|---|---|" not in state for state in states)


async def test_at_the_top_level_of_a_dm_a_reply_is_posted_and_updated(store: Store) -> None:
    async with a_scene() as scene:
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
    async with a_scene() as scene:
        scene.slack.fail("chat.startStream", error=error, times=9)

        await scene.answer(store, WORDS)
        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2
        # An app that may not is not asked again; a place is.
        assert scene.calls("chat.startStream") == (1 if error == "feature_not_enabled" else 2)


@pytest.mark.parametrize("error", ["message_not_in_streaming_state", "msg_too_long"])
async def test_a_stream_that_takes_no_more_goes_on_by_update(store: Store, error: str) -> None:
    async with a_scene() as scene:
        scene.slack.fail("chat.appendStream", error=error, times=99, after=1)
        if error == "message_not_in_streaming_state":
            scene.slack.streams.seconds = 0.1

        await scene.answer(store, WORDS, pause=0.03)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
async def test_an_answer_that_is_lost_doubles_nothing(store: Store, method: str) -> None:
    async with a_scene() as scene:
        scene.slack.fail(method, "drop", applied=True)

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
async def test_a_pause_that_slack_asks_for_costs_no_word(store: Store, method: str) -> None:
    async with a_scene() as scene:
        scene.slack.fail(method, status=429, retry_after=1)

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert not scene.calls("chat.update")


async def test_a_stream_is_left_before_it_expires(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.1)
    async with a_scene() as scene:
        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert scene.calls("chat.update") > 1


async def test_a_stream_whose_beginner_died_is_ended_and_updated() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))

        async with scene.platform.surface(scene.turn) as surface:
            await surface.edit(message_id, Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_a_stream_that_nobody_knows_of_is_found_by_the_next_try() -> None:
    async with a_scene(age=10.0) as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))

        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_the_stream_of_a_page_that_is_known_is_no_other_pages() -> None:
    async with a_scene(age=10.0) as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("First"))

        async with scene.platform.surface(scene.turn) as surface:
            await surface.edit(message_id, Page(0, "First page.", final=True))
            await surface.post(Page(1, "Second page.", final=True))

        assert scene.texts() == ["First page.", "Second page."]


async def test_a_page_that_is_cut_shorter_than_it_stood_there_is_updated(store: Store) -> None:
    long = ("A sentence of some words. " * 12 + "\n\n") * 40
    async with a_scene() as scene:
        await scene.answer(store, [long[at : at + 200] for at in range(0, len(long), 200)])

        assert len(scene.texts()) > 2
        assert "".join(scene.texts()).split() == long.split()


async def test_a_deleted_stream_ends_the_turn(store: Store) -> None:
    async with a_scene() as scene:
        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.05))
        while not scene.replies():
            await asyncio.sleep(0.01)

        await scene.slack.delete(scene.slack.channel_id, scene.replies()[0].ts)

        await asyncio.wait_for(answering, 5)
        assert scene.texts() == []


async def test_a_failure_within_a_stream_is_told() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because "))
        scene.slack.fail("chat.appendStream")

        with pytest.raises(WriteFailed):
            await surface.edit(message_id, growing("Because so. "))


PIECES = ["&", "lt;", "gt", ";", "amp;", "<!channel>", "<@U1>", "word ", "**", "`", "\n", "#39;"]


@given(st.lists(st.sampled_from(PIECES)), st.lists(st.integers(1, 20), min_size=1))
def test_what_is_added_piece_by_piece_is_the_text_and_never_a_mention(
    pieces: list[str], steps: list[int]
) -> None:
    text = "".join(pieces)
    added, stands, at, step = "", "", 0, 0

    while at < len(text):
        at += steps[step % len(steps)]
        step += 1
        page = Page(0, text[:at], final=at >= len(text), said=text[:at])
        words = streamed(page)
        if words.startswith(stands):
            added += markdown_block(words[len(stands) :])["text"]
            stands = words

    assert "<" not in added
    assert unescape(added) == text
