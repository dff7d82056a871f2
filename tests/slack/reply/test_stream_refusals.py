"""Whom Slack refuses a stream, for how long, and what a server that is not Slack answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import replace

import pytest

from adapters.slack.errors import NotSlack
from adapters.slack.reply.cards import Cards
from adapters.slack.reply.messages import Messages
from adapters.slack.reply.streams import Streams
from bot.domain import Json, Page, Person, ThreadKey, Turn
from bot.errors import WriteFailed, WriteRefused
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue
from tests.support.slack_platform import LIMITS, dm_event, first, joined, send, serving
from tests.support.slack_scene import TEXT, WORDS, make_scene
from tests.support.waiting import until

FAR = "T0FAR"


@pytest.mark.parametrize(
    "fields",
    [
        {"user_team": FAR},
        {"user_team": "E0FAR", "source_team": FAR},
        {"team": FAR},
        {"user_team": FAR, "source_team": "T0THIRD", "team": "T0FOURTH"},
    ],
    ids=str,
)
async def test_a_stream_is_for_the_workspace_of_the_person_who_asks(fields: dict[str, str]) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        place = {"channel": slack.channel_id, "channel_type": "channel"}
        asked = {"type": "app_mention", "ts": ts, **place}
        async with serving(platform.handler(intake.intake)) as url:
            await send(slack, url, {**dm_event(slack), **asked, **fields})
        slack.fail("chat.startStream", error="team_access_not_granted")

        async with platform.surface(intake.last) as surface:
            await surface.post(first("Because"))

        (call,) = [call for call in slack.requests if call.method == "chat.startStream"]
        assert intake.last.place["team"] == FAR
        assert call.body["recipient_team_id"] == FAR


async def test_a_team_that_may_see_no_stream_costs_nobody_else_theirs() -> None:
    async with make_streams() as (slack, streams, messages, cards):
        far = copy(messages)
        far.team = FAR
        slack.fail("chat.startStream", error="team_access_not_granted")

        with pytest.raises(WriteRefused):
            await streams.start(far, first("Because"), cards)

        assert not streams.are_possible(far.team)
        assert streams.are_possible(messages.team)


REFUSALS = ["team_access_not_granted", "missing_scope", "unknown_method"]


@pytest.mark.parametrize("error", REFUSALS)
async def test_what_slack_has_refused_is_not_tried_at_once(error: str) -> None:
    async with make_streams() as (slack, streams, messages, cards):
        slack.fail("chat.startStream", error=error)

        with pytest.raises(WriteRefused):
            await streams.start(messages, first("Because"), cards)

        assert not streams.are_possible(messages.team)


@pytest.mark.parametrize("error", REFUSALS)
async def test_what_slack_has_refused_is_tried_again_after_a_while(error: str) -> None:
    async with make_streams(refused_seconds=0.05) as (slack, streams, messages, cards):
        slack.fail("chat.startStream", error=error)
        with pytest.raises(WriteRefused):
            await streams.start(messages, first("Because"), cards)

        await until(lambda: streams.are_possible(messages.team))
        stream = await streams.start(messages, first("Because"), cards)

        assert stream.id.startswith(slack.channel_id)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 501])
@pytest.mark.parametrize("body", ["<html>Not Found</html>", {"detail": "Not Found"}], ids=str)
async def test_where_a_server_knows_no_streams_the_reply_is_posted_and_updated(
    store: Store, status: int, body: object
) -> None:
    async with make_scene() as scene:
        scene.slack.fail("chat.startStream", status=status, body=body, times=99)

        await scene.answer(store, WORDS)
        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2


async def test_a_server_that_can_post_and_update_alone_gets_the_whole_reply(store: Store) -> None:
    async with make_scene() as scene:
        for method in ("Stream", "Status", "conversations"):
            scene.slack.fail(method, status=404, body="<html>Not Found</html>", times=99)

        await scene.grow(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert scene.calls("chat.update")
        scene.slack.heal()


@pytest.mark.parametrize("status", [408, 425, 500, 503])
async def test_a_start_that_may_go_well_the_next_time_is_a_passing_failure(status: int) -> None:
    async with make_streams() as (slack, streams, messages, cards):
        slack.fail("chat.startStream", status=status, body="<html>Too early</html>")

        with pytest.raises(WriteFailed) as raised:
            await streams.start(messages, first("Because"), cards)

        assert not isinstance(raised.value, NotSlack)
        assert streams.are_possible(messages.team)


@pytest.mark.parametrize("status", [200, 403, 404, 405, 501])
async def test_an_answer_that_is_not_slacks_is_tried_again_and_names_the_address(
    status: int,
) -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        scene.slack.fail("chat.postMessage", status=status, body="<html>Not Found</html>")

        with pytest.raises(WriteFailed, match="SLACK_API_URL"):
            await surface.post(Page(0, "Because.", final=True, last=True))
        await surface.post(Page(0, "Because.", final=True, last=True))

        assert scene.texts() == ["Because."]


@asynccontextmanager
async def make_streams(
    *, refused_seconds: float = 3600.0
) -> AsyncIterator[tuple[SlackEmulator, Streams, Messages, Cards]]:
    """Streams below a question of Ann's, and the messages and cards of an answer."""
    limits = replace(LIMITS, refusals_remembered=refused_seconds)
    async with SlackEmulator() as slack:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "why?")
        async with joined(slack, limits=limits) as platform:
            streams = Streams(platform.workspace)
            key = ThreadKey("slack", slack.team_id, slack.channel_id, ts)
            place: dict[str, Json] = {"channel": slack.channel_id, "thread": ts, "question": ts}
            turn = Turn("slack:1", key, Person(ann, "Ann"), "why?", place, 1.0)
            messages = Messages(platform.workspace, turn)
            yield slack, streams, messages, Cards(platform.workspace)
