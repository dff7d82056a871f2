"""Replies that grow in Slack's own streams, and what becomes of them when Slack says no."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.slack import SlackPlatform, connect, streams
from adapters.slack.markup import markdown_block
from adapters.slack.streams import Budgets, streamed
from bot.budget import EditBudgets
from bot.domain import Delta, EditBudget, Page, Person, ThreadKey, Turn
from bot.domain import Shown as Left
from bot.draft import WAITING
from bot.errors import GivenUp, PageFull, WriteDelayed, WriteFailed, WriteRefused
from bot.guard import unescape
from bot.reply import Reply, restore
from bot.store import Store
from tests.at_work import a_queue
from tests.emulators.slack import Call, Rate, Shown, SlackEmulator
from tests.emulators.slack.rates import CHANNEL, TIER_2, TIER_3, TIER_4
from tests.emulators.slack.streams import SECONDS
from tests.fakes import FakeModel, NoLimits, bucket_of
from tests.test_mender import given_up_unseen, mending
from tests.waiting import until

UNLIMITED = Rate(calls=1000, seconds=1.0, burst=1000)
WORDS = [f"word{number} " for number in range(30)]
TEXT = "".join(WORDS)
LONG = "".join(f"word{number:04} " for number in range(600))  # two pages
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
    shown: str = ""
    cuts: tuple[int, ...] = ()

    def replies(self) -> list[Shown]:
        return self.slack.screen(self.slack.channel_id, str(self.turn.place["thread"]))[1:]

    def texts(self) -> list[str]:
        return [shown.text for shown in self.replies()]

    def calls(self, method: str) -> int:
        return sum(call.method == method for call in self.slack.requests)

    async def save(self, shown: Left) -> None:
        self.saved.append(list(shown.pages))
        self.shown, self.cuts = shown.text, shown.cuts

    def session(self) -> list[str]:
        return self.slack.session(self.slack.channel_id, str(self.turn.place["thread"]))

    def status(self) -> str:
        return self.slack.shown_status(self.slack.channel_id, str(self.turn.place["thread"]))

    async def asks_on(self) -> Turn:
        """Another turn in the thread."""
        thread = str(self.turn.place["thread"])
        ts = await self.slack.say(
            self.slack.channel_id, self.turn.person.id, "and?", thread_ts=thread
        )
        place = {**self.turn.place, "question": ts}
        id_ = f"slack:{self.slack.team_id}:{self.slack.channel_id}:{ts}"
        return replace(self.turn, id=id_, place=place)

    async def take_strays_away(self, left: Left) -> None:
        """What a worker does some time after a turn that several tries were made at."""
        strays = await self.platform.strays(self.turn, but=left.pages)
        async with self.platform.surface(self.turn, again=True) as surface:
            for stray in strays:
                await surface.edit(stray, Page(0, "", final=True))

    async def stop(self) -> None:
        """Let the person press Slack's own Stop."""
        thread = str(self.turn.place["thread"])
        await self.slack.stop(self.slack.channel_id, thread, self.turn.person.id)

    async def answer(
        self,
        store: Store,
        deltas: Sequence[str],
        *,
        pause: float = 0.01,
        pages: Sequence[str] = (),
        older: str = "",
        patience: float = 5.0,
        again: bool = False,
        cuts: Sequence[int] = (),
    ) -> None:
        said = FakeModel(deltas, pause=pause).stream([])
        await self.stream(store, said, pages, older, patience=patience, again=again, cuts=cuts)

    async def stream(
        self,
        store: Store,
        deltas: AsyncGenerator[Delta],
        pages: Sequence[str] = (),
        older: str = "",
        *,
        patience: float = 5.0,
        again: bool = False,
        cuts: Sequence[int] = (),
    ) -> None:
        async with self.platform.surface(self.turn, again=again) as surface:
            reply = Reply(
                surface=surface,
                budgets=EditBudgets(store=store),
                left=Left(tuple(pages), older, older, cuts=tuple(cuts)),
                former="",
                stop=asyncio.Event(),
                save=self.save,
                patience=patience,
            )
            await reply.stream(deltas)


@asynccontextmanager
async def a_scene(budgets: Budgets | None = None) -> AsyncIterator[Scene]:
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
            asked_at=time.time(),
        )
        async with a_process(slack, budgets or NoLimits()) as platform:
            yield Scene(slack, platform, turn)


@asynccontextmanager
async def a_process(slack: SlackEmulator, budgets: Budgets) -> AsyncIterator[SlackPlatform]:
    async with connect(
        bot_token=slack.bot_token,
        app_token=slack.app_token,
        signing_secret=slack.signing_secret,
        api_url=slack.api_url,
        budgets=budgets,
    ) as platform:
        yield platform


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
        assert scene.calls("chat.appendStream") <= 2


@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
async def test_an_answer_that_is_lost_doubles_nothing(store: Store, method: str) -> None:
    async with a_scene() as scene:
        scene.slack.fail(method, "drop", applied=True)

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


@pytest.mark.parametrize("method", ["chat.appendStream", "chat.stopStream"])
async def test_a_pause_that_slack_asks_for_costs_no_word(store: Store, method: str) -> None:
    async with a_scene() as scene:
        scene.slack.fail(method, status=429, retry_after=1)

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert not scene.calls("chat.update")


async def test_while_slack_wants_no_stream_begun_a_page_is_posted_at_once(store: Store) -> None:
    async with a_scene() as scene:
        scene.slack.fail("chat.startStream", status=429, retry_after=60)

        async with asyncio.timeout(5):
            await scene.answer(store, WORDS)
            assert scene.calls("chat.update") > 2
            await scene.answer(store, WORDS)
        scene.slack.clock.advance(60)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2
        assert scene.calls("chat.startStream") == 1


async def test_a_pause_of_starts_is_known_to_all_processes(store: Store) -> None:
    async with a_scene(EditBudgets(store=store)) as scene:
        scene.slack.fail("chat.startStream", status=429, retry_after=60)
        await scene.answer(store, WORDS)

        async with a_process(scene.slack, EditBudgets(store=store)) as scene.platform:
            async with asyncio.timeout(3):
                await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2
        assert scene.calls("chat.startStream") == 1


async def test_where_as_many_streams_were_begun_as_may_be_a_page_is_posted_at_once(
    store: Store,
) -> None:
    budgets = EditBudgets(store=store)
    async with a_scene(budgets) as scene:
        starts = EditBudget(f"slack:start:{scene.slack.team_id}", 20, 60.0, refills=True)
        for _ in range(20):
            await budgets.final(starts, deadline=math.inf)

        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.03))
        await until(scene.texts, within=2)
        await answering

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert not scene.calls("chat.startStream")


async def test_what_is_posted_instead_of_a_stream_takes_a_slot_for_it(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with a_scene(budgets) as scene:
        scene.slack.fail("chat.startStream", status=429, retry_after=60)
        posts = f"slack:post:{scene.slack.channel_id}"
        await budgets.pause(EditBudget(posts, 5, 5.2, refills=True), 0.5)

        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.03))
        await until(lambda: scene.calls("chat.startStream"))
        await asyncio.sleep(0.2)
        early = scene.texts()
        await answering

        assert early == []
        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


async def test_twenty_streams_begin_at_once_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no slot comes back meanwhile.
    monkeypatch.setattr("adapters.slack.streams._MINUTE", 6000.0)
    async with a_scene(EditBudgets(store=store)) as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await asyncio.gather(*(surface.post(growing("Because")) for _ in range(20)))
            begun = scene.calls("chat.startStream"), scene.calls("chat.postMessage")
            with pytest.raises(WriteDelayed):
                await surface.post(growing("Because"))

        assert begun == (20, 0)
        assert scene.calls("chat.startStream") == 20


def test_a_page_ends_before_slack_ends_its_stream() -> None:
    assert streams._SECONDS < SECONDS


async def test_a_reply_goes_on_in_another_stream_before_slack_ends_the_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.5)
    async with a_scene() as scene:
        scene.slack.streams.seconds = 1.0
        await scene.answer(store, WORDS, pause=0.06)

        assert len(scene.texts()) > 2
        assert " ".join(text.strip() for text in scene.texts()) == TEXT.strip()
        assert scene.calls("chat.startStream") == scene.calls("chat.stopStream")
        assert len(scene.texts()) == scene.calls("chat.startStream")
        assert [shown.buttons for shown in scene.replies()][:-1] == [()] * (len(scene.texts()) - 1)


async def test_a_fence_is_closed_and_opened_where_a_stream_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.3)
    lines = [f"line_{number} = {number}\n" for number in range(12)]
    async with a_scene() as scene:
        await scene.answer(store, ["```py\n", *lines, "```"], pause=0.05)

        texts = scene.texts()
        assert len(texts) > 1
        assert all(text.startswith("```py\n") and text.endswith("```") for text in texts)
        assert [line + "\n" for text in texts for line in text.splitlines()[1:-1]] == lines


async def test_nothing_rolls_over_while_the_model_is_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.2)
    monkeypatch.setattr("bot.reply.SILENCE", 0.05)
    heard = asyncio.Event()

    async def halting() -> AsyncGenerator[str]:
        yield "First words. And"
        await heard.wait()
        yield " more."

    async with a_scene() as scene:
        answering = asyncio.create_task(scene.stream(store, halting()))
        await until(scene.status)
        await asyncio.sleep(0.3)
        silent = scene.texts()
        scene.slack.clock.advance(301)
        heard.set()
        await answering

        assert silent == ["First words. And"]
        assert "".join("".join(scene.texts()).split()) == "Firstwords.Andmore."
        assert len(scene.texts()) <= 2


async def test_a_page_that_was_ended_stays_so_for_the_next_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.3)
    async with a_scene() as scene:
        dying = asyncio.create_task(scene.answer(store, WORDS, pause=0.06))
        await until(lambda: len(scene.texts()) > 1)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        before = scene.texts()

        monkeypatch.undo()
        await scene.answer(
            store, WORDS, pages=scene.saved[-1], older=scene.shown, cuts=scene.cuts, again=True
        )

        assert scene.texts()[0] == before[0]
        assert len(scene.texts()) == len(before)
        assert " ".join(text.strip() for text in scene.texts()) == TEXT.strip()


async def test_an_end_is_written_again_on_the_pages_that_it_has(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.3)
    async with a_scene() as scene:
        await scene.answer(store, WORDS, pause=0.04)
        before = [(shown.ts, shown.text.strip()) for shown in scene.replies()]

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await restore(
                Left(tuple(scene.saved[-1]), TEXT, cuts=scene.cuts, outcome="done"),
                surface=surface,
                budgets=EditBudgets(store=store),
                patience=5.0,
            )

        assert len(before) > 1
        assert [(shown.ts, shown.text.strip()) for shown in scene.replies()] == before


async def test_where_no_page_is_ended_its_message_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.streams._SECONDS", 0.0)
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        with pytest.raises(PageFull):
            await surface.edit(message_id, growing("Because so"))
        scene.slack.clock.advance(301)
        await surface.edit(message_id, growing("Because so it"))

        assert scene.texts() == ["Because so it"]


async def test_a_stream_whose_beginner_died_is_ended_and_updated() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))

        async with scene.platform.surface(scene.turn) as surface:
            await surface.edit(message_id, Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


@pytest.mark.parametrize("error", ["message_not_in_streaming_state", "stopped_by_user"])
async def test_a_stream_that_ends_before_it_could_be_ended_is_updated(error: str) -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))
        scene.slack.clock.advance(301)
        scene.slack.fail("chat.update", error="streaming_state_conflict")
        scene.slack.fail("chat.stopStream", error=error, times=2)

        async with scene.platform.surface(scene.turn) as surface:
            await surface.edit(message_id, Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_a_stream_that_cannot_grow_as_it_should_is_ended_once_and_updated() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))
            await surface.edit(message_id, growing("Or so"))
            await surface.edit(message_id, growing("Or so it"))

        assert scene.texts() == ["Or so it"]
        methods = ("chat.stopStream", "chat.update", "agents.sessions.setStatus")
        assert [scene.calls(method) for method in methods] == [1, 2, 0]


async def test_a_stream_without_a_word_is_taken_away() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("&"))

        await surface.edit(message_id, Page(0, "", final=True))

        assert not scene.replies()


async def test_a_stream_that_nobody_knows_of_is_found_by_the_next_try() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_a_stream_is_found_where_the_try_that_ended_it_died_too() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        # The first update learns that the message still streams.
        scene.slack.fail("chat.update", "drop", after=1)
        async with scene.platform.surface(scene.turn, again=True) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(growing("Because so"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def a_try(
    scene: Scene,
    store: Store,
    answer: str,
    *,
    left: Left,
    again: bool,
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
        async with scene.platform.surface(scene.turn, again=again) as surface:
            reply = Reply(
                surface=surface,
                budgets=EditBudgets(store=store),
                left=left,
                former="",
                stop=asyncio.Event(),
                save=save,
                patience=5.0,
            )
            await (reply.end() if left.outcome else reply.stream(said()))
        if not dies_at:
            heard.set()

    answering = asyncio.create_task(speak())
    scene.slack.watch(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5 if dies_at else 10):
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
    async with a_scene() as scene:
        left = Left((), "", "")
        left = await a_try(scene, store, LONG, left=left, again=False, dies_at=first)
        another = "Another answer. " * 100
        left = await a_try(scene, store, another, left=left, again=True, dies_at=second)

        left = await a_try(scene, store, "The last answer.", left=left, again=True)
        await scene.take_strays_away(left)

        assert left.outcome
        assert " ".join(scene.texts()).split() == left.text.split()


async def test_a_stream_ends_where_slack_refuses_the_metadata_of_its_page() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        scene.slack.fail("chat.stopStream", error="invalid_arguments")

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because so."]


async def test_what_an_earlier_try_has_begun_gives_way_where_it_takes_no_edits(
    store: Store,
) -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        scene.slack.fail("chat.update", error="edit_window_closed", times=99)

        await scene.answer(store, ["Because so."], again=True)
        scene.slack.heal()

        assert scene.texts() == ["Because so."]


async def test_what_cannot_be_taken_away_holds_up_no_answer(store: Store) -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        scene.slack.fail("chat.update", error="edit_window_closed")
        scene.slack.fail("chat.delete", error="cant_delete_message", times=99)

        await scene.answer(store, ["Because so."], again=True)
        scene.slack.heal()

        assert scene.texts() == ["Because", "Because so."]


async def test_a_page_that_is_found_where_it_stood_is_not_taken_away(store: Store) -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            ids = [
                await surface.post(Page(number, text, final=True))
                for number, text in enumerate(["Red", "Green"])
            ]
        scene.slack.fail("chat.update", error="edit_window_closed")

        await scene.answer(store, [LONG], pages=ids, again=True)

        assert sorted("".join(scene.texts()).split()) == sorted(LONG.split())


async def test_a_stream_that_is_found_is_one_page() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("First"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "First page.", final=True))
            await surface.post(Page(1, "Second page.", final=True))

        assert scene.texts() == ["First page.", "Second page."]


async def test_the_stream_of_a_page_that_is_known_is_no_other_pages() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("First"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.edit(message_id, Page(0, "First page.", final=True))
            await surface.post(Page(1, "Second page.", final=True))

        assert scene.texts() == ["First page.", "Second page."]


async def test_a_page_that_is_cut_shorter_than_it_stood_there_is_updated(store: Store) -> None:
    long = ("A sentence of some words. " * 12 + "\n\n") * 40
    async with a_scene() as scene:
        await scene.answer(store, [long[at : at + 200] for at in range(0, len(long), 200)])

        assert len(scene.texts()) > 2
        assert "".join(scene.texts()).split() == long.split()


async def test_a_turn_takes_no_finished_answer_for_its_own(store: Store) -> None:
    async with a_scene() as scene:
        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.03))
        following = await scene.asks_on()
        await until(lambda: scene.calls("chat.appendStream"))
        scene.slack.clock.advance(301)
        await answering

        scene.turn = following
        await scene.answer(store, ["Second."], again=True)

        assert [text.strip() for text in scene.texts()] == ["and?", TEXT.strip(), "Second."]


async def test_a_stream_that_is_over_is_no_unsaved_page() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await surface.post(growing("Because"))
        scene.slack.clock.advance(301)

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Because", "Because so."]


async def test_the_stream_of_another_app_is_no_page_of_ours() -> None:
    async with a_scene() as scene:
        thread = str(scene.turn.place["thread"])
        scene.slack.stream_of_another(scene.slack.channel_id, thread, "Mine.")

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "Because so.", final=True))

        assert scene.texts() == ["Mine.", "Because so."]


async def test_a_stream_above_the_answer_of_another_turn_is_no_page_of_this_one() -> None:
    async with a_scene() as scene:
        following = await scene.asks_on()
        for page in (growing("Lost"), Page(0, "Second.", final=True)):
            async with scene.platform.surface(following) as surface:
                await surface.post(page)

        # Slack told of the first question again, after an outage.
        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.post(Page(0, "First.", final=True))

        assert scene.texts() == ["and?", "Lost", "Second.", "First."]


async def test_a_page_that_is_sent_anew_takes_no_other_pages_stream() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            first = await surface.post(Page(0, "First", final=True))
            await surface.post(Page(1, "Sec", final=False, said="Sec"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            scene.slack.fail("chat.update", error="edit_window_closed")
            with pytest.raises(WriteRefused):
                await surface.edit(first, Page(0, "First page.", final=True))
            await surface.post(Page(0, "First page.", final=True))

        assert scene.texts() == ["First", "Sec", "First page."]


async def test_a_page_that_is_sent_anew_is_found_by_its_number() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
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
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message_id = await surface.post(growing("Because"))
            if end == "stopped":
                await scene.stop()
            page = growing("Or so" if end == "left" else "Because so")
            await surface.edit(message_id, replace(page, final=end == "finished"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            found = await surface.post(Page(0, "Because so.", final=True))

        assert found == message_id
        assert scene.texts() == ["Because so."]


async def test_a_page_that_the_answer_does_not_need_is_taken_away_while_it_streams(
    store: Store,
) -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            pages = [
                await surface.post(Page(0, "First page.", final=True)),
                await surface.post(Page(1, "Sec", final=False, said="Sec")),
            ]

        await scene.answer(store, ["An answer that is short."], pages=pages, older="")

        assert scene.texts() == ["An answer that is short."]


async def test_strays_are_what_stands_for_the_turn_besides_its_pages() -> None:
    async with a_scene() as scene:
        thread = str(scene.turn.place["thread"])
        async with scene.platform.surface(scene.turn) as surface:
            page = await surface.post(Page(0, "Because so.", final=True))
            twice = await surface.post(Page(0, "Because so.", final=True))
            running = await surface.post(Page(1, "And", final=False, said="And"))
        async with scene.platform.surface(await scene.asks_on()) as surface:
            await surface.post(Page(0, "Another answer.", final=True))
        scene.slack.stream_of_another(scene.slack.channel_id, thread, "Mine.")

        strays = await scene.platform.strays(scene.turn, but=[page])

        assert strays == [twice, running]


async def test_a_stray_stream_is_taken_away() -> None:
    async with a_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            stray = await surface.post(growing("And"))

        async with scene.platform.surface(scene.turn, again=True) as surface:
            await surface.edit(stray, Page(0, "", final=True))

        assert scene.texts() == []


async def test_what_is_over_and_not_needed_is_taken_away_at_once() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(Page(0, "First page.", final=True))

        await surface.edit(message_id, Page(0, "", final=True))

        assert scene.texts() == []
        assert not scene.calls("chat.stopStream")


async def test_after_slacks_own_stop_nothing_says_that_we_are_at_work(store: Store) -> None:
    async with a_scene() as scene:
        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.03))
        await until(lambda: scene.calls("chat.appendStream"))

        await scene.stop()
        await answering

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert scene.session()[-1] == "active"
        assert scene.calls("agents.sessions.setStatus") == 1


async def test_an_ordinary_end_needs_no_word_about_the_session(store: Store) -> None:
    async with a_scene() as scene:
        await scene.answer(store, WORDS)

        assert scene.session()[-1] == "active"
        assert not scene.calls("agents.sessions.setStatus")


async def test_a_stream_that_goes_silent_shows_the_status_and_no_word_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.reply.SILENCE", 0.05)
    heard = asyncio.Event()

    async def halting() -> AsyncGenerator[str]:
        yield "Because "
        await heard.wait()
        yield "so."

    async with a_scene() as scene:
        answering = asyncio.create_task(scene.stream(store, halting()))
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
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        await surface.edit(message_id, growing("Because so"))
        before = scene.status()

        sign = Page(0, f"Because so\n\n{WAITING}", final=False, said="Because so")
        await surface.edit(message_id, sign)

        assert (before, bool(scene.status())) == ("", True)


async def test_a_sign_of_life_alone_begins_no_stream(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.reply.FIRST_SILENCE", 0.05)
    heard = asyncio.Event()

    async def late() -> AsyncGenerator[str]:
        await heard.wait()
        yield "Because so."

    async with a_scene() as scene:
        answering = asyncio.create_task(scene.stream(store, late()))
        await until(scene.replies)
        sign = scene.texts()
        heard.set()
        await answering

        assert sign == [WAITING]
        assert scene.texts() == ["Because so."]
        assert not scene.calls("chat.startStream")


async def test_a_stop_that_slack_refuses_doubles_nothing(store: Store) -> None:
    async with a_scene() as scene:
        scene.slack.fail("chat.stopStream", error="invalid_blocks")

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        bare = [call for call in scene.slack.requests if call.method == "chat.stopStream"][-1]
        assert not {"markdown_text", "blocks"} & set(bare.body)
        assert not scene.calls("agents.sessions.setStatus")


async def test_a_stream_that_slack_does_not_let_end_is_tried_again_later(store: Store) -> None:
    async with a_scene() as scene:
        scene.slack.fail("chat.stopStream", error="invalid_arguments", times=99)

        with pytest.raises(WriteFailed):
            await scene.answer(store, WORDS, patience=0.1)

        assert len(scene.replies()) == 1


@pytest.mark.parametrize(
    "error", ["missing_scope", "not_allowed_token_type", "restricted_action", "no_permission"]
)
@pytest.mark.parametrize("method", ["chat.appendStream", "chat.stopStream"])
async def test_what_a_stream_may_not_an_update_may(store: Store, method: str, error: str) -> None:
    async with a_scene() as scene:
        scene.slack.fail(method, error=error)

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


async def test_a_question_that_slack_does_not_find_is_answered_by_a_post(store: Store) -> None:
    async with a_scene() as scene:
        scene.slack.fail("chat.startStream", error="message_not_found")

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


async def test_only_what_was_said_stands_in_a_stream() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        await surface.post(Page(0, f"Because\n\n{WAITING}", final=False, said="Because"))

        assert scene.texts() == ["Because"]


async def test_a_page_that_is_whole_at_once_begins_no_stream() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        await surface.post(Page(0, "Because so.", final=True, last=True, said="Because so."))

        assert [shown.buttons for shown in scene.replies()] == [("regenerate",)]
        assert not scene.calls("chat.startStream")


async def test_a_page_whose_stream_has_ended_is_updated_at_once() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        await surface.edit(message_id, Page(0, "Because so.", final=True))

        await surface.edit(message_id, Page(0, "Because so. Stopped.", final=True))

        assert scene.texts() == ["Because so. Stopped."]
        assert scene.calls("chat.stopStream") == 1


async def test_a_page_that_stands_is_changed_while_another_streams() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        first = await surface.post(Page(0, "Red", final=True))
        await surface.post(Page(1, "Red", final=False, said="Red"))

        await surface.edit(first, Page(0, "Red and blue", final=True))

        assert scene.texts() == ["Red and blue", "Red"]


async def test_words_that_came_too_early_stay_and_the_stream_goes_on() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because so"))

        await surface.edit(message_id, growing("Because"))
        await surface.edit(message_id, growing("Because so it is."))

        assert scene.texts() == ["Because so it is."]
        assert not scene.calls("chat.update") + scene.calls("chat.stopStream")


async def test_each_kind_of_write_has_the_budget_of_its_method() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        grows, other = growing("Because so"), growing("Or not")
        ends, empty = Page(0, "Because so.", final=True), Page(0, "", final=True)
        start = surface.budget(grows, new=True)
        await surface.post(growing("Because"))

        kinds = [surface.budget(page, new=False) for page in (grows, ends, other, empty)]

        names = [budget.bucket.split(":")[1] for budget in kinds if budget]
        assert names == ["append", "stop", "stop", "update"]
        # It is begun at once or not at all.
        assert start is None


@pytest.mark.parametrize(
    ("method", "page"),
    [
        ("chat.appendStream", growing("Because so")),
        ("chat.stopStream", Page(0, "Because so.", final=True)),
    ],
)
async def test_what_a_pause_holds_back_is_added_after_it(method: str, page: Page) -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        bucket = bucket_of(surface, page)
        scene.slack.fail(method, status=429, retry_after=7)

        with pytest.raises(WriteDelayed) as raised:
            await surface.edit(message_id, page)
        await surface.edit(message_id, page)

        assert raised.value.bucket == bucket
        assert scene.texts() == [page.text]


async def test_a_pause_of_starts_holds_up_nothing_else() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        scene.slack.fail("chat.startStream", status=429, retry_after=7)

        with pytest.raises(WriteDelayed) as raised:
            await surface.post(growing("Because"))

        assert raised.value.bucket == f"slack:start:{scene.slack.team_id}"


async def test_no_budget_is_larger_than_what_slack_allows() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        ends, empty = Page(0, "Because so.", final=True), Page(0, "", final=True)
        post = surface.budget(ends, new=True)
        await surface.post(growing("Because"))
        append = surface.budget(growing("Because so"), new=False)
        stop, update = surface.budget(ends, new=False), surface.budget(empty, new=False)

        for budget, rate in [(post, CHANNEL), (append, TIER_4), (stop, TIER_2), (update, TIER_3)]:
            assert budget
            assert budget.writes <= rate.burst
            assert budget.writes / budget.seconds <= rate.calls / rate.seconds


async def test_the_last_page_keeps_its_button_where_it_was_streamed() -> None:
    async with a_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))

        await surface.edit(message_id, replace(growing("Because"), final=True, last=True))

        assert [shown.buttons for shown in scene.replies()] == [("regenerate",)]
        assert not scene.calls("chat.update")


async def test_a_deleted_stream_ends_the_turn(store: Store) -> None:
    async with a_scene() as scene:
        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.05))
        await until(scene.replies)

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


# An entity that two appends share.
@example(["&", "lt;"], [3])
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


async def test_an_apology_that_comes_late_takes_no_stream_of_a_turn_that_goes_on(
    store: Store,
) -> None:
    queue = a_queue(store)
    async with a_scene() as scene:
        await given_up_unseen(queue, scene.turn)
        following = await scene.asks_on()
        async with scene.platform.surface(following) as surface:
            message_id = await surface.post(growing("Because"))

            async with mending(queue, scene.platform):
                await until(lambda: GivenUp.apology in scene.texts())
                await surface.edit(message_id, growing("Because so"))

            assert scene.texts() == ["and?", "Because so", GivenUp.apology]
