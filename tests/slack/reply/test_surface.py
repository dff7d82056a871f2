"""Replies are shown in Slack, and found again, through the real slack-sdk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from adapters.slack.limits import Limits
from adapters.slack.workspace import MOST_PAGES
from bot.domain import Page, Person, Purpose, ThreadKey, Turn
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.ports import Surface
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.faults import How
from tests.emulators.slack import Shown, SlackEmulator
from tests.emulators.slack.conversations import UNLISTED_MOST
from tests.support.slack_platform import (
    LIMITS,
    SHORT_PAGES,
    UNLIMITED,
    fast,
    first,
    joined,
    serving,
)
from tests.support.waiting import until

NASTY = "<!channel> <@U0PERSON001> https://example.com <https://evil.example|safe> &lt;!here&gt;"


def turn_in(slack: SlackEmulator, *, channel: str = "", thread: str | None = None) -> Turn:
    channel = channel or slack.channel_id
    asked_at = time.time()
    return Turn(
        id=f"slack:{slack.team_id}:{channel}:1",
        key=ThreadKey("slack", slack.team_id, channel, thread or channel),
        person=Person("U1", "Ann"),
        text="why?",
        place={"channel": channel, "thread": thread, "question": f"{asked_at:.6f}"},
        asked_at=asked_at,
    )


@asynccontextmanager
async def open_thread(
    slack: SlackEmulator, *, purpose: Purpose = Purpose.ANSWER, limits: Limits = LIMITS
) -> AsyncIterator[tuple[Surface, Turn, Callable[[], list[Shown]]]]:
    """The surface of a turn in a fresh thread, and its replies as people see them."""
    ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
    turn = turn_in(slack, thread=ts)

    def replies() -> list[Shown]:
        return slack.screen(slack.channel_id, ts)[1:]

    async with joined(slack, limits=limits) as platform, platform.surface(turn, purpose) as surface:
        yield surface, turn, replies


async def test_a_reply_grows_in_one_message_of_the_thread() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        message_id = await surface.post(first("Be"))
        await surface.edit(message_id, first("Because **of**"))
        await surface.edit(message_id, first("Because **of** it.", final=True))

        [shown] = replies()
        assert message_id == f"{slack.channel_id}:{shown.ts}"
        assert slack.states(slack.channel_id, shown.ts) == [
            "Be",
            "Because **of**",
            "Because **of** it.",
        ]


async def test_a_growing_page_has_a_stop_button_and_the_last_one_another() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        message_id = await surface.post(first("Be"))
        growing = replies()[0].buttons
        await surface.edit(message_id, first("Because.", final=True))
        finished = replies()[0].buttons
        await surface.edit(message_id, first("Because.", last=True))

        assert (growing, finished) == (("stop",), ())
        assert replies()[0].buttons == ("regenerate",)


async def test_a_reply_pings_nobody_shows_no_previews_and_reads_as_it_was_said() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        message_id = await surface.post(first(NASTY))
        posted = replies()[0].text
        await surface.edit(message_id, first(f"> {NASTY}", final=True))

        assert posted == NASTY
        assert replies()[0].text == f"> {NASTY}"
        assert not slack.pings
        assert not slack.unfurls


async def test_markdown_reaches_slack_with_its_quotes_and_addresses_whole() -> None:
    said = "> a quote\n[a link](https://a.example/?x=1&y=2)"
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        await surface.post(first(said, final=True))

        [call] = [call for call in slack.requests if call.method == "chat.postMessage"]
        assert call.body["blocks"] == [{"type": "markdown", "text": said}]


async def test_slack_is_to_link_no_names_in_what_is_posted_and_updated() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        message_id = await surface.post(first("@here", final=True))
        await surface.edit(message_id, first("@channel", final=True))

        post, update = slack.requests[-2:]
        assert [post.method, update.method] == ["chat.postMessage", "chat.update"]
        assert [post.body["parse"], update.body["parse"]] == ["none", "none"]


async def test_a_page_at_the_limit_is_taken_and_one_beyond_is_refused() -> None:
    page = "é<" * 600 + "x" * 400
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        message_id = await surface.post(first("Be"))

        await surface.edit(message_id, first(page))
        with pytest.raises(WriteRefused):
            await surface.edit(message_id, first(page + "x"))

        assert surface.measure(page) == surface.limit
        assert replies()[0].text == page


async def test_a_thread_says_that_we_think_until_the_reply_comes() -> None:
    async with fast() as slack, open_thread(slack) as (surface, turn, _):
        await until(lambda: status_of(slack, turn))
        await surface.post(first("Because.", final=True))

        assert status_of(slack, turn) == ["is thinking..."]
    assert status_of(slack, turn) == ["is thinking..."]


async def test_the_status_is_cleared_when_nothing_was_posted() -> None:
    async with fast() as slack:
        async with open_thread(slack) as (_, turn, _replies):
            await until(lambda: status_of(slack, turn))

        assert status_of(slack, turn) == ["is thinking...", ""]


async def test_what_is_put_right_after_its_end_shows_no_status() -> None:
    async with fast() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        turn = turn_in(slack, thread=ts)
        async with platform.surface(turn) as surface:
            message_id = await surface.post(first("late", final=True))
        calls = len(slack.requests)

        async with platform.surface(turn, Purpose.RESTORE) as surface:
            await asyncio.sleep(0.05)  # time for a status
            await surface.edit(message_id, first("Because.", final=True))

        assert [call.method for call in slack.requests[calls:]] == ["chat.update"]


async def test_a_status_never_follows_the_reply() -> None:
    answered = asyncio.Event()
    async with fast() as slack:
        slack.fail("assistant.threads.setStatus", "late", gate=answered)
        async with open_thread(slack) as (surface, _, _):
            await until(lambda: not slack.pending_faults)
            posting = asyncio.create_task(surface.post(first("Because.", final=True)))
            await asyncio.sleep(0.05)  # time for a post
            early = posts(slack)
            answered.set()
            await posting

        assert (early, posts(slack)) == (0, 1)


async def test_a_refused_status_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "adapters.slack")
    async with fast() as slack, joined(slack) as platform:
        slack.fail("assistant.threads.setStatus", error="missing_scope", times=10)
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")

        for _ in range(2):
            async with platform.surface(turn_in(slack, thread=ts)) as surface:
                await asyncio.sleep(0.05)  # time for a second try
                await surface.post(first("Because.", final=True))

        calls = [call for call in slack.requests if "setStatus" in call.method]
        assert len(calls) == 1
        assert ["missing_scope" in one for one in caplog.messages] == [True]


@pytest.mark.parametrize("error", ["is_archived", "channel_not_found", "something_new"])
async def test_a_status_that_one_channel_refuses_is_shown_in_others(error: str) -> None:
    async with fast() as slack, joined(slack) as platform:
        slack.fail("assistant.threads.setStatus", error=error)
        ann = slack.user("Ann")
        refused = turn_in(slack, thread=await slack.say(slack.channel_id, ann, "why?"))
        turn = turn_in(slack, thread=await slack.say(slack.channel_id, ann, "and how?"))

        async with platform.surface(refused) as surface:
            await until(lambda: any("setStatus" in call.method for call in slack.requests))
            await surface.post(first("Because.", final=True))
        async with platform.surface(turn):
            await until(lambda: status_of(slack, turn))

        assert status_of(slack, refused) == []


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        ("message_not_found", MessageGone, ""),
        ("msg_too_long", WriteRefused, ""),
        ("cant_update_message", WriteRefused, ""),
        ("edit_window_closed", WriteRefused, ""),
        ("message_not_in_streaming_state", WriteRefused, ""),
        ("something_new", WriteRefused, ""),
        ("channel_not_found", PlaceGone, "/invite"),
        ("not_in_channel", PlaceGone, "/invite"),
        ("is_archived", PlaceGone, "archived"),
        ("missing_scope", PlaceGone, "scope"),
        ("restricted_action_read_only_channel", PlaceGone, "workspace"),
        ("not_allowed_token_type", PlaceGone, "SLACK_BOT_TOKEN"),
        ("invalid_auth", WriteFailed, "SLACK_BOT_TOKEN"),
        ("not_authed", WriteFailed, "SLACK_BOT_TOKEN"),
        ("account_inactive", WriteFailed, "SLACK_BOT_TOKEN"),
        ("token_expired", WriteFailed, "SLACK_BOT_TOKEN"),
        ("token_revoked", WriteFailed, "SLACK_BOT_TOKEN"),
        ("ratelimited", WriteDelayed, ""),
        ("internal_error", WriteFailed, ""),
    ],
)
async def test_slacks_errors_are_translated(
    error: str, kind: type[SurfaceError], word: str
) -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        message_id = await surface.post(first("Be"))
        slack.fail("chat.update", error=error)

        with pytest.raises(kind, match=error) as raised:
            await surface.edit(message_id, first("Because"))

        assert word in str(raised.value)


@pytest.mark.parametrize(("how", "status"), [("status", 500), ("status", 503), ("drop", 0)])
async def test_a_failing_slack_is_a_passing_failure(how: How, status: int) -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        slack.fail("chat.postMessage", how, status=status)

        with pytest.raises(WriteFailed):
            await surface.post(first("Be"))


async def test_a_post_that_arrived_unheard_is_not_repeated() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        slack.fail("chat.postMessage", "drop", applied=True)

        with pytest.raises(WriteFailed):
            await surface.post(first("Be"))
        message_id = await surface.post(first("Because", final=True))

        [shown] = replies()
        assert shown.text == "Because"
        assert message_id.endswith(shown.ts)


@pytest.mark.parametrize(("status", "kind"), [(500, WriteFailed), (429, WriteDelayed)])
async def test_a_page_that_is_taken_over_at_the_second_try_stands_there_once(
    status: int, kind: type[SurfaceError]
) -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        slack.fail("chat.postMessage", "drop", applied=True)
        slack.fail("chat.update", status=status)
        for expected in (WriteFailed, kind):
            with pytest.raises(expected):
                await surface.post(first("Be", final=True))

        await surface.post(first("Because", final=True))

        assert [shown.text for shown in replies()] == ["Because"]


async def test_a_post_that_did_not_arrive_is_repeated() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        slack.fail("chat.postMessage", "drop")

        with pytest.raises(WriteFailed):
            await surface.post(first("Be"))
        await surface.post(first("Because", final=True))

        assert [shown.text for shown in replies()] == ["Because"]


async def test_what_another_try_has_just_sent_is_found() -> None:
    async with fast() as slack, open_thread(slack) as (surface, turn, replies):
        sent = await surface.post(first("Be"))

        async with joined(slack) as platform, platform.surface(turn, Purpose.RESUME) as other:
            found = await other.post(first("Because"))

        assert found == sent
        assert [one.text for one in replies()] == ["Because"]


async def test_a_search_for_what_was_sent_waits_for_no_other_reading(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with (
        fast() as slack,
        open_thread(slack) as (surface, turn, replies),
        joined(slack, budgets=budgets) as platform,
    ):
        sent = await surface.post(first("Be"))
        reading = platform.workspace.budget("replies", 50, shape="fixed")
        await budgets.pause(reading, 60)

        async with platform.surface(turn, Purpose.RESUME) as other:
            found = await other.post(first("Because"))

        assert found == sent
        assert [one.text for one in replies()] == ["Because"]


@pytest.mark.parametrize("direct", [False, True])
async def test_a_message_of_a_process_that_died_is_taken_over(direct: bool) -> None:
    async with fast() as slack, joined(slack) as platform:
        ann = slack.user("Ann")
        channel = slack.dm(ann) if direct else slack.channel_id
        ts = await slack.say(channel, ann, "why?")
        turn = turn_in(slack, channel=channel, thread=None if direct else ts)
        async with platform.surface(turn) as surface:
            unsaved = await surface.post(first("Be"))

        async with platform.surface(turn, Purpose.RESUME) as surface:
            message_id = await surface.post(first("Because", final=True))
            await surface.post(Page(1, "and so on", final=True))

        shown = [shown.text for shown in slack.screen(channel, None if direct else ts)]
        assert message_id == unsaved
        assert shown == ["why?", "Because", "and so on"]


@pytest.mark.parametrize(("before", "since"), [(0, 300), (300, 0)])
@pytest.mark.parametrize("direct", [False, True])
async def test_a_message_is_taken_over_however_much_was_said(
    direct: bool, before: int, since: int
) -> None:
    async with fast() as slack, joined(slack) as platform:
        ann = slack.user("Ann")
        channel = slack.dm(ann) if direct else slack.channel_id
        ts = await slack.say(channel, ann, "why?")
        thread = None if direct else ts
        turn = turn_in(slack, channel=channel, thread=thread)
        for number in range(before):
            await slack.say(channel, ann, str(number), thread_ts=thread)
        async with platform.surface(turn) as surface:
            unsaved = await surface.post(first("Be"))
        for number in range(since):
            await slack.say(channel, ann, str(number), thread_ts=thread)

        async with platform.surface(turn, Purpose.RESUME) as surface:
            message_id = await surface.post(first("Because", final=True))

        assert message_id == unsaved


@pytest.mark.parametrize("how", [{"error": "missing_scope"}, {"status": 429, "retry_after": 60}])
async def test_what_is_found_counts_though_no_more_may_be_read(how: dict[str, object]) -> None:
    rates = {"chat.update": UNLIMITED, "chat.postMessage": UNLIMITED, **SHORT_PAGES}
    before = unseen_posts()
    async with (
        SlackEmulator(rates=rates, unlisted=True) as slack,
        open_thread(slack) as (surface, turn, _),
    ):
        sent = await surface.post(first("Be"))
        for number in range(UNLISTED_MOST):
            await slack.say(
                slack.channel_id,
                slack.user("Ann"),
                str(number),
                thread_ts=str(turn.place["thread"]),
            )
        slack.fail("conversations.replies", after=1, **how)  # type: ignore[arg-type]

        async with joined(slack) as platform, platform.surface(turn, Purpose.RESUME) as other:
            found = await other.post(first("Because"))

    assert (found, unseen_posts()) == (sent, before)


async def test_a_second_message_where_too_much_was_said_is_counted() -> None:
    rates = {"chat.update": UNLIMITED, "chat.postMessage": UNLIMITED, **SHORT_PAGES}
    before = unseen_posts()
    async with (
        SlackEmulator(rates=rates, unlisted=True) as slack,
        open_thread(slack, purpose=Purpose.RESUME) as (surface, turn, replies),
    ):
        for number in range(MOST_PAGES * UNLISTED_MOST + 1):
            await slack.say(
                slack.channel_id,
                slack.user("Ann"),
                str(number),
                thread_ts=str(turn.place["thread"]),
            )

        await surface.post(first("Because", final=True))

        assert replies()[-1].text == "Because"
    assert unseen_posts() - before == 1


async def test_nothing_is_sent_beside_a_message_that_a_failing_slack_does_not_show() -> None:
    async with fast() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        turn = turn_in(slack, thread=ts)
        async with platform.surface(turn) as surface:
            unsaved = await surface.post(first("Be"))
        slack.fail("conversations.replies", status=500)

        async with platform.surface(turn, Purpose.RESUME) as surface:
            with pytest.raises(WriteFailed):
                await surface.post(first("Because", final=True))
            message_id = await surface.post(first("Because", final=True))

        shown = [shown.text for shown in slack.screen(slack.channel_id, ts)]
        assert (message_id, shown) == (unsaved, ["why?", "Because"])


async def test_a_message_of_another_turn_is_not_taken_over() -> None:
    async with fast() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        turn = turn_in(slack, thread=ts)
        async with platform.surface(replace(turn, id="slack:another")) as surface:
            await surface.post(first("Something else", final=True))

        async with platform.surface(turn, Purpose.RESUME) as surface:
            await surface.post(first("Because", final=True))

        shown = [shown.text for shown in slack.screen(slack.channel_id, ts)]
        assert shown == ["why?", "Something else", "Because"]


async def test_a_message_of_another_app_is_never_ours_whatever_turn_it_names() -> None:
    async with fast() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        turn = turn_in(slack, thread=ts)
        async with platform.surface(turn) as surface:
            ours = await surface.post(first("Because", final=True))
        payload: dict[str, object] = {"turn": turn.id, "page": 1}
        metadata: dict[str, object] = {"event_type": "parley_turn", "event_payload": payload}
        slack.message_of_another(slack.channel_id, ts, "Mine.", metadata=metadata)

        orphans = await platform.orphaned_messages(turn, but=[])

        assert orphans == [ours]


@pytest.mark.parametrize("how", [{"error": "missing_scope"}, {"status": 429, "retry_after": 60}])
async def test_a_second_message_where_nothing_may_be_read_is_counted(
    how: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    before = unseen_posts()
    async with fast() as slack, open_thread(slack, purpose=Purpose.RESUME) as (surface, _, replies):
        slack.fail("conversations.replies", **how)  # type: ignore[arg-type]

        await surface.post(first("Because", final=True))
        await surface.post(Page(1, "and so on", final=True))

        assert [shown.text for shown in replies()] == ["Because", "and so on"]
        assert unseen_posts() - before == 1
        assert [one.levelno for one in caplog.records] == [logging.WARNING]


def unseen_posts() -> float:
    return REGISTRY.get_sample_value("parley_slack_unseen_posts_total") or 0.0


async def test_a_page_that_takes_no_edits_any_more_is_sent_anew() -> None:
    async with fast() as slack, open_thread(slack, purpose=Purpose.RESUME) as (surface, _, replies):
        message_id = await surface.post(first("Be"))
        slack.fail("chat.update", error="edit_window_closed")
        slack.fail("chat.postMessage", status=500)

        with pytest.raises(WriteRefused):
            await surface.edit(message_id, first("Because"))
        with pytest.raises(WriteFailed):
            await surface.post(first("Because"))
        await surface.post(first("Because", final=True))

        assert [shown.text for shown in replies()] == ["Be", "Because"]


def status_of(slack: SlackEmulator, turn: Turn) -> list[str]:
    return slack.status(str(turn.place["channel"]), str(turn.place["thread"]))


async def test_as_many_replies_as_there_are_write_at_once() -> None:
    replies, arrived = 150, 0
    all_arrived = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal arrived
        if request.path.endswith("chat.postMessage"):
            arrived += 1
            number = arrived
            if arrived == replies:
                all_arrived.set()
            await all_arrived.wait()
            return web.json_response({"ok": True, "channel": "D1", "ts": f"{number}.000001"})
        return web.json_response(
            {"ok": True, "team_id": "T1", "user_id": "U1", "bot_id": "B1", "user": "parley"}
        )

    async with SlackEmulator() as slack, serving(answer) as url:
        turn = turn_in(slack, channel="D1")
        slack.api_url = url
        async with joined(slack) as platform, AsyncExitStack() as stack:
            surfaces = [
                await stack.enter_async_context(platform.surface(turn)) for _ in range(replies)
            ]
            posted = await asyncio.gather(*(each.post(first("Hi")) for each in surfaces))

    assert len(set(posted)) == replies


def posts(slack: SlackEmulator) -> int:
    return sum(call.method == "chat.postMessage" for call in slack.requests)
