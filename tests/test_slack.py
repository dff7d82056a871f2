"""Slack: what people do becomes turns, and replies are shown, through the real slack-bolt."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from adapters.slack import SlackPlatform, connect
from adapters.slack.inbound import Press, pressed
from adapters.slack.markup import markdown_block, readable
from adapters.slack.reading import PAGES
from bot.domain import Page, Person, ThreadKey, Turn
from bot.errors import (
    CannotStart,
    HasEnded,
    MessageGone,
    NotTheLast,
    PlaceGone,
    Refused,
    StoreUnavailable,
    SurfaceError,
    ThreadBusy,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.guard import unescape
from bot.ports import Platform, Surface
from tests.emulators.faults import How
from tests.emulators.slack import Rate, Shown, SlackEmulator
from tests.emulators.slack.conversations import UNLISTED_MOST
from tests.emulators.slack.rates import per_minute
from tests.fakes import FakeIntake, NoLimits, bucket_of
from tests.waiting import until

Transport = Literal["socket", "http"]
UNLIMITED = Rate(calls=1000, seconds=1.0, burst=1000)
# Of these 15 messages are a page, and Slack is as patient as with others.
SHORT_PAGES = {"conversations.history": per_minute(50), "conversations.replies": per_minute(50)}
NASTY = "<!channel> <@U0PERSON001> https://example.com <https://evil.example|safe> &lt;!here&gt;"

both_transports = pytest.mark.parametrize("transport", ["socket", "http"])


@asynccontextmanager
async def joined(slack: SlackEmulator) -> AsyncIterator[SlackPlatform]:
    async with connect(
        bot_token=slack.bot_token,
        app_token=slack.app_token,
        signing_secret=slack.signing_secret,
        api_url=slack.api_url,
        budgets=NoLimits(),
    ) as platform:
        yield platform


@asynccontextmanager
async def hearing(
    slack: SlackEmulator, intake: FakeIntake, transport: Transport = "socket"
) -> AsyncIterator[SlackPlatform]:
    async with joined(slack) as platform:
        if transport == "http":
            async with serving(platform.handler(intake)) as url:
                await slack.verify(url)
                yield platform
            return
        task = asyncio.create_task(platform.listen(intake))
        try:
            async with asyncio.timeout(5):
                await slack.connected.wait()
            yield platform
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """The address of a server where everything goes to this handler."""
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def fast() -> SlackEmulator:
    return SlackEmulator(rates={"chat.update": UNLIMITED, "chat.postMessage": UNLIMITED})


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


def first(text: str, *, final: bool = False, last: bool = False) -> Page:
    done = final or last
    return Page(0, text, done, said="" if done else text, last=last)


@asynccontextmanager
async def open_thread(
    slack: SlackEmulator, *, again: bool = False
) -> AsyncIterator[tuple[Surface, Turn, Callable[[], list[Shown]]]]:
    """The surface of a turn in a fresh thread, and its replies as people see them."""
    ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
    turn = turn_in(slack, thread=ts)

    def replies() -> list[Shown]:
        return slack.screen(slack.channel_id, ts)[1:]

    async with joined(slack) as platform, platform.surface(turn, again=again) as surface:
        yield surface, turn, replies


# What people say


@both_transports
async def test_a_mention_is_a_turn_that_is_answered_in_its_thread(transport: Transport) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        ann = slack.user("Ann")

        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why is the sky blue?")
        await until(lambda: intake.turns)

        turn = intake.last
        assert turn.id == f"slack:{slack.team_id}:{slack.channel_id}:{ts}"
        assert turn.key == ThreadKey("slack", slack.team_id, slack.channel_id, ts)
        assert turn.person.id == ann
        assert turn.text == "why is the sky blue?"
        assert turn.place == {"channel": slack.channel_id, "thread": ts, "question": ts}
        assert turn.asked_at == float(ts)


async def test_a_mention_in_a_thread_belongs_to_the_thread() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        parent = await slack.say(slack.channel_id, ann, "lunch?")

        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} where?", thread_ts=parent)
        await until(lambda: intake.turns)

        assert intake.last.id.endswith(ts)
        assert intake.last.key.thread == parent
        assert intake.last.place["thread"] == parent


async def test_a_mention_that_arrives_twice_is_admitted_once() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: len(slack.deliveries) == 2)

        assert sorted(delivery.kind for delivery in slack.deliveries) == ["app_mention", "message"]
        assert len(intake.asked) == 1


@both_transports
async def test_an_event_delivered_three_times_has_one_turn_id(transport: Transport) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await slack.redeliver(ts)
        await slack.redeliver(ts)

        assert len(intake.asked) == 3
        assert len(intake.turns) == 1
        assert {delivery.status for delivery in slack.deliveries} == {200}


@both_transports
async def test_a_dm_is_answered_at_its_top_level(transport: Transport) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        dm = slack.dm(slack.user("Ann"))

        ts = await slack.say(dm, slack.user("Ann"), "why?")
        await until(lambda: intake.turns)

        assert intake.last.key == ThreadKey("slack", slack.team_id, dm, dm)
        assert intake.last.place == {"channel": dm, "thread": None, "question": ts}


async def test_a_dm_waits_for_no_name() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)

        assert intake.last.person == Person(ann, ann)
        assert not any(call.method == "users.info" for call in slack.requests)


async def test_a_thread_of_a_dm_is_answered_there() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        parent = await slack.say(dm, ann, "why?")

        await slack.say(dm, ann, "and how?", thread_ts=parent)
        await until(lambda: len(intake.turns) == 2)

        asked = {turn.text: turn for turn in intake.turns}["and how?"]
        assert asked.key == ThreadKey("slack", slack.team_id, dm, parent)
        assert asked.place["thread"] == parent


async def test_talk_without_a_mention_is_acknowledged_and_left_alone() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.say(slack.channel_id, slack.user("Ann"), "lunch?")
        await until(lambda: slack.deliveries)

        assert slack.deliveries[0].status == 200
        assert not intake.asked


@pytest.mark.parametrize(
    "change",
    [
        {"bot_id": "B0OTHER"},
        {"subtype": "bot_message", "bot_id": "B0OTHER", "user": None},
        {"subtype": "channel_join"},
        {"subtype": ["file_share"]},
        {"subtype": "message_changed", "message": {"text": "new", "ts": "1.0"}},
        {"user": SlackEmulator.bot_user_id},
        {"user": "USLACKBOT"},
        {"type": "app_home_opened"},
        {"type": "tokens_revoked"},
        {"type": "something_new"},
    ],
    ids=str,
)
async def test_what_no_person_said_is_acknowledged_and_left_alone(
    change: dict[str, object],
) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            status = await send(slack, url, {**dm_event(slack), **change})

        assert status == 200
        assert not intake.asked
        assert not slack.screen(slack.dm(slack.user("Ann")))


@pytest.mark.parametrize("subtype", ["file_share", "thread_broadcast"])
async def test_files_are_named_in_brackets(subtype: str) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        files = [{"name": "report.pdf"}, {"name": "cat.png"}]
        event = {**dm_event(slack), "subtype": subtype, "files": files}

        async with serving(platform.handler(intake)) as url:
            await send(slack, url, event)

        assert intake.last.text == "why?\n[file: report.pdf]\n[file: cat.png]"


@pytest.mark.parametrize("text", ["We got one!", ""])
async def test_what_a_person_uploads_in_a_dm_is_a_turn(text: str) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, text, files=("ghost.png",))
        await until(lambda: intake.turns)

        assert intake.last.text == f"{text}\n[file: ghost.png]".strip()


async def test_a_group_dm_needs_a_mention() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        event = {**dm_event(slack), "channel": slack.channel_id, "channel_type": "mpim"}
        text = f"{slack.bot_mention} why?"

        async with serving(platform.handler(intake)) as url:
            await send(slack, url, event)
            await send(slack, url, {**event, "text": text, "ts": "1700000001.000100"})
            await send(slack, url, {**event, "text": text, "type": "app_mention"})

        assert [turn.text for turn in intake.turns] == ["why?", "why?"]
        assert intake.last.key.thread == intake.last.place["thread"] == "1700000000.000100"


async def test_people_are_called_by_their_names() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        ts = await slack.say(slack.channel_id, ann, "lunch?")

        for user, words in ((ann, f"is <@{bob}> & <b> ok?"), (bob, "am I?")):
            said = f"{slack.bot_mention} {words}"
            await slack.say(slack.channel_id, user, said, thread_ts=ts)
            await until(lambda: intake.turns and intake.last.person.id == user)  # noqa: B023

        assert [turn.person.name for turn in intake.turns] == ["Ann", "Bob"]
        assert [turn.text for turn in intake.turns] == ["is @Bob & <b> ok?", "am I?"]
        assert sum(call.method == "users.info" for call in slack.requests) == 2


async def test_a_question_that_begins_a_thread_is_admitted_before_its_author_has_a_name() -> None:
    intake = FakeIntake()
    async with SlackEmulator(latency=0.2) as slack, hearing(slack, intake):
        ann = slack.user("Ann")

        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: tries(slack))
        await until(lambda: intake.called)
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} and how?")
        await until(lambda: len(intake.turns) == 2)

        asked, again = intake.turns
        assert slack.deliveries[0].seconds < 0.2
        assert asked.person == Person(ann, ann)
        assert intake.called == [(asked.key, Person(ann, "Ann"))]
        assert again.person == Person(ann, "Ann")


async def test_a_name_that_cannot_be_stored_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    intake = FakeIntake()
    async with SlackEmulator(latency=0.1) as slack, hearing(slack, intake):
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: tries(slack))
        intake.refuses = StoreUnavailable("no Redis")
        await until(lambda: intake.refusals)

        assert tries(slack) == [200]
        assert "name is not remembered" in caplog.text


@pytest.mark.parametrize("how", [{"error": "missing_scope"}, {"status": 500}, {"how": "hang"}])
async def test_a_name_that_slack_does_not_tell_is_the_id(how: dict[str, object]) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        slack.fail("users.info", times=10, **how)  # type: ignore[arg-type]

        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} hello <@U0NOBODY>")
        await until(lambda: intake.turns)

        assert intake.last.person == Person(ann, ann)
        assert intake.last.text == "hello @U0NOBODY"


@pytest.mark.parametrize(
    ("wire", "typed"),
    [
        ("<@UBOT> why?", "why?"),
        ("<@UBOT>: why?", "why?"),
        ("hey <@UBOT|parley> why?", "hey why?"),
        ("a\n<@UBOT>\nb", "a\n\nb"),
        ("<@U1|ann> and <@W2>", "@Ann and @W2"),
        ("see <https://a.example/?x=1&amp;y=2>", "see https://a.example/?x=1&y=2"),
        ("see <http://a.example|a.example>", "see a.example"),
        ("see <https://a.example|this>", "see this (https://a.example)"),
        ("<mailto:a@b.example|a@b.example>", "a@b.example"),
        ("<#C1|general> <#C2>", "#general #C2"),
        (
            "<!here> <!channel|channel> <!subteam^S1|@devs> <!subteam^S2>",
            "@here @channel @devs @S2",
        ),
        ("at <!date^1700000000^{time}|noon>", "at noon"),
        ("a &lt; b &amp;&amp; &lt;@U1&gt; &amp;lt;", "a < b && <@U1> &lt;"),
    ],
)
def test_a_message_is_read_as_it_was_typed(wire: str, typed: str) -> None:
    assert readable(wire, bot="UBOT", names={"U1": "Ann"}) == typed


@given(st.text())
def test_a_markdown_block_shows_any_text_and_opens_no_token(text: str) -> None:
    block = markdown_block(text)

    assert "<" not in block["text"]
    assert unescape(block["text"]) == text


async def test_an_empty_mention_gets_a_line_of_help_in_its_thread() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), slack.bot_mention)
        await until(lambda: len(slack.screen(slack.channel_id, ts)) == 2)

        assert slack.screen(slack.channel_id, ts)[1].text.startswith("Ask me something")
        assert not intake.asked


@both_transports
async def test_an_empty_mention_that_is_told_again_gets_one_line(transport: Transport) -> None:
    async with SlackEmulator() as slack, hearing(slack, FakeIntake(), transport):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), slack.bot_mention)
        await until(lambda: len(slack.screen(slack.channel_id, ts)) == 2)

        await slack.redeliver(ts)
        await slack.redeliver(ts)

        assert posts(slack) == 1


async def test_an_empty_mention_that_becomes_a_question_is_a_turn() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), slack.bot_mention)
        await until(lambda: posts(slack))

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert [(turn.text, turn.place["question"]) for turn in intake.turns] == [("why?", ts)]
        assert posts(slack) == 1


async def test_an_edited_question_is_the_turn_that_it_was() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why not?")
        await until(lambda: len(intake.asked) == 2)

        assert intake.texts == ["why?"]


async def test_a_refused_dm_that_is_told_again_gets_one_apology() -> None:
    intake = FakeIntake()
    intake.refuses = ThreadBusy()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        ts = await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: posts(slack))
        intake.refuses = None

        await slack.redeliver(ts)

        assert posts(slack) == 1
        assert not intake.turns


async def test_a_word_that_slack_is_slow_to_show_holds_up_no_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.errands._LAST", 0.0)
    async with SlackEmulator(ack_within=0.3) as slack, hearing(slack, FakeIntake()):
        slack.fail("chat.postMessage", "hang")

        await slack.say(slack.channel_id, slack.user("Ann"), slack.bot_mention)
        await until(lambda: posts(slack) and tries(slack))

        assert tries(slack) == [200]


async def test_a_refused_mention_gets_an_apology_that_only_the_asker_sees() -> None:
    intake = FakeIntake()
    intake.refuses = ThreadBusy()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")

        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: slack.ephemerals)
        await until(lambda: len(slack.deliveries) == 2)

        [word] = slack.ephemerals
        assert (word.channel_id, word.user_id) == (slack.channel_id, ann)
        assert word.text == ThreadBusy.apology
        assert {delivery.status for delivery in slack.deliveries} == {200}


async def test_a_flood_of_refused_questions_is_told_once() -> None:
    intake = FakeIntake()
    intake.refuses = ThreadBusy()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        await slack.say(dm, ann, "one?")
        await until(lambda: len(slack.screen(dm)) == 2)

        intake.refuses.told = True
        await slack.say(dm, ann, "two?")
        # The apology is an event, too.
        await until(lambda: len(slack.deliveries) == 3)

        assert posts(slack) == 1


async def test_a_refused_dm_gets_an_apology_as_a_message() -> None:
    intake = FakeIntake()
    intake.refuses = ThreadBusy()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        dm = slack.dm(ann)

        await slack.say(dm, ann, "why?")
        await until(lambda: len(slack.screen(dm)) == 2)

        assert slack.screen(dm)[1].text == ThreadBusy.apology


@both_transports
async def test_an_event_is_refused_while_the_store_is_away_and_comes_again(
    transport: Transport,
) -> None:
    intake = FakeIntake()
    intake.refuses = StoreUnavailable("no Redis")
    async with SlackEmulator(ack_within=0.2) as slack, hearing(slack, intake, transport):
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        # The second try follows the first at once, the third a minute later.
        await until(lambda: len(tries(slack)) == 2)
        intake.refuses = None
        slack.clock.advance(60.0)
        await until(lambda: intake.turns)
        await until(lambda: tries(slack)[-1] == 200)

        assert tries(slack)[0] == (503 if transport == "http" else None)
        assert len(intake.turns) == 1


async def test_an_event_is_acknowledged_only_after_admission() -> None:
    intake = FakeIntake()
    intake.slow = 0.2
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: tries(slack))

        assert intake.turns
        assert min(d.seconds for d in slack.deliveries if d.kind == "app_mention") >= 0.2


async def test_a_failure_of_ours_is_logged_and_the_event_comes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            intake.refuses = ZeroDivisionError()
            status = await send(slack, url, dm_event(slack))
            intake.refuses = None
            later = await send(slack, url, dm_event(slack))

        assert (status, later) == (503, 200)
        assert "an event could not be handled" in caplog.text
        assert "why?" not in caplog.text


async def test_a_deleted_question_is_forgotten() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await slack.delete(slack.channel_id, ts)
        await until(lambda: intake.forgotten)

        assert intake.forgotten == [intake.last.id]


async def test_a_deleted_question_that_has_replies_is_forgotten_too() -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            await surface.post(first("Because", final=True))

        await slack.delete(slack.channel_id, ts)
        await until(lambda: intake.forgotten)

        assert intake.forgotten == [intake.last.id]


async def test_a_question_deleted_while_it_is_read_is_forgotten_by_its_turns_id() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        slack.fail("users.info", "hang")
        root = await slack.say(slack.channel_id, ann, "lunch?")
        secret = f"{slack.bot_mention} my password is 1234"
        ts = await slack.say(slack.channel_id, ann, secret, thread_ts=root)
        await until(lambda: any(call.method == "users.info" for call in slack.requests))

        await slack.delete(slack.channel_id, ts)
        await until(lambda: intake.forgotten)
        early = list(intake.asked)
        await until(lambda: intake.asked)

        assert not early
        assert intake.forgotten == intake.asked


async def test_a_question_that_is_not_admitted_gets_no_reply() -> None:
    intake = FakeIntake()
    intake.knows_all = True
    async with SlackEmulator() as slack, hearing(slack, intake):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: tries(slack))

        assert tries(slack) == [200]
        assert len(slack.screen(slack.channel_id, ts)) == 1
        assert not slack.ephemerals


@both_transports
async def test_the_stop_button_stops_its_turn(transport: Transport) -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake, transport) as platform:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        ts = await slack.say(dm, ann, "why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message_id = await surface.post(first("Because"))

            delivery = await slack.click(dm, message_id.split(":")[1], ann, "stop")

        assert delivery.status == 200
        assert intake.stopped == [f"slack:{slack.team_id}:{dm}:{ts}"]


@pytest.mark.parametrize("away", [None, StoreUnavailable("away")])
async def test_a_stop_that_leads_to_nothing_is_answered_to_the_person_alone(
    away: StoreUnavailable | None,
) -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        await slack.say(dm, ann, "why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message_id = await surface.post(first("Because"))
        intake.has_ended, intake.refuses = True, away

        delivery = await slack.click(dm, message_id.split(":")[1], ann, "stop")
        await until(lambda: slack.ephemerals, within=5)

        (told,) = slack.ephemerals
        assert delivery.status == 200
        assert (told.channel_id, told.user_id, told.text) == (dm, ann, (away or HasEnded).apology)


@both_transports
async def test_slacks_own_stop_stops_a_reply_that_streams(transport: Transport) -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake, transport) as platform:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            await surface.post(first("Because"))

            await slack.stop(slack.channel_id, ts, ann)
            await until(lambda: intake.stopped_threads)

        assert intake.stopped_threads == [intake.last.key]


async def test_slacks_own_stop_stops_what_ask_began() -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        await slack.slash(slack.channel_id, ann, "/ask", "why?")
        async with platform.surface(intake.last) as surface:
            await surface.post(first("Because"))

            await slack.stop(slack.channel_id, intake.last.key.thread, ann)
            await until(lambda: intake.stopped_threads)

        assert intake.stopped_threads == [intake.last.key]


@both_transports
async def test_the_regenerate_button_tells_who_pressed_it_and_when(transport: Transport) -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake, transport) as platform:
        ann, bob = slack.user("Ann"), slack.user("Bob")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message_id = await surface.post(first("Because", last=True))
        shown = message_id.split(":")[1]

        deliveries = [
            await slack.click(slack.channel_id, shown, bob, "regenerate") for _ in range(2)
        ]

        turn_id = f"slack:{slack.team_id}:{slack.channel_id}:{ts}"
        assert [delivery.status for delivery in deliveries] == [200, 200]
        assert [(turn, person) for turn, person, _ in intake.pressed] == [(turn_id, bob)] * 2
        assert len({press for _, _, press in intake.pressed}) == 2
        assert not slack.ephemerals


def test_a_press_is_the_same_however_often_it_is_told() -> None:
    body = {
        "type": "block_actions",
        "trigger_id": "12.34.abc",
        "user": {"id": "U1"},
        "container": {"channel_id": "C1", "message_ts": "2.1", "thread_ts": "1.1"},
        "actions": [{"action_id": "regenerate", "value": "slack:T1:C1:1.1"}],
    }

    assert pressed(body) == Press("slack:12.34.abc", "C1", "U1", "1.1", "slack:T1:C1:1.1")
    assert pressed({**body, "actions": [{"action_id": "regenerate"}]}) is None


@pytest.mark.parametrize("refusal", [NotTheLast(), StoreUnavailable("away")])
@pytest.mark.parametrize("direct", [False, True])
async def test_a_press_that_leads_to_nothing_is_answered_to_the_person_alone(
    direct: bool, refusal: Refused | StoreUnavailable
) -> None:
    intake = FakeIntake()
    async with fast() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        channel = slack.dm(ann) if direct else slack.channel_id
        ts = await slack.say(channel, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message_id = await surface.post(first("Because", last=True))
        intake.refuses = refusal

        delivery = await slack.click(channel, message_id.split(":")[1], ann, "regenerate")
        await until(lambda: slack.ephemerals)

        (told,) = slack.ephemerals
        assert delivery.status == 200
        assert (told.channel_id, told.user_id, told.text) == (channel, ann, refusal.apology)
        assert told.thread_ts == (None if direct else ts)


async def test_slacks_own_stop_needs_no_process_that_knows_the_question() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        event = {**dm_event(slack), "thread_ts": "1600000000.000100"}
        stop = {**event, "type": "agent_session_stopped", "streaming_message_ts": []}

        async with serving(platform.handler(intake)) as url:
            status = await send(slack, url, stop)

        key = ThreadKey("slack", slack.team_id, str(event["channel"]), "1600000000.000100")
        assert status == 200
        assert intake.stopped_threads == [key]


# The command


@both_transports
async def test_ask_posts_the_question_and_is_answered_in_its_thread(transport: Transport) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        ann = slack.user("Ann")

        delivery = await slack.slash(slack.channel_id, ann, "/ask", "why is <b> & so on?")

        [question] = slack.screen(slack.channel_id)
        turn = intake.last
        assert question.text == "Ann asks: why is <b> & so on?"
        assert (delivery.status, delivery.body.strip()) == (200, "")
        assert delivery.seconds < 2
        assert turn.id.startswith(f"slack:{slack.team_id}:cmd:")
        assert turn.key == ThreadKey("slack", slack.team_id, slack.channel_id, question.ts)
        assert turn.person == Person(ann, "Ann")
        assert turn.text == "why is <b> & so on?"
        assert turn.place["thread"] == turn.place["question"] == question.ts


async def test_ask_works_in_a_dm() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        dm = slack.dm(ann)

        await slack.slash(dm, ann, "/ask", "why?")

        assert [shown.text for shown in slack.screen(dm)] == ["Ann asks: why?"]
        assert intake.last.place["channel"] == dm


async def test_ask_pings_nobody_and_shows_no_previews() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, bob = slack.user("Ann"), slack.user("<!here>")

        await slack.slash(slack.channel_id, bob, "/ask", f"<!channel> <@{ann}> https://a.example")

        [question] = slack.screen(slack.channel_id)
        assert question.text == "<!here> asks: @channel @Ann https://a.example"
        assert not slack.pings
        assert not slack.unfurls


async def test_ask_shows_the_beginning_of_a_long_question() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why? " * 1000)

        [question] = slack.screen(slack.channel_id)
        assert question.text.startswith("Ann asks: why? why?")
        assert question.text.endswith("…")
        assert intake.last.text == ("why? " * 1000).strip()


@both_transports
async def test_ask_without_a_question_gets_a_line_of_help(transport: Transport) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "  ")

        assert slack.ephemerals[0].text.startswith("Ask me something: `/ask ")
        assert not slack.screen(slack.channel_id)


async def test_ask_where_the_bot_is_no_member_tells_how_to_invite_it() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        elsewhere = slack.channel("elsewhere", member=False)

        await slack.slash(elsewhere, slack.user("Ann"), "/ask", "why?")

        assert "/invite @parley" in slack.ephemerals[0].text
        assert not intake.asked


@pytest.mark.parametrize("refusal", [ThreadBusy(), StoreUnavailable("no Redis")])
async def test_ask_takes_a_question_back_that_was_not_admitted(
    refusal: Refused | StoreUnavailable,
) -> None:
    intake = FakeIntake()
    intake.refuses = refusal
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert slack.ephemerals[0].text == refusal.apology
        assert not slack.screen(slack.channel_id)


async def test_ask_takes_a_question_back_whose_turn_is_known() -> None:
    intake = FakeIntake()
    intake.knows_all = True
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert not slack.screen(slack.channel_id)
        assert not slack.ephemerals


async def test_ask_apologises_when_the_question_cannot_be_posted() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        slack.fail("chat.postMessage")

        delivery = await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")

        assert delivery.status == 200
        assert slack.ephemerals[0].text == SurfaceError.apology
        assert not intake.asked


async def test_ask_apologises_within_three_seconds_and_takes_a_late_question_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.ask._QUESTION_BY", 0.2)
    intake = FakeIntake()
    async with SlackEmulator(latency=0.3) as slack, hearing(slack, intake):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
        apologies = [word.text for word in slack.ephemerals]
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert apologies == [SurfaceError.apology]
        assert not slack.screen(slack.channel_id)
        assert not intake.asked


async def test_ask_apologises_when_admission_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.ask._ADMITTED_BY", 0.1)
    intake = FakeIntake()
    intake.slow = 5.0
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert slack.ephemerals[0].text == StoreUnavailable.apology
        assert not slack.screen(slack.channel_id)


# The surface


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


async def test_a_reply_stands_at_the_top_level_of_a_dm() -> None:
    async with fast() as slack, joined(slack) as platform:
        dm = slack.dm(slack.user("Ann"))

        async with platform.surface(turn_in(slack, channel=dm)) as surface:
            await surface.post(first("Because.", final=True))

        assert [shown.text for shown in slack.screen(dm)] == ["Because."]


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


async def test_a_page_without_text_is_taken_away() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        message_id = await surface.post(first("Be"))

        await surface.edit(message_id, first("", final=True))

        assert not replies()


async def test_all_replies_of_a_workspace_share_one_budget() -> None:
    async with fast() as slack, joined(slack) as platform:
        dm = turn_in(slack, channel=slack.dm(slack.user("Ann")))

        async with platform.surface(turn_in(slack)) as one, platform.surface(dm) as other:
            page = Page(0, "", final=False)
            assert one.budget(page, new=False) == other.budget(page, new=False)
            assert one.budget(page, new=True) != one.budget(page, new=False)


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


async def test_a_status_never_follows_the_reply() -> None:
    async with SlackEmulator(latency=0.1) as slack, open_thread(slack) as (surface, _, _):
        await asyncio.sleep(0.02)  # the status is on its way
        await surface.post(first("Because.", final=True))

        status, post = slack.requests[-2:]
        assert [status.method, post.method] == ["assistant.threads.setStatus", "chat.postMessage"]
        assert post.at - status.at > 0.09


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
        assert caplog.text.count("no status") == 1


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
async def test_refusals_are_told_in_our_own_words(
    error: str, kind: type[SurfaceError], word: str
) -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        message_id = await surface.post(first("Be"))
        slack.fail("chat.update", error=error)

        with pytest.raises(kind, match=error) as raised:
            await surface.edit(message_id, first("Because"))

        assert word in str(raised.value)


async def test_slacks_pause_is_passed_on() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        slack.fail("chat.postMessage", status=429, retry_after=7)

        with pytest.raises(WriteDelayed) as raised:
            await surface.post(first("Be"))

        assert raised.value.retry_after == 7.0
        assert raised.value.bucket == bucket_of(surface, first("Be"), new=True)


async def test_a_pause_names_the_method_that_slack_wants_less_of() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        message_id = await surface.post(first("Be"))
        bucket = bucket_of(surface, first("Because"))
        slack.fail("chat.update", status=429, retry_after=7)

        with pytest.raises(WriteDelayed) as raised:
            await surface.edit(message_id, first("Because"))

        assert raised.value.bucket == bucket


@pytest.mark.parametrize(("how", "status"), [("status", 500), ("status", 503), ("drop", 0)])
async def test_a_failing_slack_is_a_passing_failure(how: How, status: int) -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        slack.fail("chat.postMessage", how, status=status)

        with pytest.raises(WriteFailed):
            await surface.post(first("Be"))


async def test_a_silent_slack_is_a_passing_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.slack.platform.REQUEST_TIMEOUT", 0.2)
    async with fast() as slack, open_thread(slack) as (surface, _, _):
        slack.fail("chat.postMessage", "hang")

        with pytest.raises(WriteFailed, match="Slack did not answer in"):
            await surface.post(first("Be"))


async def test_a_page_of_text_from_a_proxy_is_a_passing_failure() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("auth.test"):
            names = {"team_id": "T1", "user_id": "U1", "bot_id": "B1", "user": "parley"}
            return web.json_response({"ok": True, **names})
        return web.Response(status=502, text="Bad Gateway")

    async with SlackEmulator() as slack, serving(answer) as url:
        slack.api_url = url
        async with joined(slack) as platform, platform.surface(turn_in(slack)) as surface:
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


async def test_a_page_that_is_taken_over_at_the_second_try_stands_there_once() -> None:
    async with fast() as slack, open_thread(slack) as (surface, _, replies):
        slack.fail("chat.postMessage", "drop", applied=True)
        slack.fail("chat.update", status=500)
        for _ in range(2):
            with pytest.raises(WriteFailed):
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

        async with joined(slack) as platform, platform.surface(turn, again=True) as other:
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

        async with platform.surface(turn, again=True) as surface:
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

        async with platform.surface(turn, again=True) as surface:
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

        async with joined(slack) as platform, platform.surface(turn, again=True) as other:
            found = await other.post(first("Because"))

    assert (found, unseen_posts()) == (sent, before)


async def test_a_second_message_where_too_much_was_said_is_counted() -> None:
    rates = {"chat.update": UNLIMITED, "chat.postMessage": UNLIMITED, **SHORT_PAGES}
    before = unseen_posts()
    async with (
        SlackEmulator(rates=rates, unlisted=True) as slack,
        open_thread(slack, again=True) as (surface, turn, replies),
    ):
        for number in range(PAGES * UNLISTED_MOST + 1):
            await slack.say(
                slack.channel_id,
                slack.user("Ann"),
                str(number),
                thread_ts=str(turn.place["thread"]),
            )

        await surface.post(first("Because", final=True))

        assert replies()[-1].text == "Because"
    assert unseen_posts() - before == 1


async def test_a_message_of_another_turn_is_not_taken_over() -> None:
    async with fast() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        turn = turn_in(slack, thread=ts)
        async with platform.surface(replace(turn, id="slack:another")) as surface:
            await surface.post(first("Something else", final=True))

        async with platform.surface(turn, again=True) as surface:
            await surface.post(first("Because", final=True))

        shown = [shown.text for shown in slack.screen(slack.channel_id, ts)]
        assert shown == ["why?", "Something else", "Because"]


@pytest.mark.parametrize("how", [{"error": "missing_scope"}, {"status": 429, "retry_after": 60}])
async def test_a_second_message_where_nothing_may_be_read_is_counted(
    how: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    before = unseen_posts()
    async with fast() as slack, open_thread(slack, again=True) as (surface, _, replies):
        slack.fail("conversations.replies", **how)  # type: ignore[arg-type]

        await surface.post(first("Because", final=True))
        await surface.post(Page(1, "and so on", final=True))

        assert [shown.text for shown in replies()] == ["Because", "and so on"]
        assert unseen_posts() - before == 1
        assert len([one for one in caplog.messages if "may stand twice" in one]) == 1


def unseen_posts() -> float:
    return REGISTRY.get_sample_value("parley_slack_unseen_posts_total") or 0.0


async def test_a_page_that_takes_no_edits_any_more_is_sent_anew() -> None:
    async with fast() as slack, open_thread(slack, again=True) as (surface, _, replies):
        message_id = await surface.post(first("Be"))
        slack.fail("chat.update", error="edit_window_closed")
        slack.fail("chat.postMessage", status=500)

        with pytest.raises(WriteRefused):
            await surface.edit(message_id, first("Because"))
        with pytest.raises(WriteFailed):
            await surface.post(first("Because"))
        await surface.post(first("Because", final=True))

        assert [shown.text for shown in replies()] == ["Be", "Because"]


# Starting, and what may be believed


async def test_a_refused_bot_token_stops_the_start() -> None:
    async with SlackEmulator() as slack:
        slack.bot_token = "xoxb-wrong"

        with pytest.raises(CannotStart, match="SLACK_BOT_TOKEN: invalid_auth"):
            async with joined(slack):
                pass


async def test_a_refused_app_token_stops_listening() -> None:
    async with SlackEmulator() as slack:
        slack.app_token = "xapp-wrong"
        async with joined(slack) as platform:
            with pytest.raises(CannotStart, match="SLACK_APP_TOKEN: invalid_auth"):
                await platform.listen(FakeIntake())


async def test_a_token_of_a_person_stops_the_start() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"ok": True, "team_id": "T1", "user_id": "U1", "user": "ann"})

    async with SlackEmulator() as slack, serving(answer) as url:
        slack.api_url = url

        with pytest.raises(CannotStart, match="SLACK_BOT_TOKEN is no bot's token"):
            async with joined(slack):
                pass


@pytest.mark.parametrize(("how", "status"), [("status", 503), ("status", 429), ("drop", 0)])
async def test_a_slack_in_trouble_is_not_blamed_on_the_token(how: How, status: int) -> None:
    async with SlackEmulator() as slack:
        slack.fail("auth.test", how, status=status)

        with pytest.raises(CannotStart, match="cannot be reached"):
            async with joined(slack):
                pass


async def test_a_slack_that_cannot_be_reached_stops_the_start() -> None:
    async with SlackEmulator() as slack:
        pass

    with pytest.raises(
        CannotStart, match=r"cannot be reached at http://127[^ ]+: Cannot connect to host 127"
    ):
        async with joined(slack):
            pass


async def test_http_needs_a_signing_secret() -> None:
    async with SlackEmulator() as slack:
        slack.signing_secret = ""
        async with joined(slack) as platform:
            with pytest.raises(CannotStart, match="SLACK_SIGNING_SECRET"):
                platform.handler(FakeIntake())


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Slack-Signature": "v0=0000"},
        {"X-Slack-Signature": "v0=é"},
        {"X-Slack-Request-Timestamp": "tomorrow"},
        {"X-Slack-Request-Timestamp": "1"},
        {"X-Slack-Request-Timestamp": None},
        {"X-Slack-Signature": None},
    ],
    ids=str,
)
async def test_a_request_that_slack_did_not_sign_is_refused(
    headers: dict[str, str | None], caplog: pytest.LogCaptureFixture
) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            status = await send(slack, url, dm_event(slack), headers=headers)

        assert status == 401
        assert not intake.asked
        assert "why?" not in caplog.text


@pytest.mark.parametrize(
    "headers", ["", f"X-Slack-Request-Timestamp: 1\r\nX-Slack-Signature: v0={'0' * 64}\r\n"]
)
async def test_a_strangers_body_is_not_waited_for(headers: str) -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(FakeIntake())) as url:
            answer = await answer_to_half_a_request(url, headers)

        assert answer.startswith("HTTP/1.1 401")


async def test_a_body_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.slack.signed_http._BODY_WITHIN", 0.1)
    async with SlackEmulator() as slack, joined(slack) as platform:
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed(slack, b"x").items())
        async with serving(platform.handler(FakeIntake())) as url:
            answer = await answer_to_half_a_request(url, headers)

        assert answer.startswith("HTTP/1.1 408")


@pytest.mark.parametrize(
    ("kind", "bodies"),
    [
        ("application/json", ["", "{", "[]", "null", "5", "{}", "payload=x"]),
        ("application/x-www-form-urlencoded", ["", "payload=x", "payload=[]", "payload=null"]),
    ],
)
async def test_what_slack_signed_but_nobody_can_read_is_a_bad_request(
    kind: str, bodies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(FakeIntake())) as url:
            answers = [await send_body(slack, url, body.encode(), kind=kind) for body in bodies]

        assert set(answers) == {400}
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"ts": None},
        {"ts": "no number"},
        {"ts": "infinity"},
        {"channel": None},
        {"channel": ["D1"]},
        {"type": None},
        {"type": 5},
    ],
    ids=str,
)
async def test_an_event_that_cannot_be_read_is_acknowledged_with_one_line_in_the_log(
    change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            status = await send(slack, url, {**dm_event(slack), **change})

        assert status == 200
        assert not intake.asked
        assert len(caplog.records) == 1
        assert "why?" not in caplog.text


@pytest.mark.parametrize("missing", ["user_id", "channel_id", "trigger_id"])
async def test_a_command_that_cannot_be_read_is_answered_with_an_apology(
    missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    intake = FakeIntake()
    names = {"user_id": "U1", "channel_id": "C1", "trigger_id": "1.2.3", "command": "/ask"}
    fields = {**names, "text": "why?", "team_id": SlackEmulator.team_id}
    del fields[missing]
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            body = urlencode(fields).encode()
            status = await send_body(slack, url, body, kind="application/x-www-form-urlencoded")

        assert status == 200
        assert not intake.asked
        assert [missing in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("wrapper", "ours"),
    [
        ({"team_id": "T0OTHER"}, False),
        ({"team_id": None}, False),
        ({"team_id": "T0OTHER", "authorizations": [{"team_id": "T0OTHER"}]}, False),
        ({"team_id": "T0OTHER", "context_team_id": SlackEmulator.team_id}, True),
        ({"team_id": "T0OTHER", "authorizations": [{"team_id": SlackEmulator.team_id}]}, True),
    ],
    ids=str,
)
async def test_only_events_of_our_workspace_are_admitted(
    wrapper: dict[str, object], ours: bool
) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        wrapped = {"type": "event_callback", "event": dm_event(slack), **wrapper}
        async with serving(platform.handler(intake)) as url:
            status = await send_body(slack, url, json.dumps(wrapped).encode())

        assert status == 200
        assert bool(intake.asked) == ours


async def test_slacks_check_of_the_address_is_answered() -> None:
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1a"}).encode()
    async with (
        SlackEmulator() as slack,
        joined(slack) as platform,
        serving(platform.handler(FakeIntake())) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=signed(slack, body)) as answer,
    ):
        assert "3eZbrw1a" in await answer.text()


@pytest.mark.parametrize("lose", [SlackEmulator.disconnect, SlackEmulator.cut])
async def test_a_lost_socket_is_replaced_and_nothing_is_missed(
    lose: Callable[[SlackEmulator], Awaitable[None]],
) -> None:
    intake = FakeIntake()
    async with SlackEmulator(ack_within=0.5) as slack, hearing(slack, intake):
        await lose(slack)

        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert intake.last.text == "why?"


async def test_proxy_variables_do_not_reach_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    intake = FakeIntake()
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert intake.last.text == "why?"


async def test_a_slack_platform_is_what_the_core_asks_for() -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        port: Platform = platform

        assert port.name == "slack"


def tries(slack: SlackEmulator) -> list[int | None]:
    """How the tries to deliver a mention ended."""
    return [d.status for d in slack.deliveries if d.kind == "app_mention"]


def posts(slack: SlackEmulator) -> int:
    """How often we tried to post a message."""
    return sum(call.method == "chat.postMessage" for call in slack.requests)


def status_of(slack: SlackEmulator, turn: Turn) -> list[str]:
    return slack.status(str(turn.place["channel"]), str(turn.place["thread"]))


def dm_event(slack: SlackEmulator) -> dict[str, object]:
    ann = slack.user("Ann")
    return {
        "type": "message",
        "channel": slack.dm(ann),
        "channel_type": "im",
        "user": ann,
        "text": "why?",
        "ts": "1700000000.000100",
        "event_ts": "1700000000.000100",
    }


async def send(
    slack: SlackEmulator,
    url: str,
    event: dict[str, object],
    *,
    headers: dict[str, str | None] | None = None,
) -> int:
    """Send an event as Slack does, with these headers instead, and return the status."""
    wrapped = {"type": "event_callback", "team_id": slack.team_id, "event": event}
    return await send_body(slack, url, json.dumps(wrapped).encode(), headers=headers)


async def send_body(
    slack: SlackEmulator,
    url: str,
    body: bytes,
    *,
    kind: str = "application/json",
    headers: dict[str, str | None] | None = None,
) -> int:
    signature = {**signed(slack, body), "Content-Type": kind}
    chosen: dict[str, str | None] = {**signature, **(headers or {})}
    sent = {name: value for name, value in chosen.items() if value is not None}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=sent) as answer,
    ):
        return answer.status


async def answer_to_half_a_request(url: str, headers: str) -> str:
    """The answer to a request whose body stops after a few bytes of many."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    try:
        head = f"POST /slack/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n{headers}\r\n"
        writer.write(head.encode() + b"abc")
        async with asyncio.timeout(2):
            return (await reader.readline()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


def signed(slack: SlackEmulator, body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    key, text = slack.signing_secret.encode(), f"v0:{now}:".encode() + body
    return {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={hmac.new(key, text, hashlib.sha256).hexdigest()}",
    }
